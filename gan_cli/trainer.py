"""One training run from config to finished directory: build, resume, watch, save."""

from __future__ import annotations

import logging
import os
import platform
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

import gan_cli
from gan_cli import checkpoint
from gan_cli.checkpoint import Checkpoint
from gan_cli.cli import override, program
from gan_cli.config import TrainConfig, differences, optimizer_node, to_yaml
from gan_cli.data.batches import Batches
from gan_cli.data.dataset import ImageDataset
from gan_cli.ema import EMA
from gan_cli.engine import Player, Progress, train
from gan_cli.errors import ConfigError, DataError, DiskError, DivergedError, MemoryFullError, OutputError, PreemptedError
from gan_cli.networks import apply, takes_label
from gan_cli.randomness import seed_everything
from gan_cli.runs import PER_ROW, build, choose_device, create, has_convolutions, is_trusted, load_state, locked, to_device
from gan_cli.writer import Writer, clock

log = logging.getLogger("gan_cli")
GRID = 64  # images in a picture
SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass
class Game:
    """Everything a run trains with, built from its config."""

    task: Any
    generator: Player
    discriminator: Player
    ema: EMA
    batches: Batches
    dataset: ImageDataset
    progress: Progress
    device: torch.device
    threads: int
    precision: str
    precision_reason: str


def train_run(config: TrainConfig, run_dir: Path | None, name: str, command: Callable[[Path], str]) -> float | None:
    """Train, or continue, one run; return the value of ``optimized_metric``.

    Args:
        run_dir: its directory; None makes a new one called after ``name``.
        command: the command line that continues the run in a directory.

    Raises:
        GanError: anything foreseeable. PreemptedError: stopped early with its state saved.
    """
    with ExitStack() as stack:
        saved = None
        if run_dir is not None and run_dir.exists():
            refuse_foreign(run_dir)
            stack.enter_context(locked(run_dir))
            checkpoint.clean(run_dir)
            saved = checkpoint.load_newest(run_dir, set_aside=True)
            if saved is not None:
                refuse_drift(saved, config, run_dir)
                if saved.step >= config.total_steps:
                    log.info("%s is finished: %d of %d steps", run_dir, saved.step, config.total_steps)
                    return final_metric(run_dir, config.optimized_metric)
            game = build_game(config, saved)
        else:
            game = build_game(config, saved)
            run_dir = create(name) if run_dir is None else make(run_dir)
            stack.enter_context(locked(run_dir))
            if checkpoint.steps(run_dir):
                raise OutputError("another process has trained in it meanwhile", str(run_dir), "Repeat the command")
        stack.callback(game.batches.close)
        stack.enter_context(logged_to(run_dir / "train.log"))
        try:
            return play(config, game, saved, run_dir, command(run_dir))
        except OSError as error:
            todo = "Free some space; the checkpoints are untouched and the same command continues"
            raise DiskError(f"cannot write: {error.strerror or error}", str(run_dir), todo) from error
        except RuntimeError as error:
            if not isinstance(error, torch.OutOfMemoryError) and "DefaultCPUAllocator" not in str(error):
                raise
            todo = "Lower batch_size or the width of the networks"
            raise MemoryFullError("the networks and a batch do not fit in memory", str(game.device), todo) from error


