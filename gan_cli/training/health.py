"""Symptoms of a failing run, found in the rows of metrics.jsonl. One line reports the beginning and one the end of each."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from gan_cli.config.plain import Node

Row = Mapping[str, float]
MIN_DURATION = 0.05  # fraction of total_steps that a symptom must last before it is reported
MIN_ROWS = 4  # rows in a row that must agree; a row holds means over log_every steps
MIN_MEASUREMENTS = 2  # measurements in a row that must agree; there is one every sample_every steps
VANISHED_FRACTION = 1e-3  # fraction of G's usual gradient norm
VANISHED_NORM = 1e-6  # gradient norm of G that has vanished at any usual norm
FORMING_FRACTION, FORMING_STEPS = 0.4, 500  # missing variety is no symptom before this fraction of the run and this step
DIVERSE = 0.5  # metric/diversity; a fall after such a value is a collapse at any step


@dataclass(frozen=True)
class History:
    """The values from earlier rows that the judgement of a row needs.

    Attributes:
        usual_norm: geometric mean of G's gradient norm over the last healthy rows; 0 before the first one.
        max_diversity: the largest ``metric/diversity`` so far.
        has_formed: whether images must show variety by now.
    """

    usual_norm: float
    max_diversity: float
    has_formed: bool


@dataclass(frozen=True)
class Symptom:
    """A way to fail that shows in a row.

    Attributes:
        problem: its name, a short sentence.
        detail: format string of the row, with the measured values. remedy: settings to try.
        keys: columns that a row must have to be judged. min_rows: rows that must agree before it is reported.
        shows: whether a row with its history shows the symptom.
    """

    problem: str
    detail: str
    remedy: str
    keys: tuple[str, ...]
    min_rows: int
    shows: Callable[[Row, History], bool]


SYMPTOMS = (
    Symptom(
        "D is saturated",
        "it classifies {d/accuracy:.1%} of real and generated images correctly, with a loss of {d/loss:.2g}",
        "a lower optimizer.discriminator.lr, or loss=wgan_gp optimizer=adam_wgan_gp",
        ("d/accuracy", "d/loss"),
        MIN_ROWS,
        lambda row, _: row["d/accuracy"] >= 0.998 and row["d/loss"] - row.get("d/penalty", 0.0) < 0.01,
    ),
    Symptom(
        "the gradient of G has vanished",
        "its norm is {g/grad_norm:.1g}",
        "loss=non_saturating in place of minimax, a lower optimizer.lr, or loss=wgan_gp optimizer=adam_wgan_gp",
        ("g/grad_norm",),
        MIN_ROWS,
        lambda row, history: row["g/grad_norm"] < max(VANISHED_FRACTION * history.usual_norm, VANISHED_NORM),
    ),
    Symptom(
        "G has collapsed",
        "its images differ {metric/diversity:.0%} as much as those of the data",
        "a lower optimizer.lr, another seed, or loss=wgan_gp optimizer=adam_wgan_gp",
        ("metric/diversity",),
        MIN_MEASUREMENTS,
        lambda row, history: row["metric/diversity"] < 0.25 and (history.has_formed or history.max_diversity > DIVERSE),
    ),
    Symptom(
        "G misses classes",
        "its images fall into {metric/classes:.0%} of them",
        "a class-conditional model (model=cdcgan), or loss=wgan_gp optimizer=adam_wgan_gp",
        ("metric/classes",),
        MIN_MEASUREMENTS,
        lambda row, history: row["metric/classes"] < 0.7 and history.has_formed,
    ),
    Symptom(
        "D is overfitting",
        "it rates held-out images {d/overfitting:.0%} of the way from training images to generated ones",
        "more data, a smaller model.discriminator, or fewer total_steps",
        ("d/overfitting",),
        MIN_MEASUREMENTS,
        lambda row, _: row["d/overfitting"] > 0.3,
    ),
)


class Health:
    """Judges one row after the other.

    A symptom is reported once ``min_rows`` rows in a row show it over 5 % of the run. Its end is reported by the same rule.
    All state comes from the rows: a resumed run is given those of its metrics.jsonl first.

    Args:
        total_steps: of the run.
    """

    def __init__(self, total_steps: int) -> None:
        self.total_steps = total_steps
        self.usual_norm = 0.0
        self.max_diversity = 0.0
        self.reported = dict.fromkeys(SYMPTOMS, False)  # whether a symptom's last report was its beginning
        self.contrary: dict[Symptom, list[int]] = {s: [] for s in SYMPTOMS}  # steps of the last rows that contradict it

    def update(self, row: Row) -> list[str]:
        """Judge the next row, whose values are finite; return the lines to print, most often none."""
        has_formed = row["step"] > max(FORMING_FRACTION * self.total_steps, FORMING_STEPS)
        history = History(self.usual_norm, self.max_diversity, has_formed)
        lines = []
        for symptom in SYMPTOMS:
            if any(key not in row for key in symptom.keys):
                continue
            steps, reported = self.contrary[symptom], self.reported[symptom]
            if symptom.shows(row, history) == reported:
                steps.clear()
                continue
            steps.append(int(row["step"]))
            if len(steps) >= symptom.min_rows and steps[-1] - steps[0] >= MIN_DURATION * self.total_steps:
                if reported:
                    lines.append(f"health: over since step {steps[0]}: {symptom.problem}")
                else:
                    detail = symptom.detail.format_map(row)
                    lines.append(f"health: since step {steps[0]}: {symptom.problem}: {detail}. Try {symptom.remedy}")
                self.reported[symptom] = not reported
                steps.clear()
        self.max_diversity = max(self.max_diversity, row.get("metric/diversity", 0.0))
        norm, usual = row.get("g/grad_norm", 0.0), self.usual_norm
        if norm > VANISHED_FRACTION * usual:
            self.usual_norm = norm if usual == 0 else math.exp(0.9 * math.log(usual) + 0.1 * math.log(norm))
        return lines


def against_divergence(loss: Node, optimizer: Node) -> str:
    """Settings to try where values are no longer finite, for the configs of a loss and of an optimizer."""
    lr = optimizer.get("lr")
    slower = f"optimizer.lr={min(lr / 10, 1e-3):g}" if isinstance(lr, float | int) else "a lower learning rate"
    other = "loss=wgan_gp optimizer=adam_wgan_gp"
    if loss.get("penalty"):
        other = "another loss.penalty.weight"
    elif loss.get("constraint"):
        other = "a lower loss.constraint.limit"
    return f"Try {slower}, or {other}"
