"""What goes wrong in a run, seen in the rows of its metrics.jsonl: one line when it has begun, one when it is over."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from gan_cli.config.plain import Node

Row = Mapping[str, float]
SPAN = 0.05  # of the run's steps: nothing is said of what does not last as long
ROWS = 4  # that must agree; they are means over log_every steps
MEASUREMENTS = 2  # that must agree; there is one every sample_every steps
FALL = 1e-3  # of the usual gradient of G
NOTHING = 1e-6  # the gradient of G, whatever is usual
FORMING, FORMING_STEPS = 0.4, 500  # of the run's steps, and at least: until then images may be as alike as they begin
DIVERSE = 0.5  # or until they have been so diverse


@dataclass(frozen=True)
class Sign:
    """What is looked for in a row.

    Attributes:
        keys: what a row must have to tell anything.
        rows: of these that must agree before something is said.
        holds: whether a row shows it.
        sees: what is said, a format string of the row. It begins with what is over when it is over, up to the comma.
        remedy: settings to try.
    """

    keys: tuple[str, ...]
    rows: int
    holds: Callable[[Row], bool]
    sees: str
    remedy: str


SIGNS = (
    Sign(
        ("d/accuracy", "d/loss"),
        ROWS,
        lambda row: row["d/accuracy"] >= 0.998 and row["d/loss"] - row.get("d/penalty", 0.0) < 0.01,
        "D is saturated, right on {d/accuracy:.1%} of real and generated images with a loss of {d/loss:.2g}",
        "a lower optimizer.discriminator.lr, or loss=wgan_gp optimizer=adam_wgan_gp",
    ),
    Sign(
        ("g/grad_norm",),
        ROWS,
        lambda row: row["g/grad_norm"] < max(FALL * row["usual"], NOTHING),
        "the gradient of G has vanished, its norm is {g/grad_norm:.1g}",
        "loss=non_saturating in place of minimax, a lower optimizer.lr, or loss=wgan_gp optimizer=adam_wgan_gp",
    ),
    Sign(
        ("metric/diversity",),
        MEASUREMENTS,
        lambda row: row["metric/diversity"] < 0.25 and (bool(row["formed"]) or row["widest"] > DIVERSE),
        "G has collapsed, its images differ {metric/diversity:.0%} as much as those of the data",
        "a lower optimizer.lr, another seed, or loss=wgan_gp optimizer=adam_wgan_gp",
    ),
    Sign(
        ("metric/classes",),
        MEASUREMENTS,
        lambda row: row["metric/classes"] < 0.7 and bool(row["formed"]),
        "G misses classes, its images fall into {metric/classes:.0%} of them",
        "a class-conditional model (model=cdcgan), or loss=wgan_gp optimizer=adam_wgan_gp",
    ),
    Sign(
        ("d/overfitting",),
        MEASUREMENTS,
        lambda row: row["d/overfitting"] > 0.3,
        "D knows its training images by heart, held-out ones are {d/overfitting:.0%} of the way to generated ones in its eyes",
        "more data, a smaller model.discriminator, or fewer total_steps",
    ),
)


class Health:
    """Looks at one row after the other. All it knows comes from them, so a run that resumes shows it the old ones first.

    Something is said when it was seen in several rows on end that span 5 % of the run, and again when it was not seen in
    as many.

    Args:
        total_steps: of the run.
    """

    def __init__(self, total_steps: int) -> None:
        self.total_steps = total_steps
        self.usual = 0.0  # norm of the gradient of G, while that is well: a geometric mean of the last rows
        self.widest = 0.0  # diversity so far
        self.said = dict.fromkeys(SIGNS, False)  # whether it holds, by what was said last
        self.against: dict[Sign, list[int]] = {sign: [] for sign in SIGNS}  # steps of the last rows that say otherwise

    def update(self, row: Row) -> list[str]:
        """The next row, its values finite. Returns the lines to print, most often none."""
        formed = row["step"] > max(FORMING * self.total_steps, FORMING_STEPS)
        row = {**row, "usual": self.usual, "widest": self.widest, "formed": formed}
        lines = []
        for sign in SIGNS:
            if any(key not in row for key in sign.keys):
                continue
            steps = self.against[sign]
            if sign.holds(row) == self.said[sign]:
                steps.clear()
                continue
            steps.append(int(row["step"]))
            if len(steps) >= sign.rows and steps[-1] - steps[0] >= SPAN * self.total_steps:
                sees = sign.sees.format_map(row)
                over = f"health: {sees.split(',')[0]}: this is over at step {steps[0]}"
                lines.append(over if self.said[sign] else f"health: since step {steps[0]} {sees}. Try {sign.remedy}")
                self.said[sign] = not self.said[sign]
                steps.clear()
        self.widest = max(self.widest, row.get("metric/diversity", 0.0))
        norm = row.get("g/grad_norm", 0.0)
        if norm > FALL * self.usual:
            self.usual = norm if self.usual == 0 else math.exp(0.9 * math.log(self.usual) + 0.1 * math.log(norm))
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
