"""Refusals before and during a run."""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gan_cli.compute.layers import mixing
from gan_cli.config.plain import Node, differences, is_among
from gan_cli.config.training import MAY_CHANGE
from gan_cli.data.dataset import TranslationDataset
from gan_cli.networks import takes_label
from gan_cli.rundir.checkpoint import Checkpoint
from gan_cli.system.errors import (
    ClashError,
    ConfigError,
    DataError,
    blaming,
)

log = logging.getLogger("gan_cli")


def data_change(saved: Checkpoint, fingerprint: str, allowed: list[str]) -> list[str]:
    """A note for the log if the data differs from that of the run.

    Raises:
        DataError: it differs, and allow_change does not allow it.
    """
    if saved.info["data"] == fingerprint:
        return []
    change = f"{saved.info['data'][:12]} -> {fingerprint[:12]}"
    if "data" not in allowed:
        todo = "Bring it back, start another run_dir, or go on with it all the same: allow_change=data"
        raise DataError("the data is not that which the run was trained on", f"dataset, {change}", todo)
    return [f"from step {saved.step} on data: {change}"]


def batch_keys(dataset: Any) -> list[str]:
    """The tensors of a batch of the data set."""
    if isinstance(dataset, TranslationDataset):
        return [key for keys, _ in dataset.streams for key in keys]
    return ["image"] if dataset.labels is None else ["image", "label"]


def refuse_wrong_data(task: Any, dataset: Any) -> None:
    """Refuse a data set without the tensors of the task, and networks that do not fit its labels."""
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


def refuse_batch_of_one(task: nn.Module, batch_size: int) -> None:
    """Refuse a batch of one image where batch norm has one value for each channel: it has no variance."""
    if batch_size == 1 and any(isinstance(module, nn.BatchNorm1d) for module in task.modules()):
        what = "batch norm of a network needs two images or more in a batch"
        raise ConfigError(what, "batch_size=1", "Set batch_size=2 or more for each process")


def refuse_batch_norm(objective: Any, discriminator: nn.Module) -> None:
    """Refuse a per-sample penalty if the critic mixes samples (Gulrajani et al. 2017, section 4)."""
    mixed = mixing(discriminator)
    strict = [name for name, term in objective.terms() if term.per_sample]
    if strict and mixed:
        key = "penalty" if strict[0] == "penalty" else f"regularisers.{strict[0]}"
        raise ConfigError(f"the penalty is defined sample by sample, but {mixed[0]} mixes samples",
                          f"loss.{key} and model.discriminator", "Use layer norm or none in the discriminator")  # fmt: skip


@torch.no_grad()
def refuse_wrong_shapes(task: Any, dataset: Any, device: torch.device) -> None:
    """Try the networks on two samples before any file is written, to report a mistake in them early."""

    def attempt(where: str, network: nn.Module, *inputs: Tensor, wanted: tuple[int, ...] | None = None) -> Tensor:
        shape = tuple(inputs[0].shape)

        def blame(error: Exception) -> ConfigError:
            reason = f"{type(error).__name__}: {error}".split("\n")[0].rstrip(".")
            return ConfigError(f"the {where} fails on {shape}: {reason}", f"model.{where}", "Correct it")

        with blaming(blame):  # a user's network may raise anything
            result: Tensor = network(*inputs)
        if wanted is not None and result.shape != wanted:
            raise ConfigError(f"the {where} makes {tuple(result.shape)}, the data set has {wanted}", f"model.{where}",
                              "Make it take image_size and channels from ${dataset...}")  # fmt: skip
        if not result.is_floating_point() or result.shape[:1] != (2,):
            raise ConfigError(f"the {where} gives {result.dtype} {tuple(result.shape)} for two samples", f"model.{where}",
                              "Make it return floats, samples along the first axis")  # fmt: skip
        return result

    trial = copy.deepcopy(task).eval()  # a copy: the trial must not change buffers
    trial.try_out(attempt, dataset, device)


SILENT_CHANGES = {"run_dir", "allow_change", "deviations", "print_rows"}  # keys whose change on resume is not reported


def refuse_drift(saved: Checkpoint, now: Node, allow_change: list[str], run_dir: Path) -> list[str]:
    """Log the changes of the config on resume, and refuse those that change the result unless they are allowed.

    ``now``: the new config.

    Returns:
        The changes allowed by ``allow_change``, in words.
    """
    changed = differences(saved.info["config"], now)
    noted = {key for key in changed if is_among(key, MAY_CHANGE)} - SILENT_CHANGES
    harmless = [f"{key}: {change}" for key, change in changed.items() if key in noted]
    # A setting of the discriminator follows that of the optimizer by default.
    shared = {key: key.replace("optimizer.discriminator.", "optimizer.") for key in changed}
    allowed = {key for key in changed if {True} & {is_among(name, allow_change) for name in (key, shared[key])}}
    allowed -= {key for key in changed if is_among(key, MAY_CHANGE)}
    refused = [key for key in changed if not is_among(key, {*MAY_CHANGE, *allowed})]
    if refused:
        lines = [f"{key}: {changed[key]}" for key in refused]
        shown = "; ".join(lines[:8]) + (f"; and {len(lines) - 8} more" if len(lines) > 8 else "")
        names = ",".join(dict.fromkeys(shared[key] if len(refused) <= 3 else key.split(".")[0] for key in refused))
        todo = f"Repeat the command it was started with, choose another run_dir=, or go on all the same: allow_change={names}"
        if any(key.startswith(("model.generator.", "model.discriminator.")) for key in refused):
            todo = "Repeat the command it was started with, or choose another run_dir="  # the weights may not fit
        if refused == ["schedule.total_steps"]:
            kept = saved.info["config"]["schedule"].get("total_steps", saved.info["config"]["total_steps"])
            todo = f"Its schedule depends on total_steps: set schedule.total_steps={kept} too, or choose another run_dir="
        raise ClashError(f"the run was started with another config: {shown}", str(run_dir), todo)
    if harmless:
        log.info("note: other settings than before: %s", "; ".join(harmless))
    return [f"from step {saved.step} on {key}: {changed[key]}" for key in sorted(allowed)]
