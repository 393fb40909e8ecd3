"""Ending a run whose values are not finite.

Single updates that are not finite are skipped on the device, see :meth:`gan_cli.training.loop.Player.update`. Here the host
ends the run after too many of them, or when a value to log or save is not finite.
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
    """Check that ends a run with values that are not finite.

    Args:
        run_dir: run directory, for messages. remedy: settings to try.
    """

    run_dir: Path
    remedy: str

    def diverged(self, what: str, saved: str = "no checkpoint of it was saved") -> DivergedError:
        """The error that ends the run."""
        return DivergedError(f"training diverged: {what}", str(self.run_dir), f"{self.remedy}; {saved}")

    def refuse_non_finite(self, values: Mapping[str, float | Tensor], step: int, group: str = "") -> None:
        """Refuse values that are not finite, before they are logged or saved.

        Args:
            values: means of a row, or the tensors of ``group``.

        Raises:
            DivergedError: one of them is not finite.
        """
        lost = [key for key, value in values.items() if not is_finite(value)]
        if lost:
            names = f"{group} {lost[0]} is not finite at step {step}"
            raise self.diverged(names if group else f"not finite at step {step}: {', '.join(lost)}")

    def refuse_skipped_updates(self, game: Game, limit: int) -> None:
        """Called while updates are skipped, or have been since the last row.

        Raises:
            DivergedError: ``limit`` or more in a row, or what is not finite has reached the statistics of a network.
        """
        counts = {"discriminator": int(game.discriminator.skipped), "generator": int(game.generator.skipped)}
        if max(counts.values()) < limit:
            self.refuse_non_finite(game.task.state_dict(), game.progress.step, "networks")
            return
        lost = []
        for side, count in counts.items():
            step, updates = game.progress.step, count
            while updates > 0 and step > 0:  # back to the first of the skipped steps
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
