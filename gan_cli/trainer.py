"""One training run from config to finished directory: build, resume, watch, save."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gan_cli import checkpoint, distributed, hparams, status
from gan_cli.checkpoint import Checkpoint
from gan_cli.cli import override, program
from gan_cli.config import MAY_CHANGE, TrainConfig, differences, is_among, to_yaml
from gan_cli.data.dataset import ArrayDataset, ImageDataset, TranslationDataset
from gan_cli.data.image_files import StreamedImages
from gan_cli.engine import Progress, train
from gan_cli.errors import (
    CheckpointError,
    ClashError,
    DiskError,
    DivergedError,
    GanError,
    NotFoundError,
    OutputError,
    PreemptedError,
    PrunedError,
    file_of,
    of_system,
)
from gan_cli.files import OWN_NAMES, refuse_links, write_file
from gan_cli.game import Game, build_game, refuse_incomplete, snapshot
from gan_cli.health import Health, against_divergence
from gan_cli.images import write_film
from gan_cli.locks import locked
from gan_cli.metrics.names import VALUES
from gan_cli.outcome import final_metric, refuse_unknown_metric
from gan_cli.overfitting import Overfitting
from gan_cli.randomness import seed_everything
from gan_cli.results import number, short
from gan_cli.runs import choose_device, create
from gan_cli.signals import stop_on_signal
from gan_cli.trust import is_trusted
from gan_cli.writer import Writer, clock

if TYPE_CHECKING:
    from gan_cli.eval_training import TrainingEvaluation
    from gan_cli.from_run import Original

log = logging.getLogger("gan_cli")
Report = Callable[[int, float], bool]  # step, value of optimized_metric -> whether the run is hopeless
PRUNED = "the search"  # as the reason why a run stops
UNSAID = ("run_dir", "allow_change", "deviations")  # not worth a note when a run continues with another


@contextmanager
def translated(run_dir: Path | None) -> Iterator[None]:
    """Within this block a full disk, a full memory and a run directory that cannot be used are errors of ours."""
    try:
        yield
    except (OSError, RuntimeError, MemoryError) as error:
        known = of_system(error, str(run_dir))
        if known is None and isinstance(error, OSError) and file_of(error).startswith(f"{run_dir}{os.sep}"):
            what = f"the run directory cannot be used: {error.strerror}"
            known = DiskError(what, file_of(error), "If it is still there, the same command continues")
        if known is None:
            raise
        raise known from error


def train_run(
    config: TrainConfig,
    run_dir: Path | None,
    name: str,
    command: Callable[[Path | None], str],
    *,
    report: Report | None = None,
    original: Original | None = None,
) -> float | None:
    """Train, or continue, one run; return the value of ``optimized_metric``.

    Of several processes the first one does what is said here, the others update the same networks beside it.

    Args:
        run_dir: its directory; None makes a new one called after ``name``.
        command: the command line that continues the run in a directory; of None: that makes it anew in one of its own.
        report: gets each new value of ``optimized_metric`` and ends the run if it says that it is hopeless.
        original: of which run this one is a copy.

    Raises:
        GanError: anything foreseeable. PreemptedError, PrunedError: stopped early with its state saved.
    """
    with distributed.joined(lambda: choose_device(config.device)):
        if distributed.rank() == 0:
            return lead(config, run_dir, name, command, report=report, original=original)
        follow(config)
        return None


def follow(config: TrainConfig) -> None:
    """What every process but the first does: the updates, and nothing else.

    Raises:
        PreemptedError: stopped early, the state saved by the first process.
    """
    begin = distributed.from_first(None)
    if begin is None:  # finished before
        return
    run_dir, step = begin
    try:
        saved = checkpoint.load(run_dir, step) if step is not None else None
    except (CheckpointError, NotFoundError) as error:
        raise CheckpointError(error.what, error.where, "Every process must be able to read the run directory") from error
    with translated(run_dir), stop_on_signal() as stop:
        game = build_game(config, saved)
        try:
            train(
                game.task, game.generator, game.discriminator, game.ema, game.batches, game.progress,
                total_steps=config.total_steps, seed=config.seed, after_step=lambda logs: not distributed.agree(stop),
            )  # fmt: skip
        finally:
            game.batches.close()
    if game.progress.step < config.total_steps:
        raise PreemptedError(f"stopped by {stop[0]}", "another process", "The first one saves")


def lead(
    config: TrainConfig,
    run_dir: Path | None,
    name: str,
    command: Callable[[Path | None], str],
    *,
    report: Report | None = None,
    original: Original | None = None,
) -> float | None:
    """See :func:`train_run`."""
    with ExitStack() as stack:
        saved, changes, new = None, [], True
        if run_dir is not None and run_dir.exists():
            new = False
            refuse_foreign(run_dir)
            refuse_links(run_dir, "Remove it; run_dir itself may be a link")
            stack.enter_context(locked(run_dir))
            checkpoint.clean(run_dir)
            try:
                saved = checkpoint.load_newest(run_dir)
            except CheckpointError as error:  # no signal or time limit any more: nobody should repeat the command
                at = Progress(max(checkpoint.steps(run_dir), default=0))
                status.Status(run_dir, config.total_steps, at, command(None)).write("failed", str(error), error.exit_code)
                raise
            if saved is not None:
                refuse_incomplete(saved)
                changes = refuse_drift(saved, config, run_dir)
                if saved.step >= config.total_steps:
                    log.info("%s is finished: %d of %d steps", run_dir, saved.step, config.total_steps)
                    if (status.read(run_dir) or {}).get("state") != "complete":  # killed after its last checkpoint
                        status.Status(run_dir, config.total_steps, saved, command(None)).write("complete", exit_code=0)
                    checkpoint.mark_best(run_dir, checkpoint.best_of(saved, run_dir))
                    film(config, run_dir)
                    distributed.from_first(None)
                    if original is not None:
                        original.compare(config, run_dir)
                    return final_metric(run_dir, config)
                checkpoint.set_aside(run_dir, [step for step in checkpoint.steps(run_dir) if step > saved.step])
        distributed.from_first((run_dir and run_dir.absolute(), None if saved is None else saved.step))
        game = build_game(config, saved)
        game.changes += changes
        if original is not None:
            original.refuse_other_data(game.dataset.fingerprint, config.allow_change)
        evaluation = evaluation_of(config, game)
        stop = stack.enter_context(stop_on_signal())
        if new or run_dir is None:
            run_dir = create(name) if run_dir is None else make(run_dir)
            stack.enter_context(locked(run_dir))
            if checkpoint.steps(run_dir):
                raise OutputError("another process has trained in it meanwhile", str(run_dir), "Repeat the command")
        stack.callback(game.batches.close)
        if evaluation is not None:
            evaluation.begin(run_dir, checkpoint.best_of(saved, run_dir))
        stack.enter_context(logged_to(run_dir / "train.log"))
        kept = status.Status(run_dir, config.total_steps, game.progress, command(None))
        with kept.kept(), translated(run_dir):
            if original is not None:
                original.announce(config, game.machine(), game.dataset.fingerprint)
            value = play(config, game, evaluation, saved, run_dir, command(run_dir), kept, stop, report)
            if original is not None:
                original.compare(config, run_dir)
            return value


def evaluation_of(config: TrainConfig, game: Game) -> TrainingEvaluation | None:
    """What ``eval_every`` asks for."""
    if config.eval_every is None:
        return None
    from gan_cli.eval_training import TrainingEvaluation

    return TrainingEvaluation(config, game)


def play(
    config: TrainConfig,
    game: Game,
    evaluation: TrainingEvaluation | None,
    saved: Checkpoint | None,
    run_dir: Path,
    command: str,
    kept: status.Status,
    stop: list[str],
    report: Report | None,
) -> float | None:
    """Run the loop in ``run_dir`` with everything that happens beside it, until its end or until ``stop`` holds a reason."""
    started = time.monotonic()
    progress = game.progress
    (run_dir / "samples" / "training.gif").unlink(missing_ok=True)  # of an earlier, shorter session
    write_file(run_dir / "config.yaml", to_yaml(config.as_dict()))
    announce(config, game, saved, run_dir, command)
    then = saved.info["config"] if saved is not None else None
    before = (then["log_every"], then["sample_every"]) if then is not None else None
    superseded = {saved.step} if saved is not None and saved.step % saved.info["config"]["save_every"] else set()
    marked = checkpoint.best_of(saved, run_dir)
    checkpoint.mark_best(run_dir, marked)
    superseded |= {step for step in (*config.milestones, marked["step"] if marked else 0) if step % config.save_every}
    remedy = against_divergence(config.loss, config.optimizer)
    writer = Writer(
        run_dir, to_yaml(config.as_dict()), progress,
        total_steps=config.total_steps, log_every=config.log_every, before=before, remedy=remedy,
        waited=lambda: game.batches.waited, told=hparams.values(config, command),
        evaluated=evaluation.values if evaluation is not None else (),
    )  # fmt: skip

    health = Health(config.total_steps)
    for row in writer.earlier:
        health.update(row)
    overfitting = Overfitting(game.task, game.dataset, config.dataset, seed=config.seed, device=game.device)

    @torch.no_grad()
    def draw() -> None:
        seed_everything(config.seed, "picture")  # the next step has a seed of its own
        writer.picture(game.task.picture(game.ema.average, game.examples))

    @torch.no_grad()
    def measure() -> dict[str, float]:
        scalars: dict[str, float] = game.task.measure(game.ema.average, game.examples)
        return scalars | overfitting.measure()

    def save() -> None:
        writer.sync()
        tensors, info = snapshot(config, game)
        tensors["log_sums"] = writer.state()
        tensors = {group: values for group, values in tensors.items() if values}
        info["tensors"] = {group: sorted(values) for group, values in tensors.items()}
        info["best"] = best = evaluation.best if evaluation is not None else marked
        refuse_non_finite(tensors, run_dir, progress.step, remedy)
        checkpoint.save(run_dir, progress.step, tensors, info)
        checkpoint.mark_best(run_dir, best)
        spared = {*config.milestones, best["step"] if best else 0}
        checkpoint.rotate(run_dir, progress.step, config.keep_checkpoints, superseded, spared)
        if progress.step % config.save_every:
            superseded.add(progress.step)
        kept.write("running")

    def judge(values: Mapping[str, float]) -> None:
        """Stop if the search that the run belongs to gives it up for these values."""
        key = config.optimized_metric
        if report is None or key is None or key not in values or progress.step >= config.total_steps:
            return
        if report(progress.step, values[key]):
            stop.insert(0, PRUNED)  # a signal would come back with the same command

    def evaluate() -> bool:
        """Log what the evaluation finds; whether it is the best so far."""
        assert evaluation is not None
        try:
            values, better = evaluation.measure()
        except DivergedError:
            raise
        except (GanError, RuntimeError, MemoryError) as error:  # a night's training is worth more
            if not isinstance(error, GanError) and of_system(error, "") is None:
                raise
            log.warning("warning: there is no evaluation of step %d, the training goes on: %s", progress.step, error)
            return False
        writer.measure({f"metric/{key}": value for key, value in values.items()})
        judge({f"metric/{key}": value for key, value in values.items()})
        shown = ", ".join(f"{key} {number(value)}" for key, value in values.items() if not key.endswith("_std"))
        log.info("evaluation of step %d: %s%s", progress.step, shown, " (best so far)" if better else "")
        return better

    if saved is not None:
        writer.load_state(saved.tensors.get("log_sums", {}), game.device)
        if saved.step % saved.info["config"]["sample_every"] == 0:
            draw()  # TensorBoard dropped it with what came after

    def after_step(logs: dict[str, Tensor]) -> bool:
        writer.add(logs)
        step, last = progress.step, progress.step >= config.total_steps
        if config.max_hours is not None and time.monotonic() - started > config.max_hours * 3600:
            stop.append(f"max_hours={config.max_hours:g}")
        row_due = step % config.log_every == 0 or last
        save_due = step % config.save_every == 0 or step in config.milestones
        evaluation_due = config.eval_every is not None and step % config.eval_every == 0
        # Here, and nowhere else, the host waits for the device.
        skipping = (row_due or save_due or evaluation_due or stop) and bool(
            game.discriminator.skipped or game.generator.skipped
        )
        if step % config.sample_every == 0 or last:
            draw()
        if step % config.sample_every == 0:  # what is measured goes into the next row
            writer.measure(measure())
        better = evaluation_due and not skipping and evaluate()
        if row_due:
            row = writer.row(keep_sums=step % config.log_every != 0)
            for line in health.update(row):
                log.warning(line)
            measured = str(config.optimized_metric).removeprefix("metric/")
            due = step >= config.sample_every or measured == config.optimized_metric
            if measured not in VALUES:
                judge(row)
            if due and not last and measured not in VALUES:  # at the end when the run is saved
                refuse_unknown_metric(config.optimized_metric, writer.seen)
        if skipping or writer.skipping:
            refuse_divergence(game, config, run_dir)
        ending = distributed.agree(stop) or last  # a signal that comes later waits for the next step
        if skipping and save_due and not ending:
            log.warning("warning: no checkpoint of step %d, updates are being skipped", step)
        elif save_due or better or ending:
            save()
        return not ending

    try:
        train(
            game.task, game.generator, game.discriminator, game.ema, game.batches, progress,
            total_steps=config.total_steps, seed=config.seed, after_step=after_step,
        )  # fmt: skip
        if progress.step >= config.total_steps:
            writer.ended(success=True)
    except Exception:
        with contextlib.suppress(OSError):
            writer.ended(success=False)
        raise
    finally:
        writer.close()
    if progress.step < config.total_steps:
        what = f"stopped at step {progress.step} of {config.total_steps} by {stop[0]}, state saved"
        if stop[0] == PRUNED:
            raise PrunedError(what.replace("stopped", "pruned"), str(run_dir), f"Continue with: {command}")
        raise PreemptedError(what, str(run_dir), f"Continue with: {command}")
    film(config, run_dir)
    farewell(config, game, run_dir, time.monotonic() - started)
    return final_metric(run_dir, config)


def refuse_divergence(game: Game, config: TrainConfig, run_dir: Path) -> None:
    """Called while updates are skipped, or have been since the last row.

    Raises:
        DivergedError: too many in a row, or what is not finite has reached the statistics of a network.
    """
    remedy = against_divergence(config.loss, config.optimizer)
    counts = {"discriminator": int(game.discriminator.skipped), "generator": int(game.generator.skipped)}
    if max(counts.values()) >= config.max_skipped_updates:
        lost = []
        for side, count in counts.items():
            step, updates = game.progress.step, count
            while updates > 0 and step > 0:  # back to the first of them
                step -= 1
                updates -= game.task.objective.turns(step) if side == "discriminator" else 1
            if count:
                lost.append(f"the {side}'s {getattr(game, side).not_finite()} since step {step + 1} ({count} in a row)")
        present = checkpoint.steps(run_dir)
        left = f"the last checkpoint is that of step {present[-1]}" if present else "there was no checkpoint yet"
        raise DivergedError(f"training diverged: not finite are {' and '.join(lost)}", str(run_dir), f"{remedy}; {left}")
    refuse_non_finite({"networks": game.task.state_dict()}, run_dir, game.progress.step, remedy)


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


def refuse_foreign(run_dir: Path) -> None:
    """Refuse to write into a directory that holds something other than a run."""
    if not run_dir.is_dir():
        raise OutputError("this is a file, not a directory", str(run_dir), "Choose another run_dir=")
    theirs = [p.name for p in run_dir.iterdir() if not p.name.startswith(".")]
    begun = (run_dir / ".lock").exists() and ((run_dir / "config.yaml").exists() or set(theirs) <= OWN_NAMES)
    if theirs and not begun and not checkpoint.steps(run_dir):
        raise OutputError(f"this directory holds other things ({sorted(theirs)[0]})", str(run_dir), "Choose another run_dir=")


def refuse_drift(saved: Checkpoint, config: TrainConfig, run_dir: Path) -> list[str]:
    """Note what is changed in a run that continues, and refuse what would have made another run unless it is allowed.

    Returns:
        What was allowed by ``allow_change``, in words.
    """
    changed = differences(saved.info["config"], config.as_dict())
    harmless = [f"{key}: {change}" for key, change in changed.items() if is_among(key, MAY_CHANGE) and key not in UNSAID]
    shared = {key: key.replace("optimizer.discriminator.", "optimizer.") for key in changed}  # which it is taken from
    allowed = {key for key in changed if {True} & {is_among(name, config.allow_change) for name in (key, shared[key])}}
    allowed -= {key for key in changed if is_among(key, MAY_CHANGE)}
    refused = [key for key in changed if not is_among(key, {*MAY_CHANGE, *allowed})]
    if refused:
        lines = [f"{key}: {changed[key]}" for key in refused]
        shown = "; ".join(lines[:8]) + (f"; and {len(lines) - 8} more" if len(lines) > 8 else "")
        names = ",".join(dict.fromkeys(shared[key] if len(refused) <= 3 else key.split(".")[0] for key in refused))
        todo = f"Repeat the command it was started with, choose another run_dir=, or go on all the same: allow_change=[{names}]"
        if refused == ["schedule.total_steps"]:
            kept = saved.info["config"]["schedule"].get("total_steps", saved.info["config"]["total_steps"])
            todo = f"Its schedule depends on total_steps: set schedule.total_steps={kept} too, or choose another run_dir="
        raise ClashError(f"the run was started with another config: {shown}", str(run_dir), todo)
    if harmless:
        log.info("note: other settings than before: %s", "; ".join(harmless))
    return [f"from step {saved.step} on {key}: {changed[key]}" for key in sorted(allowed)]


def refuse_non_finite(tensors: checkpoint.TensorGroups, run_dir: Path, step: int, remedy: str) -> None:
    """Never save what is already lost."""
    for group, values in tensors.items():
        for key, tensor in values.items():
            if tensor.is_floating_point() and not torch.isfinite(tensor).all():
                what = f"training diverged: {group} {key} is not finite at step {step}"
                raise DivergedError(what, str(run_dir), f"{remedy}; no checkpoint of it was saved")


def make(run_dir: Path) -> Path:
    """Make a directory the user named."""
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        todo = "Set run_dir=, or hydra.sweep.dir= of a sweep"
        known = of_system(error, str(run_dir)) if error.errno != errno.EROFS else None  # another directory will do
        raise known or OutputError(f"the run directory cannot be made: {error.strerror}", str(run_dir), todo) from error
    return run_dir


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
