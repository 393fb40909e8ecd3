"""Log lines at the start and at the end of a run."""

from __future__ import annotations

import contextlib
import logging
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch

from gan_cli.config.plain import Node
from gan_cli.data.dataset import ArrayDataset, ImageDataset, TranslationDataset
from gan_cli.data.image_files import StreamedImages
from gan_cli.images import write_film
from gan_cli.rundir import checkpoint
from gan_cli.rundir.checkpoint import Checkpoint
from gan_cli.system import console
from gan_cli.system.errors import (
    PreemptedError,
)
from gan_cli.system.text import clock, program, short, word
from gan_cli.system.version import version
from gan_cli.training.game import Game

log = logging.getLogger("gan_cli")
MAX_CLASSES = 20  # classes that are listed at the start


def film(run_dir: Path) -> None:
    """Write ``samples/training.gif`` from all sample grids of the run, unless it exists."""
    path, pictures = run_dir / "samples" / "training.gif", sorted((run_dir / "samples").glob("step-*.png"))
    if pictures and not path.exists():
        write_film(path, pictures)


def announce(game: Game, saved: Checkpoint | None, *, model: Node, dataset: Node, deviations: list[str]) -> None:
    """Log networks, data, device and deviations. ``model``, ``dataset``, ``deviations``: nodes of the config."""
    machine = game.machine
    say = partial(log.info, extra={console.SHARED: True})  # once for the jobs of a sweep that have the same line
    say("gan_cli %s", version())
    for network in ("generator", "discriminator"):
        count = sum(p.numel() for p in getattr(game.task, network).parameters())
        say("%s: %s, %s parameters", network, model[network]["_target_"], f"{count:,}")
    say("data: %s, %s, %s", describe(game.dataset), dataset["_target_"], kept_where(game, dataset.get("memory_gb")))
    if classes := class_counts(game.dataset):
        say("classes: %s", classes)
    say("device: %s, %d threads, %s (%s)", machine.device, machine.threads, machine.precision, machine.precision_reason)
    say("compile: %s (%s)", "yes" if machine.compiled else "no", machine.compile_reason)
    if machine.processes is not None:
        say("processes: %s", machine.processes)
    if saved is not None:
        say("continues from step %d", saved.step)
        then, now = saved.info.get("machine", {}), machine.facts()
        other = [f"{key}: {then.get(key)} -> {value}" for key, value in now.items() if then.get(key) != value]
        if other:
            say(
                "note: the result will differ slightly from an uninterrupted run, because of %s",
                ", ".join(other),
            )
    for change in game.changes:
        say("note: changed since the start: %s", short(change, 1000))
    for deviation in deviations:
        say("the recipe departs from its paper: %s", short(deviation, 1000))


def describe(dataset: ImageDataset | TranslationDataset) -> str:
    """The number of samples, as text."""
    if not isinstance(dataset, TranslationDataset):
        return f"{len(dataset):,} {'images' if len(dataset.shape) == 3 else 'points'}"
    counts = " and ".join(f"{len(part):,}" for _, part in dataset.streams)
    return f"{counts} {'pairs' if dataset.paired else 'images'}"


def class_counts(dataset: ImageDataset | TranslationDataset) -> str:
    """The names of the classes, each with its number of images; empty for a set without classes."""
    if isinstance(dataset, TranslationDataset) or dataset.labels is None:
        return ""
    counts = torch.bincount(dataset.labels, minlength=len(dataset.class_names)).tolist()
    shown = [f"{short(name)} ({n:,})" for name, n in zip(dataset.class_names, counts, strict=False)]
    return ", ".join(shown[:MAX_CLASSES]) + (f", ... {len(shown)} in all" if len(shown) > MAX_CLASSES else "")


def kept_where(game: Game, limit: float | None) -> str:
    """The storage of the samples, as text: in memory or decoded at each use, with the reason."""
    dataset = game.dataset
    parts = [part for _, part in dataset.streams] if isinstance(dataset, TranslationDataset) else [dataset]
    if all(isinstance(part, ArrayDataset) for part in parts):
        held = sum(part.images.nbytes for part in parts if isinstance(part, ArrayDataset)) / 2**30
        if game.machine.device.type == "cpu":
            return f"in memory ({held:.2g} GB)"
        fits = "they fit" if game.batches.resident else "more than half of the device's free memory"
        return f"in the memory of the {game.machine.device.type if game.batches.resident else 'host'} ({held:.2g} GB, {fits})"
    need = sum(part.nbytes for part in parts if isinstance(part, StreamedImages)) / 2**30
    why = "" if limit is None else f" (in memory they would need {need:.2g} GB, dataset.memory_gb={limit:g})"
    return f"read as they are used, workers={game.batches.workers}{why}"


def farewell(run_dir: Path, step: int, dataset: Any, seconds: float, *, is_trusted: Callable[[bool], bool]) -> None:
    """Log where the results are, and the next commands.

    Args:
        step: last step. dataset: training set. seconds: duration of this session.
        is_trusted: whether the run loads without ``trust=true``; its argument is whether the data set is needed too.
    """
    last = checkpoint.name(step)
    translates = isinstance(dataset, TranslationDataset)
    trust = [] if is_trusted(translates) else ["trust=true"]
    number = "num_samples=16" if translates else "num_samples=64"
    sample = shlex.join([program("gan-sample"), word("run_dir", run_dir), number, *trust])
    log.info("done in %s", clock(seconds))
    log.info("pictures:    %s", run_dir / "samples" / f"{last}.png")
    log.info(
        "curves:      %s, or: %s --logdir %s",
        run_dir / "metrics.jsonl",
        shlex.quote(program("tensorboard")),
        shlex.quote(str(run_dir)),
    )
    log.info("checkpoint:  %s", run_dir / "checkpoints" / last)
    log.info("next:        %s", sample)
    if len(getattr(dataset, "shape", (3, 0, 0))) == 3:
        trust = [] if is_trusted(True) else ["trust=true"]
        log.info("             %s", shlex.join([program("gan-eval"), word("run_dir", run_dir), *trust]))


class Kept(logging.Handler):
    """Keeps the records until the file of the log can be written."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record."""
        self.records.append(record)


@contextmanager
def kept() -> Iterator[list[logging.LogRecord]]:
    """Keep the records of the log within this block."""
    handler = Kept()
    log.addHandler(handler)
    try:
        yield handler.records
    finally:
        log.removeHandler(handler)


@contextmanager
def logged_to(path: Path, earlier: Sequence[logging.LogRecord] = ()) -> Iterator[None]:
    """Copy the log to a file, after ``earlier`` records."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.handleError = lambda record: None  # type: ignore[method-assign]  # a full disk: the line is on the console
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    for record in earlier:
        handler.handle(record)
    log.addHandler(handler)
    try:
        yield
    except BaseException as error:  # with its traceback; the console shows one line
        handler.handle(
            log.makeRecord(
                log.name, logging.ERROR, "", 0, "%s", (error,), None if isinstance(error, PreemptedError) else sys.exc_info()
            )
        )
        raise
    finally:
        log.removeHandler(handler)
        with contextlib.suppress(OSError):
            handler.close()
