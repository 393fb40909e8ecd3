"""Everything a run trains with: built from its config, taken apart for a checkpoint, put together again from one."""

from __future__ import annotations

import copy
import logging
import os
import platform
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import gan_cli
from gan_cli import distributed, torchrun
from gan_cli.checkpoint import Checkpoint, TensorGroups
from gan_cli.compiling import choose_compile, compile_game
from gan_cli.config import Node, TrainConfig, optimizer_node
from gan_cli.data.batches import Batches
from gan_cli.data.dataset import ImageDataset, TranslationDataset
from gan_cli.ema import EMA
from gan_cli.engine import Player, Progress
from gan_cli.errors import CheckpointError, ConfigError, DataError, of_system
from gan_cli.networks import takes_label
from gan_cli.randomness import seed_everything
from gan_cli.runs import build, choose_device, has_convolutions, load_state, to_device

log = logging.getLogger("gan_cli")
# Of the plain data of a checkpoint, what a run cannot go on without.
NEEDED: dict[str, type] = {
    "images": int,
    "skipped.generator": int,
    "skipped.discriminator": int,
    "optimizer_scalars.generator": dict,
    "optimizer_scalars.discriminator": dict,
    "machine.threads": int,
    "machine.device": str,
    "machine.precision": str,
    "machine.compiled": bool,
    "data": str,
    "changes": list,
    "tensors": dict,
    "config.total_steps": int,
    "config.log_every": int,
    "config.sample_every": int,
    "config.save_every": int,
    "config.model": dict,
    "config.optimizer": dict,
    "config.schedule": dict,
}
MOST_WORKERS = 8  # that are started without being asked for
NO_MOMENTS = ("lr", "betas", "eps", "weight_decay")  # settings of an optimizer that its state does not depend on


@dataclass
class Game:
    """Everything a run trains with, built from its config."""

    task: Any
    generator: Player
    discriminator: Player
    ema: EMA
    batches: Batches
    dataset: ImageDataset | TranslationDataset
    examples: dict[str, Tensor]  # what every picture is made from
    progress: Progress
    device: torch.device
    threads: int
    precision: str
    precision_reason: str
    compiled: bool
    compile_reason: str
    changes: list[str]  # made to the run since it began, in words
    processes: str | None = None  # that train it together, in words

    def machine(self) -> dict[str, str | int | bool]:
        """What the last bits of a result depend on besides the config."""
        return {
            "processes": distributed.world(),
            "threads": self.threads,
            "device": str(self.device),
            "precision": self.precision,
            "compiled": self.compiled,
            "torch": torch.__version__,
            "processor": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        }


def build_game(config: TrainConfig, saved: Checkpoint | None) -> Game:
    """Networks, optimizers, data and their state: that of ``saved``, or a new one that depends on the seed only."""
    device = choose_device(config.device)
    alike = saved is not None and saved.info["machine"].get("processes", 1) == distributed.world()
    threads = config.threads or (saved is not None and alike and int(saved.info["machine"]["threads"])) or default_threads()
    torch.set_num_threads(threads)
    networks = {}
    for side in ("generator", "discriminator"):
        seed_everything(config.seed, "init", side)
        networks[side] = to_device(build(config.model[side], f"model.{side}"), device)
    objective = build(config.loss, "loss")
    refuse_batch_norm(objective, networks["discriminator"])
    task = build(config.model["task"], "model.task", **networks, objective=objective).to(device)
    precision, reason = distributed.from_first(choose_precision(config.precision, device, task, saved))
    ema = EMA(task.generator, **config.ema)
    schedule = build(config.schedule, "schedule")
    players = {
        side: Player(
            name=side[0],
            network=networks[side],
            optimizer=build(optimizer_node(config.optimizer, side), "optimizer", params=networks[side].parameters()),
            loss=getattr(task, f"{side}_loss"),
            schedule=schedule,
            constraint=objective.constraint if side == "discriminator" else None,
            precision=torch.bfloat16 if precision == "bf16" else torch.float32,
        )
        for side in networks
    }
    with distributed.first_goes_first():  # it may download
        dataset = build(config.dataset, "dataset")
    refuse_wrong_data(task, dataset)
    refuse_wrong_shapes(task, dataset, device)
    progress, changes = Progress(), []
    if saved is not None:
        changes = [*saved.info.get("changes", []), *data_change(saved, dataset.fingerprint, config.allow_change)]
        progress = Progress(saved.step, int(saved.info["images"]))
        restore(task, ema, players, saved, config)
    for module in (task, ema.average):
        distributed.make_alike(module)
    processes = distributed.prepare(task, batch_size=config.batch_size, sync_batch_norm=config.sync_batch_norm)
    batches = Batches(
        dataset, batch_size=config.batch_size, seed=config.seed, device=device, position=progress.images,
        workers=min(threads, MOST_WORKERS) if config.workers is None else config.workers,
        rank=distributed.rank(), world=distributed.world(),
    )  # fmt: skip
    compiled, compile_reason = choose_compile(config.compile, device, saved)
    if compiled:
        movers = (players["discriminator"], players["generator"])
        sample = Batches(
            dataset, batch_size=config.batch_size, seed=config.seed, device=device,
            rank=distributed.rank(), world=distributed.world(),
        )  # fmt: skip
        try:
            compiled, problem = compile_game(
                task,
                movers if objective.first == "discriminator" else (movers[1], movers[0]),
                next(sample),
                forced=config.compile is True,
            )
        finally:
            sample.close()
        compile_reason = problem or compile_reason
    return Game(
        task=task,
        generator=players["generator"],
        discriminator=players["discriminator"],
        ema=ema,
        batches=batches,
        dataset=dataset,
        examples=task.examples(dataset, config.seed, device),
        progress=progress,
        device=device,
        threads=threads,
        precision=precision,
        precision_reason=reason,
        compiled=compiled,
        compile_reason=compile_reason,
        changes=changes,
        processes=processes,
    )


