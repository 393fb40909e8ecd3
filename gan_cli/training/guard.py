"""The end of a run with non-finite values.

Single non-finite updates are skipped on the device, see :meth:`gan_cli.training.loop.Player.update`. The guard ends the run
after too many of them, or when such a value reaches a log or a checkpoint.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from gan_cli.rundir import checkpoint
from gan_cli.system.errors import DivergedError
from gan_cli.training.game import Game


@dataclass(frozen=True)
class Guard:
    """Refuses non-finite values.

    Args:
        run_dir: directory of the run, for messages. remedy: settings to try.
    """

    run_dir: Path
    remedy: str

    def diverged(self, what: str, saved: str = "this state was not saved") -> DivergedError:
        """The error that ends the run."""
        return DivergedError(f"training diverged: {what}", str(self.run_dir), f"{self.remedy}; {saved}")

    def refuse_non_finite(self, values: Mapping[str, float | Tensor], step: int, group: str = "") -> None:
        """Refuse non-finite values before they are written.

        Args:
            values: means of a row, or the tensors of ``group`` of a checkpoint.

        Raises:
            DivergedError: a value is not finite.
        """
        lost = [key for key, value in values.items() if not is_finite(value)]
        if lost:
            names = f"{group} {lost[0]} is not finite at step {step}"
            raise self.diverged(names if group else f"not finite at step {step}: {', '.join(lost)}")

    def refuse_skipped_updates(self, game: Game, limit: int) -> None:
        """Refuse too many skipped updates. Called when an update since the last row was skipped.

        Raises:
            DivergedError: ``limit`` or more updates in a row were skipped, or a buffer of a network is not finite.
        """
        counts = {"discriminator": int(game.discriminator.skipped), "generator": int(game.generator.skipped)}
        if max(counts.values()) < limit:
            self.refuse_non_finite(game.task.state_dict(), game.progress.step, "networks")
            return
        lost = []
        for side, count in counts.items():
            step, updates = game.progress.step, count
            while updates > 0 and step > 0:  # back to the first skipped update
                step -= 1
                updates -= game.task.objective.turns(step) if side == "discriminator" else 1
            if count:
                lost.append(f"the {side}'s {getattr(game, side).not_finite()} since step {step + 1} ({count} in a row)")
        present = checkpoint.steps(self.run_dir)
        left = f"the last checkpoint is that of step {present[-1]}" if present else "there was no checkpoint yet"
        raise self.diverged(f"not finite are {' and '.join(lost)}", left)


def is_finite(value: float | Tensor) -> bool:
    """Return whether a number, or every element of a tensor, is finite."""
    if isinstance(value, Tensor):
        return not value.is_floating_point() or bool(torch.isfinite(value).all())
    return math.isfinite(value)
