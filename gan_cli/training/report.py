"""What a run reports at its beginning and its end."""

from __future__ import annotations

import contextlib
import logging
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from gan_cli.config.training import TrainConfig
from gan_cli.data.dataset import ArrayDataset, ImageDataset, TranslationDataset
from gan_cli.data.image_files import StreamedImages
from gan_cli.images import write_film
from gan_cli.rundir import checkpoint
from gan_cli.rundir.checkpoint import Checkpoint
from gan_cli.rundir.trust import is_trusted
from gan_cli.system.errors import (
    PreemptedError,
)
from gan_cli.system.text import clock, override, program, short
from gan_cli.training.game import Game

if TYPE_CHECKING:
    pass


log = logging.getLogger("gan_cli")


def film(config: TrainConfig, run_dir: Path) -> None:
    """``samples/training.gif`` of all pictures of the run, if it is wanted and not there."""
    path, pictures = run_dir / "samples" / "training.gif", sorted((run_dir / "samples").glob("step-*.png"))
    if config.gif and pictures and not path.exists():
        write_film(path, pictures)


def announce(config: TrainConfig, game: Game, saved: Checkpoint | None, run_dir: Path, command: str) -> None:
    """What is trained, where, and the command that continues it."""
    for network in ("generator", "discriminator"):
        count = sum(p.numel() for p in getattr(game.task, network).parameters())
        log.info("%s: %s, %s parameters", network, config.model[network]["_target_"], f"{count:,}")
    log.info("data: %s, %s, %s", describe(game.dataset), config.dataset["_target_"], kept_where(game, config))
    log.info("device: %s, %d threads, %s (%s)", game.device, game.threads, game.precision, game.precision_reason)
    log.info("compile: %s (%s)", "yes" if game.compiled else "no", game.compile_reason)
    if game.processes is not None:
        log.info("processes: %s", game.processes)
    if saved is not None:
        log.info("continues from step %d", saved.step)
        then, now = saved.info.get("machine", {}), game.machine()
        other = [f"{key}: {then.get(key)} -> {value}" for key, value in now.items() if then.get(key) != value]
        if other:
            log.info(
                "note: not bit-identical to a run never stopped, since it goes on with %s",
                ", ".join(other),
            )
    for change in game.changes:
        log.info("note: changed since it began, %s", short(change, 1000))
    for deviation in config.deviations:
        log.info("the recipe departs from its paper: %s", short(deviation, 1000))
    log.info("run directory: %s", run_dir)
    log.info("to continue it, or to stop with Ctrl-C and go on later: %s", command)


def describe(dataset: ImageDataset | TranslationDataset) -> str:
    """How many samples there are, in words."""
    if not isinstance(dataset, TranslationDataset):
        return f"{len(dataset):,} {'images' if len(dataset.shape) == 3 else 'points'}"
    counts = " and ".join(f"{len(part):,}" for _, part in dataset.streams)
    return f"{counts} {'pairs' if dataset.paired else 'images'}"


def kept_where(game: Game, config: TrainConfig) -> str:
    """Whether the samples are in memory, or decoded each time they are used, and why."""
    dataset = game.dataset
    parts = [part for _, part in dataset.streams] if isinstance(dataset, TranslationDataset) else [dataset]
    if all(isinstance(part, ArrayDataset) for part in parts):
        held = sum(part.images.nbytes for part in parts if isinstance(part, ArrayDataset)) / 2**30
        if game.device.type == "cpu":
            return f"in memory ({held:.2g} GB)"
        fits = "they fit" if game.batches.resident else "half of the device's free memory is less"
        return f"in the memory of the {game.device.type if game.batches.resident else 'host'} ({held:.2g} GB, {fits})"
    need = sum(part.nbytes for part in parts if isinstance(part, StreamedImages)) / 2**30
    limit = config.dataset.get("memory_gb")
    why = "" if limit is None else f" (in memory they would need {need:.2g} GB, dataset.memory_gb={limit:g})"
    return f"read as they are used, workers={game.batches.workers}{why}"


def farewell(config: TrainConfig, game: Game, run_dir: Path, seconds: float) -> None:
    """Where everything lies and what to type next."""
    last = checkpoint.name(config.total_steps)
    translates = isinstance(game.dataset, TranslationDataset)
    trust = [] if is_trusted(config.as_dict(), dataset=translates) else ["trust=true"]
    number = "num_samples=16" if translates else "num_samples=64"
    sample = shlex.join([program("gan-sample"), override("run_dir", run_dir), number, *trust])
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
    if len(getattr(game.dataset, "shape", (3, 0, 0))) == 3:
        trust = [] if is_trusted(config.as_dict(), dataset=True) else ["trust=true"]
        log.info("             %s", shlex.join([program("gan-eval"), override("run_dir", run_dir), *trust]))


@contextmanager
def logged_to(path: Path) -> Iterator[None]:
    """Send the log to a file as well."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.handleError = lambda record: None  # type: ignore[method-assign]  # a full disk: the console has it
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    log.addHandler(handler)
    try:
        yield
    except BaseException as error:  # the console gets one line; here is the rest
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