def snapshot(config: TrainConfig, game: Game) -> tuple[TensorGroups, dict[str, Any]]:
    """Everything that decides how the run goes on, as tensors and plain data."""
    groups: TensorGroups = {"generator": {}, "discriminator": {}, "task": {}}
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
    info = {
        "images": game.progress.images,
        "skipped": {"generator": int(game.generator.skipped), "discriminator": int(game.discriminator.skipped)},
        "optimizer_scalars": scalars,
        "machine": game.machine(),
        "data": game.dataset.fingerprint,
        "class_names": list(game.dataset.class_names),
        "changes": game.changes,
        "versions": {"gan_cli": gan_cli.__version__, "python": platform.python_version()},
        "config": config.as_dict(),
    }
    return groups, info


def restore(task: nn.Module, ema: EMA, players: dict[str, Player], saved: Checkpoint, config: TrainConfig) -> None:
    """Undo :func:`snapshot`.

    Raises:
        CheckpointError: it is not one of such networks and optimizers.
    """
    groups, where = saved.tensors, f"checkpoint of step {saved.step}"
    try:
        nested = {f"{group}.{k}": v for group in ("generator", "discriminator") for k, v in groups[group].items()}
        load_state(task, {**nested, **groups.get("task", {})}, where)
        load_state(ema.average, groups["generator_ema"], where)
        for side, player in players.items():
            player.skipped.fill_(int(saved.info["skipped"][side]))
            then, now = (optimizer_node(node, side) for node in (saved.info["config"]["optimizer"], config.optimizer))
            if has_same_moments(then, now):
                load_optimizer(player, groups.get(f"optimizer_{side}", {}), saved.info["optimizer_scalars"][side])
            else:
                log.info("note: the %s has another optimizer than before, which begins anew", side)
    except CheckpointError as error:
        if saved.info["config"]["model"] == config.model:
            raise
        todo = "Networks of another shape need another run_dir="
        raise CheckpointError(error.what, where, todo) from error
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        what = f"the checkpoint does not hold what the run needs: {type(error).__name__} {error}"
        raise CheckpointError(what, where, "Use the version that made it, or another run_dir=") from error