def play(config: TrainConfig, game: Game, saved: Checkpoint | None, run_dir: Path, command: str) -> float | None:
    """Run the loop in ``run_dir`` with everything that happens beside it."""
    started = time.monotonic()
    progress = game.progress
    announce(config, game, saved, run_dir, command)
    (run_dir / "config.yaml").write_text(to_yaml(config.as_dict()), encoding="utf-8")
    then = saved.info["config"] if saved is not None else None
    before = (then["log_every"], then["sample_every"]) if then is not None else None
    writer = Writer(
        run_dir, to_yaml(config.as_dict()), progress,
        total_steps=config.total_steps, log_every=config.log_every, before=before,
    )  # fmt: skip
    latents = game.task.latents(config.seed, 0, GRID).to(game.device)
    labels = game.task.labels(0, GRID, PER_ROW)
    labels = None if labels is None else labels.to(game.device)

    def draw() -> None:
        with torch.no_grad():
            writer.picture(apply(game.ema.average, latents, labels), per_row=PER_ROW)

    def save() -> None:
        writer.sync()
        tensors, info = snapshot(config, game, writer)
        refuse_non_finite(tensors, run_dir, progress.step)
        checkpoint.save(run_dir, progress.step, tensors, info)
        checkpoint.rotate(run_dir, progress.step, config.keep_checkpoints, config.save_every)

    if saved is not None:
        writer.load_state(saved.info["log_counts"], saved.tensors.get("log_sums", {}), game.device)
        if saved.step % saved.info["config"]["sample_every"] == 0:
            draw()  # TensorBoard dropped it with what came after

    with stop_on_signal() as stop:

        def after_step(logs: dict[str, Tensor]) -> bool:
            writer.add(logs)
            step, last = progress.step, progress.step >= config.total_steps
            if step % config.log_every == 0 or last:
                row = writer.row(keep_sums=step % config.log_every != 0)
                refuse_unknown_metric(config.optimized_metric, row)
            if step % config.sample_every == 0 or last:
                draw()
            if config.max_hours is not None and time.monotonic() - started > config.max_hours * 3600:
                stop.append(f"max_hours={config.max_hours:g}")
            if step % config.save_every == 0 or last or stop:
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
    farewell(config, run_dir, time.monotonic() - started)
    return final_metric(run_dir, config.optimized_metric)


def build_game(config: TrainConfig, saved: Checkpoint | None) -> Game:
    """Networks, optimizers, data and their state: that of ``saved``, or a new one that depends on the seed only."""
    device = choose_device(config.device)
    threads = config.threads or (saved and int(saved.info["threads"])) or default_threads()
    torch.set_num_threads(threads)
    networks = {}
    for side in ("generator", "discriminator"):
        seed_everything(config.seed, "init", side)
        networks[side] = to_device(build(config.model[side], f"model.{side}"), device)
    objective = build(config.loss, "loss")
    refuse_batch_norm(objective, networks["discriminator"])
    task = build(config.model["task"], "model.task", **networks, objective=objective).to(device)
    precision, reason = choose_precision(config.precision, device, task, saved)
    ema = EMA(task.generator, **config.ema)
    schedule = build(config.schedule, "schedule")
    players = {
        side: Player(
            network=networks[side],
            optimizer=build(optimizer_node(config.optimizer, side), "optimizer", params=networks[side].parameters()),
            loss=getattr(task, f"{side}_loss"),
            schedule=schedule,
            constraint=objective.constraint if side == "discriminator" else None,
            precision=torch.bfloat16 if precision == "bf16" else torch.float32,
        )
        for side in networks
    }
    dataset = build(config.dataset, "dataset")
    if "label" in task.batch_keys and not all(takes_label(network) for network in networks.values()):
        raise ConfigError("the networks take no label", "model.task.num_classes",
                          "Set it to null, or choose a class-conditional model")  # fmt: skip
    if "label" in task.batch_keys and dataset.labels is None:
        raise ConfigError("the model needs labels and the data set has none", "model.task.num_classes and dataset",
                          "Choose a labelled data set or an unconditional model")  # fmt: skip
    if saved is not None and saved.info["data"] != dataset.fingerprint:
        raise DataError("the data is not that which the run was trained on", f"dataset, {saved.info['data'][:12]} -> "
                        f"{dataset.fingerprint[:12]}", "Bring it back, or start another run_dir")  # fmt: skip
    refuse_wrong_shapes(task, dataset, device)
    progress = Progress()
    if saved is not None:
        progress = Progress(saved.step, int(saved.info["images"]))
        groups = saved.tensors
        nested = {f"{group}.{k}": v for group in ("generator", "discriminator") for k, v in groups[group].items()}
        load_state(task, {**nested, **groups.get("task", {})}, "checkpoint")
        load_state(ema.average, groups["generator_ema"], "checkpoint")
        for side, player in players.items():
            load_optimizer(player, groups.get(f"optimizer_{side}", {}), saved.info["optimizer_scalars"][side])
    batches = Batches(
        dataset, batch_size=config.batch_size, seed=config.seed, device=device, position=progress.images,
        workers=config.workers,
    )  # fmt: skip
    return Game(
        task,
        players["generator"],
        players["discriminator"],
        ema,
        batches,
        dataset,
        progress,
        device,
        threads,
        precision,
        reason,
    )


