"""The steps after which a run writes rows, pictures, evaluations and checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Due:
    """The tasks that are due after a step.

    Attributes:
        row: a row of metrics.jsonl. picture: a sample grid. measurement: metrics of the sample grid.
        evaluation: metrics as ``gan-eval`` computes them. checkpoint: a permanent checkpoint. last: the last step.
    """

    row: bool
    picture: bool
    measurement: bool
    evaluation: bool
    checkpoint: bool
    last: bool

    @property
    def reads_device(self) -> bool:
        """Whether a due task synchronises with the device."""
        return self.row or self.evaluation or self.checkpoint


@dataclass(frozen=True)
class Plan:
    """The intervals of a run, in steps, from its config. ``milestones``: steps of additional checkpoints."""

    total_steps: int
    log_every: int
    sample_every: int
    save_every: int
    eval_every: int | None
    milestones: list[int]

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Plan:
        """The plan of a config in plain data. Keys that an older version lacks are off."""
        absent: dict[str, Any] = {"eval_every": None, "milestones": []}
        return cls(**{field.name: config.get(field.name, absent.get(field.name)) for field in fields(cls)})

    def due(self, step: int) -> Due:
        """The tasks due when ``step`` steps are complete. The last step always has a row, a picture and a checkpoint."""
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
        """Whether a row ends at this step, in this run and in a longer one."""
        return step % self.log_every == 0

    def has_picture(self, step: int) -> bool:
        """Whether there is a picture of this step, also in a longer run."""
        return step % self.sample_every == 0

    def keeps(self, step: int) -> bool:
        """Whether a checkpoint of this step is permanent. Others are deleted with the next one."""
        return step % self.save_every == 0
