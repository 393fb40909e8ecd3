"""One training run from config to finished directory: build, resume, watch, save."""

from __future__ import annotations

import errno
import logging
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gan_cli import checkpoint
from gan_cli.checkpoint import Checkpoint
from gan_cli.cli import override, program
from gan_cli.config import TrainConfig, differences, to_yaml
from gan_cli.data.dataset import ImageDataset, TranslationDataset
from gan_cli.engine import train
from gan_cli.errors import ConfigError, DiskError, DivergedError, GanError, MemoryFullError, OutputError, PreemptedError
from gan_cli.game import Game, build_game, out_of_memory, snapshot
from gan_cli.health import Health, against_divergence
from gan_cli.images import write_film
from gan_cli.metrics.names import VALUES
from gan_cli.overfitting import Overfitting
from gan_cli.randomness import seed_everything
from gan_cli.results import number
from gan_cli.runs import create, is_trusted, locked
from gan_cli.status import Status
from gan_cli.writer import Writer, clock

if TYPE_CHECKING:
    from gan_cli.eval_training import TrainingEvaluation

log = logging.getLogger("gan_cli")
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG)
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)  # the last is what Slurm can be told to send before a time limit


def train_run(config: TrainConfig, run_dir: Path | None, name: str, command: Callable[[Path], str]) -> float | None:
    """Train, or continue, one run; return the value of ``optimized_metric``.

    Args:
        run_dir: its directory; None makes a new one called after ``name``.
        command: the command line that continues the run in a directory.

    Raises:
        GanError: anything foreseeable. PreemptedError: stopped early with its state saved.
    """
    with translated(config, run_dir):
        return _train_run(config, run_dir, name, command)


