"""Trained generators, reloaded from run directories."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from gan_cli.compute.device import choose_device, to_device
from gan_cli.config.build import build
from gan_cli.config.groups import BY_KEY
from gan_cli.config.plain import Node
from gan_cli.networks import keywords
from gan_cli.protocols import DrawsPoints, HasModes, Translates
from gan_cli.randomness import SAMPLE_BLOCK
from gan_cli.rundir import checkpoint
from gan_cli.rundir.trust import checked, fitting, is_trusted
from gan_cli.system.errors import CheckpointError, ConfigError, blaming
from gan_cli.system.files import refuse_links

log = logging.getLogger("gan_cli")
MAX_HEADER = 512  # bytes of header for each tensor of a file of weights


def load_state(module: nn.Module, tensors: dict[str, Tensor], where: str) -> None:
    """Load weights, with the same names, shapes and types. A module on the meta device takes the tensors themselves.

    Raises:
        CheckpointError: names, shapes or types differ, or a value is not finite.
    """
    todo, own = "Use the version that made it", module.state_dict()
    for name, tensor in tensors.items():
        if name in own and tensor.dtype != own[name].dtype:
            what = f"the weights do not fit the network: {name} is {tensor.dtype}, not {own[name].dtype}"
            raise CheckpointError(what, where, todo)
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise CheckpointError(f"the weights are not finite: {name}", where, "Use another step=")
    try:
        module.load_state_dict(tensors, strict=True, assign=any(tensor.is_meta for tensor in own.values()))
    except RuntimeError as error:
        reason = (str(error).split("\n")[1].strip() if "\n" in str(error) else str(error))[:200]
        raise CheckpointError(f"the weights do not fit the network: {reason}", where, todo) from error


@dataclass
class Run:
    """A trained generator, ready to be used.

    Attributes:
        config: the resolved training config. step: of the checkpoint. images: real images shown to the discriminator.
        task: draws latents and labels, or translates images. generator: in evaluation mode, on ``device``.
        weights_hash: SHA-256 of the file of the generator's weights. data: fingerprint of the training data.
        ema: whether the generator is the running average.
    """

    run_dir: Path
    config: dict[str, Any]
    step: int
    images: int
    task: Any
    generator: nn.Module
    device: torch.device
    class_names: list[str]
    weights_hash: str = ""
    data: str = ""
    ema: bool = True

    @property
    def translates(self) -> bool:
        """Whether the run makes images from images, not from noise."""
        return isinstance(self.task, Translates)

    @torch.no_grad()
    def translate(self, images: Tensor, direction: str | None = None, seed: int = 0) -> Tensor:
        """Translate images in [-1, 1], float (N, C, H, W), to images of the same kind, float32 on ``device``.

        ``direction``: ``a2b`` (the default) or ``b2a`` for two-way models. Image k depends on ``seed`` and k only.

        Raises:
            ValueError: the run does not translate, or not in this direction.
        """
        task = self.task
        if not isinstance(task, Translates) or direction not in (None, *task.directions):
            raise ValueError(f"this run does not translate {direction or 'images'}")
        with self._own_randomness():
            way = direction or next(iter(task.directions), None)
            result: Tensor = task.translate(self.generator, images.to(self.device), way, seed)
        return result

    @torch.no_grad()
    def generate(
        self,
        latents: Tensor,
        labels: Tensor | None = None,
        batch_size: int = SAMPLE_BLOCK,
        seed: int = 0,
        start: int = 0,
        **options: Any,
    ) -> Iterator[Tensor]:
        """Images in [-1, 1], float32 (n, C, H, W) on ``device``, batch by batch, for latents (N, latent_dim).

        ``seed``, ``start``: of the noise within the generator, if there is any: that of ``seed`` and ``start`` + k.
        ``options``: keywords of the generator, such as ``truncation``; see :func:`draw_options`.
        """
        for k in range(0, len(latents), batch_size):
            z = latents[k : k + batch_size].to(self.device)
            label = None if labels is None else labels[k : k + batch_size].to(self.device)
            with self._own_randomness():
                images = self.task.draw(self.generator, z, label, seed, start + k, **options)
            yield images.float()

    def _own_randomness(self) -> AbstractContextManager[None]:
        """Within this block random numbers do not change the caller's state."""
        return torch.random.fork_rng([self.device] if self.device.type == "cuda" else [])

    def sample(
        self, n: int, seed: int = 0, labels: Tensor | None = None, batch_size: int = SAMPLE_BLOCK, **options: Any
    ) -> Tensor:
        """``n`` images in [-1, 1], float32 (n, C, H, W) on ``device``. Image k depends on ``seed`` and k only.

        ``labels``: int64 (n,) for class-conditional models; by default as many of each class, class after class.
        ``options``: as for :meth:`generate`.
        """
        if self.translates:
            raise ValueError("this run translates images: use translate")
        if labels is None:
            labels = self.task.labels(n)
        return torch.cat(list(self.generate(self.task.latents(seed, 0, n), labels, batch_size, seed, **options)))


