"""What a run writes while it trains: metrics.jsonl, TensorBoard events, pictures, a progress bar or log lines."""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gan_cli.images import enlarge, write_png
from gan_cli.rundir import hparams
from gan_cli.rundir.metrics_log import read_rows
from gan_cli.system import console
from gan_cli.system.errors import CheckpointError
from gan_cli.system.files import write_file
from gan_cli.system.text import clock
from gan_cli.training.guard import Guard
from gan_cli.training.loop import Progress

log = logging.getLogger("gan_cli")
LINE_SECONDS = 10.0  # at most one console line in this time when there is no terminal
# The event file that says what the run is: first of all by its name, since TensorBoard does not go back to an earlier one.
SESSION = "events.out.tfevents.0.session"
ENDED = ".ended"  # ends the name of the event file that says how the run ended
BLOCK = 64  # steps whose scalars are added up at a time


@dataclass
class Sums:
    """Scalars of the same keys on their way to a mean: one small tensor a step is all that is made in between.

    The steps of a row are added up in blocks that begin with it, wherever a run stops and resumes: it leaves the same bits.

    Attributes:
        total: float32 (2, n), sums of n scalars that were finite, and how many were.
        block: at most ``BLOCK`` steps since, (n,) each.
    """

    total: Tensor
    block: list[Tensor] = field(default_factory=list)

    def add(self, values: Tensor) -> None:
        """``values``: the scalars of a step, (n,)."""
        self.block.append(values)
        if len(self.block) == BLOCK:
            self.total, self.block = self.result(), []

    def result(self) -> Tensor:
        """Like ``total``, of all steps."""
        if not self.block:
            return self.total
        values, finite = self._block()
        return self.total + torch.stack([values.sum(0), finite.sum(0)])

    def state(self) -> Tensor:
        """Float32 (2 + 2 k, n): ``total``, the k steps of the block with 0 for what is not finite, and whether it was."""
        return torch.cat([self.total, *self._block()]) if self.block else self.total

    @classmethod
    def of_state(cls, state: Tensor) -> Sums:
        """Undo :meth:`state`."""
        values, finite = state[2:].chunk(2) if len(state) > 2 else (state[2:], state[2:])
        return cls(state[:2], list(torch.where(finite > 0, values, math.nan)))

    def _block(self) -> tuple[Tensor, Tensor]:
        values = torch.stack(self.block).float()
        finite = torch.isfinite(values)
        return torch.where(finite, values, 0.0), finite.float()