@contextmanager
def translated(config: TrainConfig, run_dir: Path | None) -> Iterator[None]:
    """Within this block a full disk and a full memory are errors of ours."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        todo = "Free some space; the checkpoints are untouched and the same command continues"
        raise DiskError(f"cannot write: {error.strerror}", str(error.filename or run_dir), todo) from error
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        todo = "Lower batch_size or the width of the networks"
        raise MemoryFullError("the networks and a batch do not fit in memory", config.device, todo) from error


def _train_run(config: TrainConfig, run_dir: Path | None, name: str, command: Callable[[Path], str]) -> float | None:
    with ExitStack() as stack:
        saved = None
        if run_dir is not None and run_dir.exists():
            refuse_foreign(run_dir)
            stack.enter_context(locked(run_dir))
            checkpoint.clean(run_dir)
            saved = checkpoint.load_newest(run_dir)
            if saved is not None:
                refuse_drift(saved, config, run_dir)
                if saved.step >= config.total_steps:
                    log.info("%s is finished: %d of %d steps", run_dir, saved.step, config.total_steps)
                    checkpoint.mark_best(run_dir, checkpoint.best_of(saved, run_dir))
                    film(config, run_dir)
                    return final_metric(run_dir, config)
                checkpoint.set_aside(run_dir, saved.step)
            game = build_game(config, saved)
            evaluation = evaluation_of(config, game)
        else:
            game = build_game(config, saved)
            evaluation = evaluation_of(config, game)
            run_dir = create(name) if run_dir is None else make(run_dir)
            stack.enter_context(locked(run_dir))
            if checkpoint.steps(run_dir):
                raise OutputError("another process has trained in it meanwhile", str(run_dir), "Repeat the command")
        stack.callback(game.batches.close)
        if evaluation is not None:
            evaluation.begin(run_dir, checkpoint.best_of(saved, run_dir))
        stack.enter_context(logged_to(run_dir / "train.log"))
        status = Status(run_dir, config.total_steps, game.progress)
        with status.kept(), translated(config, run_dir):
            return play(config, game, evaluation, saved, run_dir, command(run_dir), status)


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
    status: Status,
) -> float | None:
    """Run the loop in ``run_dir`` with everything that happens beside it."""
    started = time.monotonic()
    progress = game.progress
    (run_dir / "samples" / "training.gif").unlink(missing_ok=True)  # of an earlier, shorter session
    (run_dir / "config.yaml").write_text(to_yaml(config.as_dict()), encoding="utf-8")
    announce(config, game, saved, run_dir, command)
    then = saved.info["config"] if saved is not None else None
    before = (then["log_every"], then["sample_every"]) if then is not None else None
    superseded = {saved.step} if saved is not None and saved.step % saved.info["config"]["save_every"] else set()
    marked = checkpoint.best_of(saved, run_dir)
    checkpoint.mark_best(run_dir, marked)
    if marked is not None and marked["step"] % config.save_every:
        superseded.add(marked["step"])
    remedy = against_divergence(config.loss, config.optimizer)
    writer = Writer(
        run_dir, to_yaml(config.as_dict()), progress,
        total_steps=config.total_steps, log_every=config.log_every, before=before, remedy=remedy,
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
        tensors["log_sums"], info["log_counts"] = dict(writer.sums), dict(writer.counts)
        tensors = {group: values for group, values in tensors.items() if values}
        info["best"] = best = evaluation.best if evaluation is not None else marked
        refuse_non_finite(tensors, run_dir, progress.step, remedy)
        checkpoint.save(run_dir, progress.step, tensors, info)
        checkpoint.mark_best(run_dir, best)
        checkpoint.rotate(run_dir, progress.step, config.keep_checkpoints, superseded, None if best is None else best["step"])
        if progress.step % config.save_every:
            superseded.add(progress.step)
        status.write("running")

    def evaluate() -> bool:
        """Log what the evaluation finds; whether it is the best so far."""
        assert evaluation is not None
        try:
            values, better = evaluation.measure()
        except DivergedError:
            raise
        except (GanError, RuntimeError, MemoryError) as error:  # a night's training is worth more
            if not isinstance(error, GanError) and not out_of_memory(error):
                raise
            log.warning("warning: there is no evaluation of step %d, the training goes on: %s", progress.step, error)
            return False
        writer.measure({f"metric/{key}": value for key, value in values.items()})
        shown = ", ".join(f"{key} {number(value)}" for key, value in values.items() if not key.endswith("_std"))
        log.info("evaluation of step %d: %s%s", progress.step, shown, " (best so far)" if better else "")
        return better

    if saved is not None:
        writer.load_state(saved.info["log_counts"], saved.tensors.get("log_sums", {}), game.device)
        if saved.step % saved.info["config"]["sample_every"] == 0:
            draw()  # TensorBoard dropped it with what came after

    with stop_on_signal() as stop:

        def after_step(logs: dict[str, Tensor]) -> bool:
            writer.add(logs)
            step, last = progress.step, progress.step >= config.total_steps
            if step % config.sample_every == 0 or last:
                draw()
            if step % config.sample_every == 0:  # what is measured goes into the next row
                writer.measure(measure())
            better = config.eval_every is not None and step % config.eval_every == 0 and evaluate()
            if step % config.log_every == 0 or last:
                players = {"d": game.discriminator, "g": game.generator}
                writer.measure({f"{key}/grad_norm": player.gradient_norm() for key, player in players.items()})
                for line in health.update(writer.row(keep_sums=step % config.log_every != 0)):
                    log.warning(line)
                measured = str(config.optimized_metric).removeprefix("metric/")
                due = step >= config.sample_every or measured == config.optimized_metric
                if due and not last and measured not in VALUES:  # at the end when the run is saved
                    refuse_unknown_metric(config.optimized_metric, writer.seen)
            if config.max_hours is not None and time.monotonic() - started > config.max_hours * 3600:
                stop.append(f"max_hours={config.max_hours:g}")
            if step % config.save_every == 0 or last or stop or better:
                save()
            return not stop

        try:
            train(
                game.task, game.generator, game.discriminator, game.ema, game.batches, progress,
                total_steps=config.total_steps, seed=config.seed, after_step=after_step,
            )  # fmt: skip
        finally:
            writer.close()
    if progress.step < config.total_steps:
        error = PreemptedError(
            f"stopped at step {progress.step} of {config.total_steps} by {stop[0]}, state saved", str(run_dir),
            f"Continue with: {command}",
        )  # fmt: skip
        error.by_signal = not stop[0].startswith("max_hours")
        raise error
    film(config, run_dir)
    farewell(config, game, run_dir, time.monotonic() - started)
    return final_metric(run_dir, config)


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
    log.info("data: %s, %s", describe(game.dataset), config.dataset["_target_"])
    log.info("device: %s, %d threads, %s (%s)", game.device, game.threads, game.precision, game.precision_reason)
    if saved is not None:
        log.info("continues from step %d", saved.step)
        if saved.info["threads"] != game.threads or saved.info["device"] != str(game.device):
            log.info("note: other threads or device than before, so not bit-identical to a run never stopped")
    for deviation in config.deviations:
        log.info("the recipe departs from its paper: %s", deviation)
    log.info("run directory: %s", run_dir)
    log.info("to continue it, or to stop with Ctrl-C and go on later: %s", command)


def describe(dataset: ImageDataset | TranslationDataset) -> str:
    """How many samples there are, in words."""
    if not isinstance(dataset, TranslationDataset):
        return f"{len(dataset):,} {'images' if len(dataset.shape) == 3 else 'points'}"
    counts = " and ".join(f"{len(part):,}" for _, part in dataset.streams)
    return f"{counts} {'pairs' if dataset.paired else 'images'}"


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
    if theirs and not ((run_dir / ".lock").exists() and (run_dir / "config.yaml").exists()) and not checkpoint.steps(run_dir):
        raise OutputError(f"this directory holds other things ({sorted(theirs)[0]})", str(run_dir), "Choose another run_dir=")


def refuse_drift(saved: Checkpoint, config: TrainConfig, run_dir: Path) -> None:
    """Refuse to continue a run under a config that would have made another run."""
    changed = differences(saved.info["config"], config.as_dict())
    if changed:
        shown = "; ".join(changed[:8]) + (f"; and {len(changed) - 8} more" if len(changed) > 8 else "")
        todo = "Repeat the command it was started with, or choose another run_dir="
        if any(line.startswith("schedule.total_steps:") for line in changed):
            kept = saved.info["config"]["schedule"].get("total_steps", saved.info["config"]["total_steps"])
            todo = f"Its schedule depends on total_steps: set schedule.total_steps={kept} too, or choose another run_dir="
        raise ConfigError(f"the run was started with another config: {shown}", str(run_dir), todo)


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
        raise OutputError(f"the run directory cannot be made: {error.strerror}", str(run_dir), "Set run_dir=") from error
    return run_dir


def final_metric(run_dir: Path, config: TrainConfig) -> float | None:
    """What a sweeper gets: the last value of ``optimized_metric``; with ``eval_every`` that of the best checkpoint.

    Raises:
        ConfigError: the run does not log it.
    """
    import json

    key, best = config.optimized_metric, checkpoint.read_best(run_dir)
    if config.eval_every is not None and best is not None and key in (None, f"metric/{best['metric']}"):
        return float(best["value"])
    if key is None:
        return None
    if config.eval_every is not None and key.removeprefix("metric/") in VALUES:
        return None  # no evaluation came off
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    refuse_unknown_metric(key, {k for row in rows for k in row})
    return float(next(row[key] for row in reversed(rows) if key in row))


def refuse_unknown_metric(key: str | None, logged: Iterable[str]) -> None:
    """Say early that the run does not log what is to be optimised."""
    if key is not None and key not in logged:
        raise ConfigError(f"the run logs no {key!r}", "optimized_metric", f"It logs: {', '.join(sorted(logged))}")


@contextmanager
def logged_to(path: Path) -> Iterator[None]:
    """Send the log to a file as well."""
    handler = logging.FileHandler(path, encoding="utf-8")
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
        handler.close()


@contextmanager
def stop_on_signal() -> Iterator[list[str]]:
    """A list that gets the name of the first SIGINT, SIGTERM or SIGUSR1. The second acts at once."""
    received: list[str] = []
    before = {}
    if threading.current_thread() is not threading.main_thread():  # Python handles signals in the main thread only
        yield received
        return

    def note(number: int, frame: FrameType | None) -> None:
        received.append(signal.Signals(number).name)
        for each in SIGNALS:
            signal.signal(each, signal.SIG_DFL)

    for each in SIGNALS:
        before[each] = signal.signal(each, note)
    try:
        yield received
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