def snapshot(config: TrainConfig, game: Game, writer: Writer) -> tuple[checkpoint.TensorGroups, dict[str, Any]]:
    """Everything that decides how the run goes on, as tensors and plain data."""
    groups: checkpoint.TensorGroups = {"generator": {}, "discriminator": {}, "task": {}}
    for key, tensor in game.task.state_dict().items():
        side, _, rest = key.partition(".")
        if side in ("generator", "discriminator"):
            groups[side][rest] = tensor
        else:
            groups["task"][key] = tensor
    groups["generator_ema"] = game.ema.average.state_dict()
    scalars = {}
    for side, player in (("generator", game.generator), ("discriminator", game.discriminator)):
        groups[f"optimizer_{side}"], scalars[side] = optimizer_state(player)
    groups["log_sums"] = dict(writer.sums)
    info = {
        "images": game.progress.images,
        "log_counts": dict(writer.counts),
        "optimizer_scalars": scalars,
        "threads": game.threads,
        "precision": game.precision,
        "device": str(game.device),
        "data": game.dataset.fingerprint,
        "class_names": list(game.dataset.class_names),
        "versions": {"gan_cli": gan_cli.__version__, "torch": torch.__version__, "python": platform.python_version()},
        "config": config.as_dict(),
    }
    return {k: v for k, v in groups.items() if v}, info


def optimizer_state(player: Player) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The optimizer's tensors and its other values, both called ``<parameter>.<what>``."""
    values = {
        f"{name}.{key}": value
        for name, parameter in player.network.named_parameters()
        for key, value in player.optimizer.state.get(parameter, {}).items()
    }
    tensors = {k: v for k, v in values.items() if isinstance(v, Tensor)}
    return tensors, {k: v for k, v in values.items() if k not in tensors}