def chosen_direction(run: Run, direction: str | None, mode: str | None) -> str | None:
    """Set the ``mode`` of a run and return its direction, by default the first; None for a run with one direction only.

    Raises:
        ConfigError: ``direction`` or ``mode`` is set, and the run has none to choose from.
    """
    directions = run.task.directions if run.translates else ()
    if direction is not None and not directions:
        raise ConfigError("the run has no directions to choose from", "direction", "Leave direction out; it is for CycleGAN")
    if mode is not None:
        if not isinstance(run.task, HasModes):
            raise ConfigError("the run has one mode only", "mode", "Leave mode out; it is for pix2pix models")
        run.task.sample_mode = mode
    return direction or next(iter(directions), None)


def draw_options(generator: nn.Module, **wanted: float | None) -> dict[str, Any]:
    """The keywords of ``wanted`` that are set, for a generator's ``forward``.

    Raises:
        ConfigError: the generator has no such keyword-only argument of ``forward``.
    """
    options = {key: value for key, value in wanted.items() if value is not None}
    for key, value in options.items():
        if key not in keywords(generator):
            todo = f"Leave {key} out; it is for generators with a mapping network"
            raise ConfigError(f"the generator of the run has no {key}", f"{key}={value:g}", todo)
    return options


def load_run(
    run_dir: str | Path, *, step: str | int = "last", ema: bool = True, device: str = "auto", trust: bool = False
) -> Run:
    """Reload the generator of a run. Only the directory is needed.

    Args:
        run_dir: directory that ``gan-train`` wrote. step: ``last``, ``best`` or a number.
        ema: the averaged generator; False for the one that was trained. device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        trust: let the run name classes that are not part of gan_cli.

    Raises:
        NotFoundError, CheckpointError, UntrustedError, DeviceError.
    """
    run_dir, weights = Path(run_dir).expanduser(), "generator_ema" if ema else "generator"
    if not trust:
        refuse_links(run_dir)
    where = choose_device(device)

    nodes: dict[str, Node] = {}
    is_ours, generator = False, None

    def wanted(info: dict[str, Any]) -> dict[str, int | None]:
        nonlocal nodes, is_ours, generator
        nodes, is_ours = checked(info, trust)
        generator = _outline(nodes["generator"]) if is_ours else None
        limit = 0 if generator is None else sum(t.nbytes + MAX_HEADER for t in generator.state_dict().values()) + MAX_HEADER
        return {weights: limit or None}

    saved = checkpoint.find(run_dir, str(step), wanted)
    if generator is None:
        generator = build(nodes["generator"], "model.generator")
    # Sampling needs neither loss nor discriminator, so a run with a user's own ones is loaded without their code.
    parts = dict.fromkeys(BY_KEY["model.task"].injected) | {"generator": generator, "discriminator": nn.Identity()}
    task = build(nodes["task"], "model.task", **parts)
    run = Run(
        run_dir, saved.info["config"], saved.step, saved.info["images"], task, generator, where, saved.info["class_names"],
        saved.hashes[f"{weights}.safetensors"], saved.info["data"], ema,
    )  # fmt: skip
    load_state(generator, saved.tensors[weights], str(run_dir))
    to_device(generator, where).eval().requires_grad_(False)
    if is_ours:
        _try_out(run)
    return run


class _Uninitialised(TorchFunctionMode):
    """Skips initial values. They mean nothing on the meta device, where their import takes a second."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in ("normal_", "uniform_", "fill_", "zero_"):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


def _outline(node: Node) -> nn.Module:
    """A network on the meta device: shapes without values, which takes no memory."""
    with torch.device("meta"), _Uninitialised():
        network: nn.Module = build(node, "model.generator")
    return network


def _try_out(run: Run) -> None:
    """Draw two samples, or translate zeros, to find out whether generator, task and data fit together.

    Raises:
        CheckpointError: they do not.
    """
    data = fitting(run.config)

    def blame(error: Exception) -> CheckpointError:
        what = f"the networks, task and data of the run do not fit together: {type(error).__name__}: {error}"[:300]
        return CheckpointError(what, str(run.run_dir), "Use the version that made it")

    with blaming(blame):  # an untrusted combination can fail in any way
        if not run.translates:
            made = run.sample(2)
            points = isinstance(run.task, DrawsPoints)
            fits = made.shape == (2, run.task.density.dim) if points else made.dim() == 4
        elif {"channels", "image_size"} <= data.keys() or is_trusted(run.config, dataset=True):
            given = torch.zeros(1, data["channels"], data["image_size"], data["image_size"], device=run.device)
            fits = all(run.translate(given, way).shape == given.shape for way in run.task.directions or [None])
        else:  # a data set of the user's own
            fits = True
    if not fits:
        raise CheckpointError("the run does not make what its data is", str(run.run_dir), "Use the version that made it")
