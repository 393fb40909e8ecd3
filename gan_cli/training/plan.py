"""What a run does beside its steps, and when."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Due:
    """What is due after a step.

    Attributes:
        row: a row of metrics.jsonl. picture: one of the examples. measurement: of what is pictured.
        evaluation: by the rule of ``gan-eval``. checkpoint: one that stays. last: the run ends here.
    """

    row: bool
    picture: bool
    measurement: bool
    evaluation: bool
    checkpoint: bool
    last: bool

    @property
    def reads_device(self) -> bool:
        """Whether the host waits for the device anyway."""
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
        """The plan of a config as plain data, also of one that an older version saved."""
        absent: dict[str, Any] = {"eval_every": None, "milestones": []}
        return cls(**{field.name: config.get(field.name, absent.get(field.name)) for field in fields(cls)})

    def due(self, step: int) -> Due:
        """What is due when ``step`` steps are complete. The last step has a row and a picture that no schedule asks for."""
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
        """Whether the next row begins after this step, in this run and in a longer one."""
        return step % self.log_every == 0

    def has_picture(self, step: int) -> bool:
        """Whether a longer run has a picture of this step too."""
        return step % self.sample_every == 0

    def keeps(self, step: int) -> bool:
        """Whether a checkpoint of this step stays; one made for another reason goes with the next."""
        return step % self.save_every == 0