def load_optimizer(player: Player, tensors: dict[str, Tensor], scalars: dict[str, Any]) -> None:
    """Undo :func:`optimizer_state`."""
    names = {name: k for k, (name, _) in enumerate(player.network.named_parameters())}
    state: dict[int, dict[str, Any]] = {}
    for full, value in {**tensors, **scalars}.items():
        name, _, key = full.rpartition(".")
        state.setdefault(names[name], {})[key] = value
    player.optimizer.load_state_dict({**player.optimizer.state_dict(), "state": state})
    for parameter, entry in player.optimizer.state.items():
        for key, value in entry.items():  # fused kernels walk the memory: moments must lie as the weights do
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                entry[key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def default_threads() -> int:
    """OMP_NUM_THREADS, or the cores this process may use. Not torch's present count, which an earlier job may have set."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return int(wanted) if wanted.isdigit() and int(wanted) > 0 else cores


def choose_precision(precision: str, device: torch.device, task: nn.Module, saved: Checkpoint | None) -> tuple[str, str]:
    """``fp32`` or ``bf16``, and why. ``auto`` keeps what the run began with, else takes bf16 where it pays."""
    if precision != "auto":
        return precision, "as set"
    if saved is not None and saved.info["device"] == str(device):
        return str(saved.info["precision"]), "as the run began"
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        checks = (getattr(torch.cpu, n, None) for n in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
        native = device.type == "cpu" and any(check() for check in checks if check is not None)
    if not native:
        return "fp32", f"the {device.type} has no bf16 arithmetic"
    if not has_convolutions(task):
        return "fp32", "the networks have no convolutions to speed up"
    return "bf16", "faster for convolutions here; precision=fp32 forces the other"


def announce(config: TrainConfig, game: Game, saved: Checkpoint | None, run_dir: Path, command: str) -> None:
    """What is trained, where, and the command that continues it."""
    for network in ("generator", "discriminator"):
        count = sum(p.numel() for p in getattr(game.task, network).parameters())
        log.info("%s: %s, %s parameters", network, config.model[network]["_target_"], f"{count:,}")
    log.info("data: %s images, %s", f"{len(game.dataset):,}", config.dataset["_target_"])
    log.info("device: %s, %d threads, %s (%s)", game.device, game.threads, game.precision, game.precision_reason)
    if saved is not None:
        log.info("continues from step %d", saved.step)
        if saved.info["threads"] != game.threads or saved.info["device"] != str(game.device):
            log.info("note: other threads or device than before, so not bit-identical to a run never stopped")
    log.info("run directory: %s", run_dir)
    log.info("to continue it, or to stop with Ctrl-C and go on later: %s", command)


def farewell(config: TrainConfig, run_dir: Path, seconds: float) -> None:
    """Where everything lies and what to type next."""
    last = checkpoint.name(config.total_steps)
    trust = [] if is_trusted(config.as_dict()) else ["trust=true"]
    sample = shlex.join([program("gan-sample"), override("run_dir", run_dir), "num_samples=64", *trust])
    log.info("done in %s", clock(seconds))
    log.info("pictures:    %s", run_dir / "samples" / f"{last}.png")
    log.info(
        "curves:      %s, or: %s --logdir %s", run_dir / "metrics.jsonl", program("tensorboard"), shlex.quote(str(run_dir))
    )
    log.info("checkpoint:  %s", run_dir / "checkpoints" / last)
    log.info("next:        %s", sample)


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


@torch.no_grad()
def refuse_wrong_shapes(task: Any, dataset: ImageDataset, device: torch.device) -> None:
    """Try both networks once on two samples, before anything is made: a mistake in them is answered here."""
    wanted = (2, dataset.channels, dataset.image_size, dataset.image_size)
    labels = task.labels(0, 2, 1)
    labels = None if labels is None else labels.to(device)
    inputs = task.latents(0, 0, 2).to(device)
    task.eval()
    for side, network in (("generator", task.generator), ("discriminator", task.discriminator)):
        try:
            result = apply(network, inputs, labels)
        except Exception as error:  # a network of the user's own may raise anything
            reason = f"{type(error).__name__}: {error}".split("\n")[0].rstrip(".")
            raise ConfigError(f"the {side} fails on {tuple(inputs.shape)}: {reason}", f"model.{side}", "Correct it") from error
        if side == "generator" and result.shape != wanted:
            raise ConfigError(f"the generator makes {tuple(result.shape)}, the data set has {wanted}", "model.generator",
                              "Make it take image_size and channels from ${dataset...}")  # fmt: skip
        if not result.is_floating_point() or result.shape[:1] != (2,):
            raise ConfigError(f"the {side} gives {result.dtype} {tuple(result.shape)} for two samples", f"model.{side}",
                              "Make it return floats, samples along the first axis")  # fmt: skip
        inputs = result
    task.train()


def refuse_batch_norm(objective: Any, discriminator: nn.Module) -> None:
    """A penalty per sample is undefined where the critic mixes samples (Gulrajani et al. 2017, section 4)."""
    mixing = [n for n, m in discriminator.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    if getattr(objective.penalty, "per_sample", False) and mixing:
        raise ConfigError(f"the penalty is defined sample by sample, but {mixing[0]} normalises over the batch",
                          "loss.penalty and model.discriminator", "Use layer norm or none in the discriminator")  # fmt: skip


def refuse_non_finite(tensors: checkpoint.TensorGroups, run_dir: Path, step: int) -> None:
    """Never save what is already lost."""
    for group, values in tensors.items():
        finite = torch.stack([torch.isfinite(tensor).all() for tensor in values.values()]).tolist()
        for key, good in zip(values, finite, strict=True):
            if not good:
                raise DivergedError(f"training diverged: {group} {key} is not finite at step {step}", str(run_dir),
                                    "Lower optimizer.lr, or choose another loss; no checkpoint of it was saved")  # fmt: skip


def make(run_dir: Path) -> Path:
    """Make a directory the user named."""
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"the run directory cannot be made: {error.strerror}", str(run_dir), "Set run_dir=") from error
    return run_dir


def final_metric(run_dir: Path, key: str | None) -> float | None:
    """The last value of ``optimized_metric``.

    Raises:
        ConfigError: the run does not log it.
    """
    import json

    if key is None:
        return None
    row = json.loads((run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    refuse_unknown_metric(key, row)
    return float(row[key])


def refuse_unknown_metric(key: str | None, row: dict[str, Any]) -> None:
    """Say early that the run does not log what is to be optimised."""
    if key is not None and key not in row:
        raise ConfigError(f"the run logs no {key!r}", "optimized_metric", f"It logs: {', '.join(row)}")


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
    """A list that gets the name of the first SIGINT or SIGTERM. The second acts at once."""
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
