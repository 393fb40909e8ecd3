"""Records of runs, and the parts of a comparison."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class EvaluationRecord:
    """One file of ``evaluations/``.

    Attributes:
        step, images: progress of the evaluated weights; images are real images shown to the discriminator.
        metrics: values by name, ``fid``, and their spreads, ``fid_std``.
        protocol_id: short hash of ``protocol``; values with the same id are comparable.
    """

    step: int
    images: int
    metrics: dict[str, float]
    protocol_id: str
    protocol: dict[str, Any]


@dataclass(frozen=True)
class RunRecord:
    """The files of a run directory.

    Attributes:
        path: the directory. config: resolved and flattened, ``{"optimizer.lr": 2e-4, ...}``.
        state: complete, running (a process holds its lock), stopped (killed), preempted, failed, diverged, pruned, or
            unknown (no status.json: an earlier version).
        message: the error that ended an incomplete run. step, images: progress. total_steps: length of the run.
        rows: content of metrics.jsonl. evaluations: sorted by step. pictures: files of ``samples/`` by step.
        seconds: training time. command, cwd: the recorded command, without ``run_dir``, and its directory, or "".
        data: fingerprint of the training data, or "". precision: precision in use, or "".
        changes: changes of settings during training. chosen: whether a search selected the run as its best trial.
    """

    path: Path
    config: dict[str, Any]
    state: str
    message: str
    step: int
    total_steps: int
    images: int
    rows: list[dict[str, Any]]
    evaluations: list[EvaluationRecord]
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
        return int(self.config.get("seed", 0))


@dataclass(frozen=True)
class Column:
    """A metric of the table.

    Attributes:
        name: ``fid``, or for training scalars the key in metrics.jsonl, ``d/wasserstein``.
        better: ``lower``, ``higher``, or "" for metrics without a direction. protocol_id: "" for training scalars.
    """

    name: str
    better: str
    protocol_id: str = ""


@dataclass(frozen=True)
class Summary:
    """Values of a metric over seeds.

    Attributes:
        values: by ``str(run.path)``. std: with n - 1; None for one value.
        verdict: ``worse`` if the seeds support that the group is worse than the best, ``unsupported`` if they do not,
            "" for the best group and without a test.
        p: Holm-corrected p of Welch's t test against the best, None without a test.
        measured: evaluations of the values by ``str(run.path)``; empty for training scalars.
    """

    values: dict[str, float]
    mean: float
    std: float | None
    n: int
    verdict: str = ""
    p: float | None = None
    measured: dict[str, EvaluationRecord] = field(default_factory=dict)


@dataclass
class Group:
    """Runs that differ in their seed only.

    Attributes:
        name: ``loss=hinge, optimizer.lr=0.0002``, or ``all runs`` for a single group. settings: the same by key.
        summaries: by the name of the column, without columns for which no run has a value.
    """

    name: str
    settings: dict[str, str]
    runs: list[RunRecord]
    summaries: dict[str, Summary] = field(default_factory=dict)


@dataclass
class Comparison:
    """Groups of one data set.

    Attributes:
        title: name of the data, ``fashion_mnist``. groups: best first by ``sort_by``, those without a value last.
        columns: metrics of the table. sort_by: name of a column, or "" without columns.
        at: ``last``, ``best`` or a number of images: the evaluation of each run that counts.
        varied: config keys that differ between groups. notes: remarks, one line each.
    """

    title: str
    groups: list[Group]
    columns: list[Column]
    sort_by: str
    at: str
    varied: list[str]
    notes: list[str]

    @property
    def runs(self) -> list[RunRecord]:
        return [run for group in self.groups for run in group.runs]
