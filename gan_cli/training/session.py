"""One training run from config to finished directory: build, resume, watch, save."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gan_cli.compute import processes
from gan_cli.compute.device import choose_device
from gan_cli.config.metrics import VALUES
from gan_cli.config.plain import to_yaml
from gan_cli.config.training import TrainConfig
from gan_cli.randomness import seed_everything
from gan_cli.rundir import checkpoint, hparams, status
from gan_cli.rundir.best import final_metric, refuse_unknown_metric
from gan_cli.rundir.checkpoint import Checkpoint
from gan_cli.rundir.directory import create
from gan_cli.system.errors import (
    CheckpointError,
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
from gan_cli.system.files import refuse_links, write_file
from gan_cli.system.locks import locked
from gan_cli.system.signals import stop_on_signal
from gan_cli.system.text import number
from gan_cli.training.build import build_game
from gan_cli.training.game import Game
from gan_cli.training.health import Health, against_divergence
from gan_cli.training.loop import Progress, train
from gan_cli.training.overfitting import Overfitting
from gan_cli.training.state import refuse_incomplete, snapshot
from gan_cli.training.writer import Writer

if TYPE_CHECKING:
    from gan_cli.rundir.from_run import Original
    from gan_cli.training.evaluation import TrainingEvaluation
from gan_cli.rundir.directory import make, refuse_foreign
from gan_cli.training.checks import refuse_divergence, refuse_drift, refuse_non_finite
from gan_cli.training.report import announce, farewell, film, logged_to

log = logging.getLogger("gan_cli")
Report = Callable[[int, float], bool]  # step, value of optimized_metric -> whether the run is hopeless
PRUNED = "the search"  # as the reason why a run stops


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
    with processes.joined(lambda: choose_device(config.device)):
        if processes.rank() == 0:
            return lead(config, run_dir, name, command, report=report, original=original)
        follow(config)
        return None


def follow(config: TrainConfig) -> None:
    """What every process but the first does: the updates, and nothing else.

    Raises:
        PreemptedError: stopped early, the state saved by the first process.
    """
    begin = processes.from_first(None)
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
            train(game, total_steps=config.total_steps, seed=config.seed, after_step=lambda logs: not processes.agree(stop))
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
                    processes.from_first(None)
                    if original is not None:
                        original.compare(config, run_dir)
                    return final_metric(run_dir, config)
                checkpoint.set_aside(run_dir, [step for step in checkpoint.steps(run_dir) if step > saved.step])
        processes.from_first((run_dir and run_dir.absolute(), None if saved is None else saved.step))
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
    from gan_cli.training.evaluation import TrainingEvaluation

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
        ending = processes.agree(stop) or last  # a signal that comes later waits for the next step
        if skipping and save_due and not ending:
            log.warning("warning: no checkpoint of step %d, updates are being skipped", step)
        elif save_due or better or ending:
            save()
        return not ending

    try:
        train(game, total_steps=config.total_steps, seed=config.seed, after_step=after_step)
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
