"""One training run in its directory: start or resume, steps, and everything that is due between steps."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gan_cli.app.commands import Command
from gan_cli.compute import processes
from gan_cli.compute.device import choose_device
from gan_cli.config.metrics import VALUES
from gan_cli.config.plain import to_yaml
from gan_cli.config.training import TrainConfig
from gan_cli.losses import Logistic
from gan_cli.randomness import seed_everything
from gan_cli.rundir import checkpoint, hparams, status
from gan_cli.rundir.best import final_metric, refuse_unknown_metric
from gan_cli.rundir.checkpoint import Checkpoint
from gan_cli.rundir.directory import create, make, refuse_foreign
from gan_cli.rundir.from_run import NoOriginal
from gan_cli.rundir.trust import is_trusted
from gan_cli.system.errors import (
    CheckpointError,
    DivergedError,
    GanError,
    NotFoundError,
    OutputError,
    PreemptedError,
    PrunedError,
    failures_in,
)
from gan_cli.system.files import refuse_links, write_file
from gan_cli.system.locks import locked
from gan_cli.system.signals import stop_on_signal
from gan_cli.system.text import number
from gan_cli.training.build import build_game, load_dataset
from gan_cli.training.checks import refuse_drift
from gan_cli.training.game import Game
from gan_cli.training.guard import Guard
from gan_cli.training.health import Health, against_divergence
from gan_cli.training.loop import train
from gan_cli.training.overfitting import Overfitting
from gan_cli.training.plan import Due, Plan
from gan_cli.training.report import announce, farewell, film, kept, logged_to
from gan_cli.training.resume import finish_again, reopen
from gan_cli.training.state import snapshot
from gan_cli.training.writer import Options, Writer

if TYPE_CHECKING:
    from gan_cli.rundir.from_run import Original
    from gan_cli.training.evaluation import TrainingEvaluation

log = logging.getLogger("gan_cli")
Report = Callable[[int, float], bool]  # (step, value of optimized_metric) -> whether to prune the run
PRUNED = "the search"  # reason to stop of a pruned run


def run(
    config: TrainConfig,
    run_dir: Path | None,
    name: str,
    command: Command,
    *,
    report: Report | None = None,
    original: Original | None = None,
    in_epochs: Callable[[int], TrainConfig] | None = None,
) -> float | None:
    """Train or resume one run; return the value of ``optimized_metric``.

    Of several processes rank 0 does all of this. The others only take part in the updates.

    Args:
        run_dir: directory of the run; None makes a new one named after ``name``.
        command: shell command of the run.
        report: called with each new value of ``optimized_metric``; True prunes the run.
        original: the run of ``from_run``, which this one repeats.
        in_epochs: gives the config by the size of the training set, if the length of the run is set in epochs.

    Raises:
        GanError: any foreseeable failure. PreemptedError, PrunedError: stopped early with its state saved.
    """
    with processes.joined(lambda: choose_device(config.device)), ExitStack() as stack:
        dataset = None
        if in_epochs is not None:
            dataset = load_dataset(config)
            config = in_epochs(len(dataset))
        if processes.rank() > 0:
            follow(config, dataset)
            return None
        source = original or NoOriginal()
        saved, changes = None, list[str]()
        is_old = run_dir is not None and run_dir.exists()
        if run_dir is not None and is_old:
            refuse_foreign(run_dir)
            refuse_links(run_dir, "Remove it; run_dir itself may be a link")
            stack.enter_context(locked(run_dir))
            saved = reopen(run_dir, config.total_steps, command)
            if saved is not None:
                changes = refuse_drift(saved, config.as_dict(), config.allow_change, run_dir)
                if saved.step >= config.total_steps:
                    finish_again(run_dir, config.total_steps, saved, command, gif=config.gif)
                    source.compare(config.seed, run_dir)
                    return result(run_dir, config)
                checkpoint.set_aside(run_dir, [step for step in checkpoint.steps(run_dir) if step > saved.step])
        processes.from_first((run_dir and run_dir.absolute(), saved and saved.step))
        with kept() as notes:
            game = build_game(config, saved, dataset)
        game.changes += changes
        source.refuse_other_data(game.dataset.fingerprint, config.allow_change)
        evaluation = evaluation_of(config, game)
        stop = stack.enter_context(stop_on_signal())
        if run_dir is None or not is_old:
            run_dir = create(name) if run_dir is None else make(run_dir)
            stack.enter_context(locked(run_dir))
            if checkpoint.steps(run_dir):
                raise OutputError("another process has trained in it meanwhile", str(run_dir), "Repeat the command")
        stack.callback(game.batches.close)
        return Session(
            config, run_dir, game, saved, command,
            evaluation=evaluation, original=source, report=report, stop=stop, notes=notes,
        ).run()  # fmt: skip


def follow(config: TrainConfig, dataset: Any = None) -> None:
    """Take part in the updates as a rank above 0. ``dataset``: the training set, if it is loaded already.

    Raises:
        PreemptedError: stopped early; rank 0 saves the state.
    """
    begin = processes.from_first(None)
    if begin is None:  # the run is complete
        return
    run_dir, step = begin
    try:
        saved = checkpoint.load(run_dir, step) if step is not None else None
    except (CheckpointError, NotFoundError) as error:
        raise CheckpointError(error.what, error.where, "Every process must be able to read the run directory") from error
    with failures_in(run_dir), stop_on_signal() as stop:
        game = build_game(config, saved, dataset)
        try:
            train(game, total_steps=config.total_steps, seed=config.seed, after_step=lambda logs: not processes.agree(stop))
        finally:
            game.batches.close()
    if game.progress.step < config.total_steps:
        raise PreemptedError(f"stopped by {stop[0]}", "another process", "Rank 0 saves the run")


def evaluation_of(config: TrainConfig, game: Game) -> TrainingEvaluation | None:
    """The evaluation during training, or None without ``eval_every``."""
    if config.eval_every is None:
        return None
    from gan_cli.training.evaluation import TrainingEvaluation

    return TrainingEvaluation(
        game, config.dataset, num_samples=config.num_samples, metrics=config.metrics, features=config.features,
        optimized_metric=config.optimized_metric,
    )  # fmt: skip


def result(run_dir: Path, config: TrainConfig) -> float | None:
    """The value of ``optimized_metric``."""
    return final_metric(run_dir, config.optimized_metric, evaluated=config.eval_every is not None)


class Session:
    """One run, from its first step or a checkpoint to its end or a reason to stop.

    Args:
        saved: checkpoint that ``game`` was built from. evaluation: None without ``eval_every``.
        stop: list of reasons to stop after the present step. notes: records for the top of train.log.
        clock: monotonic clock in seconds.
        Others: see :func:`run`.
    """

    writer: Writer  # created by begin(), once the directory may be written
    health: Health
    overfitting: Overfitting

    def __init__(
        self,
        config: TrainConfig,
        run_dir: Path,
        game: Game,
        saved: Checkpoint | None,
        command: Command,
        *,
        evaluation: TrainingEvaluation | None = None,
        original: Original | NoOriginal | None = None,
        report: Report | None = None,
        stop: list[str] | None = None,
        notes: Sequence[logging.LogRecord] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.config, self.run_dir, self.game, self.saved, self.command = config, run_dir, game, saved, command
        self.evaluation, self.original, self.report = evaluation, original or NoOriginal(), report
        self.stop, self.notes = [] if stop is None else stop, notes
        self.clock, self.started = clock, clock()
        self.progress, self.plan = game.progress, Plan.of(config.as_dict())
        self.guard = Guard(run_dir, against_divergence(config.loss, config.optimizer))
        self.status = status.Status(run_dir, config.total_steps, game.progress, command.anew())
        self.best = checkpoint.best_of(saved, run_dir)  # best evaluation so far, the content of best.json
        self.superseded: set[int] = set()  # steps of checkpoints to delete when the next one is saved

    def run(self) -> float | None:
        """Train to the end; return the value of ``optimized_metric``. ``status.json`` and ``train.log`` record the end."""
        config, game = self.config, self.game
        if self.evaluation is not None:
            self.evaluation.begin(self.run_dir, self.best)
        with logged_to(self.run_dir / "train.log", self.notes), self.status.kept(), failures_in(self.run_dir):
            self.original.announce(config.seed, game.machine.facts(), game.dataset.fingerprint)
            self.begin()
            try:
                train(game, total_steps=config.total_steps, seed=config.seed, after_step=self.after_step)
                if self.progress.step >= config.total_steps:
                    self.writer.ended(success=True)
            except Exception:
                with contextlib.suppress(OSError):
                    self.writer.ended(success=False)
                raise
            finally:
                self.writer.close()
            value = self.finish()
            self.original.compare(config.seed, self.run_dir)
            return value

    def begin(self) -> None:
        """Restore the directory to the state of the checkpoint, and log what starts."""
        config, saved, run_dir, game = self.config, self.saved, self.run_dir, self.game
        (run_dir / "samples" / "training.gif").unlink(missing_ok=True)  # made by a shorter session
        text = to_yaml(config.as_dict())
        write_file(run_dir / "config.yaml", text)
        announce(game, saved, model=config.model, dataset=config.dataset, deviations=config.deviations)
        log.info("run directory: %s", run_dir)
        log.info("Ctrl-C stops the run and saves it. To continue it: %s", self.command.resume(run_dir))
        before = Plan.of(saved.info["config"]) if saved is not None else None
        checkpoint.mark_best(run_dir, self.best)
        if saved is not None and before is not None and not before.keeps(saved.step):
            self.superseded.add(saved.step)
        self.superseded |= {step for step in self.spared() if not self.plan.keeps(step)}
        if self.evaluation is not None:
            self.best = self.evaluation.best  # None if another metric decides now
        options = Options(
            config.total_steps, config.log_every, text, hparams.values(config.as_dict(), self.command.resume(run_dir)),
            evaluated=self.evaluation.values if self.evaluation is not None else (),
            protocol_id=self.evaluation.rule if self.evaluation is not None else None, epoch_images=len(game.dataset),
            print_rows=config.print_rows, has_probabilities=isinstance(game.task.objective.adversarial, Logistic),
        )  # fmt: skip
        self.writer = Writer.open(
            run_dir, game.progress, options, guard=self.guard, waited=lambda: game.batches.waited,
            before=(before.log_every, before.sample_every) if before is not None else None,
        )  # fmt: skip
        self.health = Health(config.total_steps)
        for row in self.writer.earlier:
            self.health.update(row)
        device = game.machine.device
        self.overfitting = Overfitting(game.task, game.dataset, config.dataset, seed=config.seed, device=device)
        if saved is not None and before is not None:
            self.writer.load_state(saved.tensors.get("log_sums", {}), device)
            if before.has_picture(saved.step):
                self.writer.picture(self.draw())  # removed from TensorBoard with the later steps

    def after_step(self, logs: dict[str, Tensor]) -> bool:
        """Do what is due after a step; return whether to continue.

        The order matters. Measurement and evaluation come before the row, which contains their values. A diverged run ends
        after its row, which shows the values, and before a checkpoint of them. The processes agree on a signal after the row;
        a later signal takes effect after the next step. The checkpoint comes last and contains the state of all this.
        """
        self.writer.add(logs)
        step, max_hours = self.progress.step, self.config.max_hours
        due = self.plan.due(step)
        if max_hours is not None and self.clock() - self.started > max_hours * 3600:
            self.stop.append(f"max_hours={max_hours:g}")
        # Reading the counters of skipped updates synchronises with the device.
        skipping = (due.reads_device or bool(self.stop)) and self.is_skipping()
        if due.picture:
            self.writer.picture(self.draw())
        if due.measurement:
            self.writer.measure(self.measure())
        is_best = due.evaluation and not skipping and self.evaluate()
        if due.row:
            self.write_row(due)
        if skipping or self.writer.skipping:
            self.guard.refuse_skipped_updates(self.game, self.config.max_skipped_updates)
        ending = processes.agree(self.stop) or due.last
        if skipping and due.checkpoint and not ending:
            log.warning("warning: no checkpoint of step %d, updates are being skipped", step)
        elif due.checkpoint or is_best or ending:
            self.save()
        return not ending

    def is_skipping(self) -> bool:
        """Whether the last update of a player was skipped."""
        return bool(self.game.discriminator.skipped or self.game.generator.skipped)

    @torch.no_grad()
    def draw(self) -> Tensor:
        """The sample grid of the averaged generator, uint8 (C, H, W)."""
        seed_everything(self.config.seed, "picture")  # the next step sets its own seed
        picture: Tensor = self.game.task.picture(self.game.ema.average, self.game.examples)
        return picture

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """Scalars measured on the sample grid, and D's overfitting."""
        scalars: dict[str, float] = self.game.task.measure(self.game.ema.average, self.game.examples)
        return scalars | self.overfitting.measure()

    def evaluate(self) -> bool:
        """Evaluate and log the values; return whether they are the best so far. A failed evaluation is only a warning."""
        assert self.evaluation is not None
        step = self.progress.step
        try:
            values, is_best = self.evaluation.measure()
        except DivergedError as error:
            raise self.guard.diverged(f"{error.what} at step {step}") from error
        except (GanError, RuntimeError, MemoryError) as error:  # a failed evaluation must not abort training
            log.warning("warning: the evaluation of step %d failed, training continues: %s", step, error)
            return False
        self.best = self.evaluation.best
        scalars = {f"metric/{key}": value for key, value in values.items()}
        self.writer.measure(scalars)
        self.report_value(scalars)
        shown = ", ".join(f"{key} {number(value)}" for key, value in values.items() if not key.endswith("_std"))
        log.info("evaluation of step %d: %s%s", step, shown, " (best so far)" if is_best else "")
        return is_best

    def write_row(self, due: Due) -> None:
        """Write a row of metrics, then use it: health, pruning, and the check that ``optimized_metric`` is logged."""
        row = self.writer.row(keep_sums=not self.plan.ends_row(self.progress.step))
        for line in self.health.update(row):
            log.warning(line)
        key = self.config.optimized_metric
        if str(key).removeprefix("metric/") in VALUES:  # reported by evaluate()
            return
        self.report_value(row)
        is_logged_by_now = self.progress.step >= self.config.sample_every or not str(key).startswith("metric/")
        if is_logged_by_now and not due.last:  # finish() checks the last row
            refuse_unknown_metric(key, self.writer.seen)

    def report_value(self, values: Mapping[str, float]) -> None:
        """Report ``optimized_metric`` to the search, which may prune the run."""
        key = self.config.optimized_metric
        if self.report is None or key is None or key not in values or self.progress.step >= self.config.total_steps:
            return
        if self.report(self.progress.step, values[key]):
            self.stop.insert(0, PRUNED)  # first reason: a signal would make the run resumable

    def save(self) -> None:
        """Save a checkpoint of this step, and delete those that it supersedes."""
        step = self.progress.step
        self.writer.sync()
        tensors, info = snapshot(self.game)
        tensors["log_sums"] = self.writer.state()
        tensors = {group: values for group, values in tensors.items() if values}
        for group, values in tensors.items():
            self.guard.refuse_non_finite(values, step, group)
        info["config"] = self.config.as_dict()
        info["tensors"] = {group: sorted(values) for group, values in tensors.items()}
        info["best"] = self.best
        checkpoint.save(self.run_dir, step, tensors, info)
        checkpoint.mark_best(self.run_dir, self.best)
        checkpoint.rotate(self.run_dir, step, self.config.keep_checkpoints, self.superseded, self.spared())
        if not self.plan.keeps(step):
            self.superseded.add(step)
        self.status.write("running")

    def spared(self) -> set[int]:
        """Steps of the checkpoints that are never deleted."""
        return {*self.config.milestones, self.best["step"] if self.best else 0}

    def finish(self) -> float | None:
        """Log where the results are; return the value of ``optimized_metric``.

        Raises:
            PreemptedError, PrunedError: the run stopped before its last step.
        """
        config, step, resume = self.config, self.progress.step, self.command.resume(self.run_dir)
        if step < config.total_steps:
            kind, verb = (PrunedError, "pruned") if self.stop[0] == PRUNED else (PreemptedError, "stopped")
            what = f"{verb} at step {step} of {config.total_steps} by {self.stop[0]}, state saved"
            raise kind(what, str(self.run_dir), f"Continue with: {resume}")
        if config.gif:
            film(self.run_dir)
        trusted = {needs_data: is_trusted(config.as_dict(), dataset=needs_data) for needs_data in (False, True)}
        farewell(self.run_dir, step, self.game.dataset, self.clock() - self.started, is_trusted=trusted.__getitem__)
        return result(self.run_dir, config)