def refuse_incomplete(saved: Checkpoint) -> None:
    """Refuse a checkpoint whose plain data is not what :func:`snapshot` writes, such as that of an older version.

    Raises:
        CheckpointError: naming the value.
    """
    for key, kind in NEEDED.items():
        value: Any = saved.info
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        least = 1 if key.startswith("config.") else 0
        if type(value) is not kind or (isinstance(value, int) and not least <= value < 2**53):
            what = f"the checkpoint does not say {key} as this version does"
            raise CheckpointError(what, f"step {saved.step}", "Use the version that made it, or another run_dir=")
    there = {group: sorted(tensors) for group, tensors in saved.tensors.items()}
    best = saved.info.get("best", "missing")
    if saved.info["tensors"] != there or not (best is None or (isinstance(best, dict) and isinstance(best.get("step"), int))):
        what = "the checkpoint does not hold all that was saved"
        raise CheckpointError(what, f"step {saved.step}", "Use the version that made it, or another run_dir=")
    for group, tensors in saved.tensors.items():
        lost = [key for key, tensor in tensors.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
        if lost:
            what = f"the checkpoint holds a value that is not finite: {group} {lost[0]}"
            raise CheckpointError(what, f"step {saved.step}", "Use another step, or another run_dir=")


def has_same_moments(then: Node, now: Node) -> bool:
    """Whether the state of one optimizer is one of the other, by their configs."""
    a, b = ({key: value for key, value in node.items() if key not in NO_MOMENTS} for node in (then, now))
    return a == b


def data_change(saved: Checkpoint, fingerprint: str, allowed: list[str]) -> list[str]:
    """What to note if the data is not that of the run.

    Raises:
        DataError: it is not, and that was not allowed.
    """
    if saved.info["data"] == fingerprint:
        return []
    change = f"{saved.info['data'][:12]} -> {fingerprint[:12]}"
    if "data" not in allowed:
        todo = "Bring it back, start another run_dir, or go on with it all the same: allow_change=[data]"
        raise DataError("the data is not that which the run was trained on", f"dataset, {change}", todo)
    return [f"from step {saved.step} on data: {change}"]


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
            if isinstance(value, Tensor) and value.dim() > 0:
                if value.shape != parameter.shape:
                    raise ValueError(f"a moment of shape {tuple(value.shape)} for weights of {tuple(parameter.shape)}")
                entry[key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def default_threads() -> int:
    """OMP_NUM_THREADS, or the cores this process may use, shared with the others that torchrun started on this machine.

    Not torch's present count, which an earlier job may have set.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return int(wanted) if wanted.isdigit() and int(wanted) > 0 else max(1, cores // torchrun.local_world())


def choose_precision(precision: str, device: torch.device, task: nn.Module, saved: Checkpoint | None) -> tuple[str, str]:
    """``fp32`` or ``bf16``, and why. ``auto`` keeps what the run began with, else takes bf16 where it pays."""
    if precision != "auto":
        return precision, "as set"
    if saved is not None and saved.info["machine"]["device"] == str(device):
        return str(saved.info["machine"]["precision"]), "as the run began"
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


def batch_keys(dataset: Any) -> list[str]:
    """What a batch of the data set holds."""
    if isinstance(dataset, TranslationDataset):
        return [key for keys, _ in dataset.streams for key in keys]
    return ["image"] if dataset.labels is None else ["image", "label"]


def refuse_wrong_data(task: Any, dataset: Any) -> None:
    """The data set must give what the task needs, and a class-conditional task needs networks that take a label."""
    if "label" in task.batch_keys and not (takes_label(task.generator) and takes_label(task.discriminator)):
        todo = "Set it to null, or choose a class-conditional model"
        raise ConfigError("the networks take no label", "model.task.num_classes", todo)
    given = batch_keys(dataset)
    kinds = {"image": "single images", "source": "pairs of images", "a": "images of two domains"}
    for key in task.batch_keys:
        if key in given:
            continue
        if key == "label":
            todo = "Choose a labelled data set or an unconditional model"
            raise ConfigError("the model needs labels and the data set has none", "model.task.num_classes and dataset", todo)
        what = f"the model is for {kinds.get(task.batch_keys[0], key)}, the data set has {kinds.get(given[0], given[0])}"
        fitting = {"image": "digits, image_folder", "source": "digits_paired, paired, facades"}
        names = fitting.get(task.batch_keys[0], "digits_unpaired, unpaired, horse2zebra")
        raise ConfigError(what, "model and dataset", f"With this model use a dataset such as {names}")


def refuse_batch_norm(objective: Any, discriminator: nn.Module) -> None:
    """A penalty per sample is undefined where the critic mixes samples (Gulrajani et al. 2017, section 4)."""
    mixing = [n for n, m in discriminator.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    if getattr(objective.penalty, "per_sample", False) and mixing:
        raise ConfigError(f"the penalty is defined sample by sample, but {mixing[0]} normalises over the batch",
                          "loss.penalty and model.discriminator", "Use layer norm or none in the discriminator")  # fmt: skip


@torch.no_grad()
def refuse_wrong_shapes(task: Any, dataset: Any, device: torch.device) -> None:
    """Try the networks once on two samples, before anything is made: a mistake in them is answered here."""

    def attempt(where: str, network: nn.Module, *inputs: Tensor, wanted: tuple[int, ...] | None = None) -> Tensor:
        shape = tuple(inputs[0].shape)
        try:
            result: Tensor = network(*inputs)
        except Exception as error:  # a network of the user's own may raise anything
            if of_system(error, "") is not None:
                raise
            reason = f"{type(error).__name__}: {error}".split("\n")[0].rstrip(".")
            raise ConfigError(f"the {where} fails on {shape}: {reason}", f"model.{where}", "Correct it") from error
        if wanted is not None and result.shape != wanted:
            raise ConfigError(f"the {where} makes {tuple(result.shape)}, the data set has {wanted}", f"model.{where}",
                              "Make it take image_size and channels from ${dataset...}")  # fmt: skip
        if not result.is_floating_point() or result.shape[:1] != (2,):
            raise ConfigError(f"the {where} gives {result.dtype} {tuple(result.shape)} for two samples", f"model.{where}",
                              "Make it return floats, samples along the first axis")  # fmt: skip
        return result

    trial = copy.deepcopy(task).eval()  # the networks themselves stay as they were built
    trial.try_out(attempt, dataset, device)
