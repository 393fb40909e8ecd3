"""The steps at which a run writes rows, pictures, evaluations and checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Due:
    """The work that is due after a step.

    Attributes:
        row: a row of metrics.jsonl. picture: a picture of the examples. measurement: the measurements logged with it.
        evaluation: an evaluation as by ``gan-eval``. checkpoint: a permanent one. last: whether this is the last step.
    """

    row: bool
    picture: bool
    measurement: bool
    evaluation: bool
    checkpoint: bool
    last: bool

    @property
    def reads_device(self) -> bool:
        """Whether this work makes the host wait for the device."""
        return self.row or self.evaluation or self.checkpoint


@dataclass(frozen=True)
class Plan:
    """The steps of a run at which something is due, as its config sets them; ``milestones`` are further checkpoints."""

    total_steps: int
    log_every: int
    sample_every: int
    save_every: int
    eval_every: int | None
    milestones: list[int]

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Plan:
        """The plan of a config as plain data, which an older version may have saved."""
        absent: dict[str, Any] = {"eval_every": None, "milestones": []}
        return cls(**{field.name: config.get(field.name, absent.get(field.name)) for field in fields(cls)})

    def due(self, step: int) -> Due:
        """The work due after ``step`` completed steps. The last step always has a row and a picture."""
        last = step >= self.total_steps
        return Due(
            row=last or self.ends_row(step),
            picture=last or self.has_picture(step),
            measurement=self.has_picture(step),
            evaluation=self.eval_every is not None and step % self.eval_every == 0,
            checkpoint=last or self.keeps(step) or step in self.milestones,
            last=last,
        )

    def ends_row(self, step: int) -> bool:
        """Return whether a row ends with this step, in this run and in a longer one."""
        return step % self.log_every == 0

    def has_picture(self, step: int) -> bool:
        """Return whether a longer run also has a picture of this step."""
        return step % self.sample_every == 0

    def keeps(self, step: int) -> bool:
        """Return whether a checkpoint of this step is permanent. Others are deleted when there is a newer one."""
        return step % self.save_every == 0