class Writer:
    """Collects scalars on the device and writes their means every ``log_every`` steps: one wait for the device each time.

    What is not finite is left out of the means; how many updates were skipped for it is a column of its own.

    A run that resumes leaves what an uninterrupted one would: whatever lies beyond its checkpoint is dropped, and so are
    the last row and picture of a run that was to end there, if they were not on its schedule. Everything that depends on
    the clock is under ``time/``.

    Args:
        run_dir: where to write. config_text: shown in TensorBoard. progress: where the run stands.
        total_steps: where it ends. log_every: steps between rows.
        before: ``log_every`` and ``sample_every`` of the session that saved the checkpoint; None for a new run.
        guard: refuses a row with a value that is not finite.
        waited: seconds that the session has waited for data until now.
        told: hyper-parameters for TensorBoard's HParams tab. evaluated: names of the metrics that are evaluated.

    Attributes:
        earlier: the rows of earlier sessions.
    """

    def __init__(
        self,
        run_dir: Path,
        config_text: str,
        progress: Progress,
        *,
        total_steps: int,
        log_every: int,
        before: tuple[int, int] | None,
        guard: Guard,
        waited: Callable[[], float],
        told: Mapping[str, str | float] | None = None,
        evaluated: Sequence[str] = (),
    ) -> None:
        from torch.utils.tensorboard import SummaryWriter
        from tqdm import tqdm

        self.run_dir, self.progress = run_dir, progress
        self.log_every, self.total_steps = log_every, total_steps
        self.sums: dict[tuple[str, ...], Sums] = {}  # of the scalars of these keys
        (run_dir / "samples").mkdir(exist_ok=True)
        self._rewind_pictures(before)
        rows = self._rewind_rows(before)
        self.earlier, self.guard = rows, guard
        self.skipping = False  # whether updates were, as of the last row
        self.seen = dict.fromkeys(key for row in rows for key in row)  # all that was ever logged, in that order
        self.seconds = rows[-1].get("time/elapsed", 0.0) if rows else 0.0  # spent in earlier sessions
        self.file = open(run_dir / "metrics.jsonl", "a", encoding="utf-8")
        self.told, self.evaluated = told or {}, evaluated
        events = run_dir / "tensorboard"
        again = events.exists()
        events.mkdir(exist_ok=True)
        self.columns: list[str] = []
        self._to_hparams()
        for ended in events.glob(f"*{ENDED}"):  # it goes on
            ended.unlink()
        self.tensorboard = SummaryWriter(events, purge_step=progress.step if again else None)
        if before is None:
            self.tensorboard.add_text("config", "```yaml\n" + config_text + "\n```")
        elif rows and rows[-1]["step"] == progress.step:  # purged with what came after it
            self._to_tensorboard(rows[-1])
        self.bar = tqdm(
            total=total_steps,
            initial=progress.step,
            disable=not console.may_draw(),
            unit="step",
            dynamic_ncols=True,
            mininterval=0.5,
        )
        self.started = self.row_time = time.monotonic()
        self.row_images = progress.images
        self.waited, self.row_waited = waited, waited()
        self.first_step, self.line_time = progress.step, -math.inf

    def _rewind_rows(self, before: tuple[int, int] | None) -> list[dict[str, Any]]:
        """Keep the rows that an uninterrupted run would have by now."""
        rows = [row for row in read_rows(self.run_dir) if self._stays(row["step"], before and before[0])]
        write_file(self.run_dir / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
        return rows

    def _rewind_pictures(self, before: tuple[int, int] | None) -> None:
        for picture in (self.run_dir / "samples").glob("step-" + "[0-9]" * 8 + ".png"):
            if not self._stays(int(picture.stem.removeprefix("step-")), before and before[1]):
                picture.unlink()

    def _stays(self, step: int, every: int | None) -> bool:
        at_checkpoint = step == self.progress.step and every is not None and step % every == 0
        return step < self.progress.step or at_checkpoint

    @torch.no_grad()
    def add(self, logs: dict[str, Tensor]) -> None:
        """The logs of a step: scalars on any device."""
        keys, values = tuple(logs), torch.stack(list(logs.values()))
        if keys not in self.sums:
            self.sums[keys] = Sums(torch.zeros(2, len(keys), device=values.device))
        self.sums[keys].add(values)
        self.bar.update(1)

    def measure(self, scalars: Mapping[str, float]) -> None:
        """Scalars for the next row as they are, not as means over steps."""
        self.sums |= {(key,): Sums(torch.tensor([[value], [1.0]])) for key, value in scalars.items()}

    def state(self) -> dict[str, Tensor]:
        """The row that is not complete, for a checkpoint."""
        return {"\n".join(keys): sums.state() for keys, sums in self.sums.items()}

    def load_state(self, state: dict[str, Tensor], device: torch.device) -> None:
        """Undo :meth:`state`.

        Raises:
            CheckpointError: it is not such a state.
        """
        for keys, sums in state.items():
            if sums.dim() != 2 or len(sums) not in range(2, 2 + 2 * BLOCK, 2) or sums.shape[1] != len(keys.split("\n")):
                raise CheckpointError("the checkpoint's row of the log is not one", "log_sums", "Use another run_dir=")
        self.sums = {tuple(keys.split("\n")): Sums.of_state(sums.to(device)) for keys, sums in state.items()}

    def row(self, *, keep_sums: bool = False) -> dict[str, Any]:
        """Write a row with the means since the last one.

        Raises:
            DivergedError: one of them is not finite; nothing is written.
        """
        progress = self.progress
        totals: dict[str, tuple[float, float]] = {}
        for keys in sorted(self.sums):
            for key, total, count in zip(keys, *self.sums[keys].result().tolist(), strict=True):
                before = totals.get(key, (0.0, 0.0))
                totals[key] = before[0] + total, before[1] + count
        means = {key: total / count for key, (total, count) in sorted(totals.items()) if count}
        skipped = {key: means.pop(key, 0.0) for key in ("d/skipped", "g/skipped")}
        for key, share in skipped.items():
            if share:
                means[key] = share
                if not self.skipping:
                    who, last = key[0].upper(), progress.step
                    log.warning(
                        "warning: updates of %s up to step %d were skipped, not being finite: %.0f%%", who, last, 100 * share
                    )
        self.skipping = any(skipped.values())
        self.guard.refuse_non_finite(means, progress.step)
        if not keep_sums:
            self.sums = {}
        now = time.monotonic()
        seconds, waited = max(now - self.row_time, 1e-9), self.waited()
        row = {
            "step": progress.step,
            "images": progress.images,
            **means,
            "time/elapsed": round(self.seconds + now - self.started, 3),
            "time/images_per_second": round((progress.images - self.row_images) / seconds, 2),
            "time/data_wait": round((waited - self.row_waited) / seconds, 4),
        }
        self.row_time, self.row_images, self.row_waited = now, progress.images, waited
        self.seen |= dict.fromkeys([*row, *totals])
        self.file.write(json.dumps(row) + "\n")
        self.file.flush()
        self._to_tensorboard(row)
        self._to_hparams()
        self._show(row, now)
        return row

    def _to_hparams(self) -> None:
        """Tell TensorBoard the run's settings, and the metrics to put beside them, whenever there is one more of these."""
        columns = hparams.columns(self.seen, self.evaluated)
        if columns != self.columns:
            self.columns = columns
            hparams.write(self.run_dir / "tensorboard" / SESSION, hparams.beginning(self.told, columns, self.run_dir.name))

    def _to_tensorboard(self, row: dict[str, Any]) -> None:
        for key, value in row.items():
            if key != "step":
                self.tensorboard.add_scalar(key, value, row["step"])

    def _show(self, row: dict[str, Any], now: float) -> None:
        names = {"d/loss": "d", "g/loss": "g", "d/real": "D(x)", "d/fake": "D(G(z))", "d/wasserstein": "W"}
        shown = {label: f"{row[key]:.3f}" for key, label in names.items() if key in row}
        shown["img/s"] = f"{row['time/images_per_second']:.0f}"
        if not self.bar.disable:
            self.bar.set_postfix(shown, refresh=False)
        elif now - self.line_time >= LINE_SECONDS or row["step"] >= self.total_steps:
            self.line_time = now
            left = (self.total_steps - row["step"]) * (now - self.started) / max(row["step"] - self.first_step, 1)
            text = "  ".join(f"{k} {v}" for k, v in shown.items())
            log.info("step %d/%d  %s  ETA %s", row["step"], self.total_steps, text, clock(left))

    def picture(self, picture: Tensor) -> None:
        """``picture``: uint8 (C, H, W), written as ``samples/step-<8 digits>.png`` and to TensorBoard."""
        write_png(self.run_dir / "samples" / f"step-{self.progress.step:08d}.png", enlarge(picture))
        self.tensorboard.add_image("samples", picture, self.progress.step)

    def sync(self) -> None:
        """Bring what is written to the disk, before a checkpoint says that it is there."""
        os.fsync(self.file.fileno())
        self.tensorboard.flush()

    def ended(self, success: bool) -> None:
        """Tell TensorBoard how the run ended: in a file of its own, since what is once told there is not taken back."""
        from torch.utils.tensorboard import FileWriter

        events = FileWriter(str(self.run_dir / "tensorboard"), filename_suffix=ENDED)
        events.add_summary(hparams.ending(success), 0)
        events.close()

    def close(self) -> None:
        """End the files and the bar."""
        self.bar.close()
        self.file.close()
        self.tensorboard.close()
