"""The parts of a training config that are built, one entry each: what is given to them, and what a stranger's run may name.

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
        modules: where a class or function must be defined that a stranger's run names here: a prefix that ends with a dot,
            or one full name.
        kind: what that class or function must be.
        inner: the same prefixes for nodes inside the node. inner_kind: what those must be.
        injected: arguments that the program gives, so that a config may leave them out.
        optional: the node may be null or missing.
        draws: the node is built to sample from a run.
        in_hparams: TensorBoard's HParams tab shows the class of the node where the command does not name an option.
        may_change: keys inside the node that may differ when a run continues; ``("",)`` for the whole node.
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
