"""What a comparison consists of."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Evaluation:
    """One file of ``evaluations/``.

    Attributes:
        step, images: of the weights that were measured; real images shown to the discriminator.
        metrics: values by name, ``fid``; spreads are ``kid_std`` and so on.
        protocol_id: two values can be compared exactly if it is the same. protocol: all of it.
    """

    step: int
    images: int
    metrics: dict[str, float]
    protocol_id: str
    protocol: dict[str, Any]


@dataclass(frozen=True)
class Run:
    """What is on disk of a run.

    Attributes:
        path: its directory. config: resolved and flattened, ``{"optimizer.lr": 2e-4, ...}``.
        state: complete, running (a process holds its lock), stopped (killed), preempted, failed, diverged, pruned, or
            unknown (no status.json: an earlier version). message: what it ended with, if it did not complete.
        step, total_steps: where it is. images: at its last row.
        rows: of metrics.jsonl. evaluations: by step. pictures: of ``samples/``, by step.
        seconds: of training, by its rows. command: what to type to make it anew, without ``run_dir``; "" if not known.
        cwd: where that was typed. data: fingerprint of what it was trained on; "" if not known.
        precision: that the machine chose; "" if not known. changes: made to it since it began, in words.
        chosen: it was the best trial of a search, which trained the same with other seeds.
    """

    path: Path
    config: dict[str, Any]
    state: str
    message: str
    step: int
    total_steps: int
    images: int
    rows: list[dict[str, Any]]
    evaluations: list[Evaluation]
    pictures: dict[int, Path]
    seconds: float
    command: str = ""
    cwd: str = ""
    data: str = ""
    precision: str = ""
    changes: tuple[str, ...] = ()
    chosen: bool = False

    @property
    def seed(self) -> int:
        """The only thing that differs between runs of a group."""
        return int(self.config.get("seed", 0))


@dataclass(frozen=True)
class Column:
    """A metric of the table.

    Attributes:
        name: ``fid``, or the column of metrics.jsonl, ``d/wasserstein``, if it is from training rows.
        better: ``lower``, ``higher`` or ``""`` where there is no better. protocol_id: "" if from training rows.
    """

    name: str
    better: str
    protocol_id: str = ""


@dataclass(frozen=True)
class Summary:
    """Values of a metric over seeds.

    Attributes:
        values: by ``str(run.path)``. std: with n - 1; None for one value. measured: the evaluations they are from, in the same
            way; empty if they are from training rows.
        verdict: "" for the best group and where nothing can be said, ``worse`` if the seeds support that it is worse than
            the best, ``unsupported`` if they do not. p: of Welch's t test against the best, Holm-corrected; None where
            there is no test.
    """

    values: dict[str, float]
    mean: float
    std: float | None
    n: int
    verdict: str = ""
    p: float | None = None
    measured: dict[str, Evaluation] = field(default_factory=dict)


@dataclass
class Group:
    """Runs that differ by their seed only.

    Attributes:
        name: ``loss=hinge, optimizer.lr=0.0002``: what differs between groups; ``all runs`` if there is one group.
        settings: the same by key. summaries: by the name of the column, absent where no run has a value.
    """

    name: str
    settings: dict[str, str]
    runs: list[Run]
    summaries: dict[str, Summary] = field(default_factory=dict)


@dataclass
class Comparison:
    """Groups that can be compared: of one data set, measured by one protocol.

    Attributes:
        title: of the data, ``fashion_mnist``. groups: best first by ``sort_by``, those without a value last.
        columns: evaluated metrics first. sort_by: name of a column, or "" if there is none.
        at: ``last``, ``best`` or a number of images: which evaluation of each run counts.
        varied: keys that differ between groups. notes: what a reader must know, a line each.
    """

    title: str
    groups: list[Group]
    columns: list[Column]
    sort_by: str
    at: str
    varied: list[str]
    notes: list[str]

    @property
    def runs(self) -> list[Run]:
        """Of all groups."""
        return [run for group in self.groups for run in group.runs]
