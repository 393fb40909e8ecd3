"""The parts of a training config that are built, one entry each: injected arguments and trusted targets.

A new group of options is one entry here, a field of :class:`gan_cli.config.training.TrainConfig` and a line in
``conf/train.yaml``. Checks, trust, ``from_run=``, TensorBoard's HParams and the names of gan-compare follow from the entry.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["module", "dataset", "callable"]


@dataclass(frozen=True)
class Part:
    """A key of the config that holds a ``_target_`` node.

    Attributes:
        key: dotted path of the node. The first word is the group, unless the group has no options of its own.
        modules: trusted targets of an untrusted run: prefixes that end with a dot, or full names.
        kind: required kind of the target.
        inner: trusted targets of nodes inside the node. inner_kind: their required kind.
        injected: arguments that the program adds; a config may omit them.
        optional: whether the node may be null or missing.
        draws: whether sampling from a run builds the node.
        in_hparams: whether TensorBoard's HParams tab shows the class where the command line names no option.
        may_change: keys inside the node that may differ on resume; ``("",)`` for the whole node.
    """

    key: str
    modules: tuple[str, ...]
    kind: Kind
    inner: tuple[str, ...] = ()
    inner_kind: Kind = "module"
    injected: frozenset[str] = frozenset()
    optional: bool = False
    draws: bool = False
    in_hparams: bool = False
    may_change: tuple[str, ...] = ()

    @property
    def group(self) -> str:
        """The first word of the key: ``model`` of ``model.task``."""
        return self.key.partition(".")[0]


PARTS = (
    Part(
        "model.task",
        modules=("gan_cli.tasks.",),
        kind="module",
        inner=("gan_cli.data.densities.",),
        injected=frozenset({"generator", "discriminator", "objective"}),
        draws=True,
        in_hparams=True,
    ),
    Part("model.generator", modules=("gan_cli.networks.",), kind="module", inner=("gan_cli.networks.",), draws=True),
    Part("model.discriminator", modules=("gan_cli.networks.",), kind="module", inner=("gan_cli.networks.",)),
    Part(
        "loss",
        modules=("gan_cli.objective.",),
        kind="callable",
        inner=("gan_cli.losses.", "gan_cli.penalties.", "gan_cli.objective.", "gan_cli.schedules."),
        inner_kind="callable",
        injected=frozenset({"augment"}),
        in_hparams=True,
    ),
    Part(
        "augment",
        modules=("gan_cli.augment.",),
        kind="module",
        inner=("gan_cli.schedules.",),
        inner_kind="callable",
        optional=True,
        in_hparams=True,
    ),
    Part(
        "optimizer",
        modules=("gan_cli.optimizers.", "torch.optim."),
        kind="callable",
        inner=("gan_cli.optimizers.", "torch.optim.", "gan_cli.schedules."),
        inner_kind="callable",
        injected=frozenset({"params"}),
        in_hparams=True,
    ),
    Part(
        "schedule",
        modules=("gan_cli.schedules.",),
        kind="callable",
        inner=("gan_cli.schedules.",),
        inner_kind="callable",
    ),
    Part(
        "dataset",
        modules=("gan_cli.data.",),
        kind="dataset",
        inner=("gan_cli.data.densities.",),
        in_hparams=True,
        may_change=("root", "path", "download", "memory_gb"),
    ),
    Part(
        "features",
        modules=("gan_cli.metrics.classifier.Classifier", "gan_cli.metrics.inception.Inception"),
        kind="callable",
        injected=frozenset({"labelled", "folder"}),
        optional=True,
        may_change=("",),
    ),
)
BY_KEY = {part.key: part for part in PARTS}
GROUPS = tuple(dict.fromkeys(part.group for part in PARTS))
MAY_CHANGE = frozenset(f"{part.key}.{key}".rstrip(".") for part in PARTS for key in part.may_change)
