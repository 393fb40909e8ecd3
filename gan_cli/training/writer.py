"""Output of a run while it trains: metrics.jsonl, TensorBoard events, pictures, a progress bar or log lines."""

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
from torch.utils.tensorboard import FileWriter, SummaryWriter
from tqdm import tqdm

from gan_cli.images import enlarge, write_png
from gan_cli.rundir import evaluations, hparams
from gan_cli.rundir.metrics_log import read_rows
from gan_cli.system import console
from gan_cli.system.errors import CheckpointError
from gan_cli.system.files import write_file
from gan_cli.system.text import clock
from gan_cli.training import charts
from gan_cli.training.guard import Guard
from gan_cli.training.loop import Progress
from gan_cli.training.sums import BLOCK, Sums

log = logging.getLogger("gan_cli")
LINE_PERIOD_S = 10.0  # seconds between console lines when there is no terminal
BAR = "{n_fmt}/{total_fmt} <{remaining} {desc}"  # what is left comes first: a narrow terminal cuts the end
WARM_UP_STEPS = 4  # steps of a session that the estimate of its duration leaves out
ESTIMATE_STEPS = 20  # steps of a session after which its duration is estimated
# Event file of the hyper-parameters. It is the first one by name, since TensorBoard does not return to an earlier file.
SESSION = "events.out.tfevents.0.session"
ENDED = ".ended"  # suffix of the event file that records how the run ended


@dataclass(frozen=True)
class Options:
    """The settings of a writer.

    Attributes:
        total_steps: last step. log_every: steps between rows. config_text: YAML for TensorBoard.
        hparams: hyper-parameters for TensorBoard's HParams tab. evaluated: names of the metrics that are evaluated.
        protocol_id: of the evaluations. epoch_images: images of an epoch, the length of the training set.
        print_rows: print every row on the console.
        has_probabilities: whether ``d/real`` and ``d/fake`` are probabilities, D(x) and D(G(z)); else they are scores.
    """

    total_steps: int
    log_every: int
    config_text: str = ""
    hparams: Mapping[str, str | float] = field(default_factory=dict)
    evaluated: Sequence[str] = ()
    protocol_id: str | None = None
    epoch_images: int = 1
    print_rows: bool = False
    has_probabilities: bool = True


class Writer:
    """Collects scalars on the device and writes their means every ``log_every`` steps, with one synchronisation each time.

    Values that are not finite are left out of the means; the share of skipped updates is a column.

    Args:
        run_dir: directory of the run. progress: the counters of the run. options: see :class:`Options`.
        earlier: rows of earlier sessions. tensorboard: open event file.
        guard: refuses a row with a value that is not finite.
        waited: gives the seconds that the session has waited for data.
    """

    def __init__(
        self,
        run_dir: Path,
        progress: Progress,
        options: Options,
        earlier: list[dict[str, Any]],
        tensorboard: SummaryWriter,
        *,
        guard: Guard,
        waited: Callable[[], float],
    ) -> None:
        self.run_dir, self.progress, self.options = run_dir, progress, options
        self.earlier, self.tensorboard, self.guard, self.waited = earlier, tensorboard, guard, waited
        self.sums: dict[tuple[str, ...], Sums] = {}  # keys that are logged together -> their sums
        self.skipping = False  # whether the last row had skipped updates
        self.seen = dict.fromkeys(key for row in earlier for key in row)  # every key of a row so far, in order
        self.seconds = earlier[-1].get("time/elapsed", 0.0) if earlier else 0.0  # duration of earlier sessions
        self.columns: list[str] = []  # metrics in the HParams tab
        self.bar = tqdm(
            total=options.total_steps,
            initial=progress.step,
            disable=not console.may_draw(),
            unit="step",
            dynamic_ncols=True,
            mininterval=0.5,
            bar_format=BAR,
        )
        self.warm_time = 0.0  # time of step WARM_UP_STEPS of this session
        self.started = self.row_time = time.monotonic()
        self.row_images, self.row_waited = progress.images, waited()
        self.first_step, self.line_time = progress.step, -math.inf

    @classmethod
    def open(
        cls,
        run_dir: Path,
        progress: Progress,
        options: Options,
        *,
        guard: Guard,
        waited: Callable[[], float],
        before: tuple[int, int] | None = None,
    ) -> Writer:
        """Prepare the files of a run that begins or resumes.

        A run that resumes leaves what an uninterrupted one would. Rows and pictures beyond its checkpoint are dropped, and so
        are the last ones of a session that was to end there, if they were not on its schedule. What depends on the clock is
        under ``time/``.

        Args:
            before: ``log_every`` and ``sample_every`` of the session that saved the checkpoint; None for a new run.
            Others: see :class:`Writer`.
        """
        rows_every, pictures_every = before or (None, None)
        (run_dir / "samples").mkdir(exist_ok=True)
        for picture in (run_dir / "samples").glob("step-" + "[0-9]" * 8 + ".png"):
            if not _stays(int(picture.stem.removeprefix("step-")), progress.step, pictures_every):
                picture.unlink()
        rows = [row for row in read_rows(run_dir) if _stays(row["step"], progress.step, rows_every)]
        write_file(run_dir / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
        events = run_dir / "tensorboard"
        purge_step = progress.step if events.exists() else None
        events.mkdir(exist_ok=True)
        for ended in events.glob(f"*{ENDED}"):  # the run resumes
            ended.unlink()
        writer = cls(run_dir, progress, options, rows, SummaryWriter(events, purge_step=purge_step), guard=guard, waited=waited)
        writer._to_hparams()
        if before is None:
            writer.tensorboard.add_text("config", "```yaml\n" + options.config_text + "\n```")
        else:  # TensorBoard drops this step too
            if rows and rows[-1]["step"] == progress.step:
                writer._to_tensorboard(rows[-1])
            evaluations.to_tensorboard(run_dir, writer.tensorboard, progress.step, options.protocol_id)
        charts.describe(writer.tensorboard, has_probabilities=options.has_probabilities)
        return writer

    @torch.no_grad()
    def add(self, logs: dict[str, Tensor]) -> None:
        """Add the logs of a step: scalars on any device."""
        keys, values = tuple(logs), torch.stack(list(logs.values()))
        if keys not in self.sums:
            self.sums[keys] = Sums(torch.zeros(2, len(keys), device=values.device))
        self.sums[keys].add(values)
        self.bar.update(1)
        done = self.progress.step - self.first_step
        if done == WARM_UP_STEPS:
            self.warm_time = time.monotonic()
        elif done == ESTIMATE_STEPS:
            self._estimate((time.monotonic() - self.warm_time) / (ESTIMATE_STEPS - WARM_UP_STEPS))

    def _estimate(self, seconds_per_step: float) -> None:
        """Log how long the session will take, without pictures and evaluations."""
        left = self.options.total_steps - self.progress.step
        if left > 0:
            log.info(
                "time left: about %s for %s steps, at %.3g s per step",
                clock(left * seconds_per_step),
                f"{left:,}",
                seconds_per_step,
            )

    def measure(self, scalars: Mapping[str, float]) -> None:
        """Put scalars into the next row without averaging."""
        self.sums |= {(key,): Sums(torch.tensor([[value], [1.0]])) for key, value in scalars.items()}

    def state(self) -> dict[str, Tensor]:
        """The incomplete row, for a checkpoint."""
        return {"\n".join(keys): sums.state() for keys, sums in self.sums.items()}

    def load_state(self, state: dict[str, Tensor], device: torch.device) -> None:
        """Restore :meth:`state`.

        Raises:
            CheckpointError: the shapes are not those of such a state.
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
            "epoch": round(progress.images / self.options.epoch_images, 4),
            **means,
            "time/elapsed": round(self.seconds + now - self.started, 3),
            "time/images_per_second": round((progress.images - self.row_images) / seconds, 2),
            "time/data_wait": round((waited - self.row_waited) / seconds, 4),
        }
        self.row_time, self.row_images, self.row_waited = now, progress.images, waited
        self.seen |= dict.fromkeys([*row, *totals])
        self._append(row)
        self._to_tensorboard(row)
        self._to_hparams()
        self._show(row, now)
        return row

    def _append(self, row: dict[str, Any]) -> None:
        with open(self.run_dir / "metrics.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def _to_hparams(self) -> None:
        """Write the hyper-parameters and the metrics of TensorBoard's HParams tab, if there is a new metric."""
        columns = hparams.columns(self.seen, self.options.evaluated)
        if columns != self.columns:
            self.columns = columns
            summaries = hparams.beginning(self.options.hparams, columns, self.run_dir.name)
            hparams.write(self.run_dir / "tensorboard" / SESSION, summaries)

    def _to_tensorboard(self, row: dict[str, Any]) -> None:
        for key, value in row.items():
            if key != "step":
                self.tensorboard.add_scalar(key, value, row["step"])

    def _show(self, row: dict[str, Any], now: float) -> None:
        """Show a row in the bar or as a line. train.log has a line of every row."""
        options, labels = self.options, charts.labels(self.options.has_probabilities)
        speed = f"{row['time/images_per_second']:.0f}"
        if not self.bar.disable:
            values = [f"{label} {row[key]:.3g}" for key, label in labels.items() if key in row]
            self.bar.set_description_str(" ".join([f"{speed} images/s", *values]), refresh=False)
        shown = [*(f"{label} {row[key]:.3f}" for key, label in labels.items() if key in row), f"{speed} images/s"]
        is_due = self.bar.disable and (now - self.line_time >= LINE_PERIOD_S or row["step"] >= options.total_steps)
        if is_due:
            self.line_time = now
        left = (options.total_steps - row["step"]) * (now - self.started) / max(row["step"] - self.first_step, 1)
        text = f"step {row['step']}/{options.total_steps}  epoch {row['epoch']:.1f}  {'  '.join(shown)}  ETA {clock(left)}"
        log.info("%s", text, extra={console.ONLY_FILE: not (is_due or options.print_rows)})

    def picture(self, picture: Tensor) -> None:
        """``picture``: uint8 (C, H, W), written as ``samples/step-<8 digits>.png`` and to TensorBoard."""
        write_png(self.run_dir / "samples" / f"step-{self.progress.step:08d}.png", enlarge(picture))
        self.tensorboard.add_image("samples", picture, self.progress.step)

    def sync(self) -> None:
        """Bring what is written to the disk. Called before a checkpoint records that it is there."""
        with open(self.run_dir / "metrics.jsonl", "rb") as file:
            os.fsync(file.fileno())
        self.tensorboard.flush()

    def ended(self, success: bool) -> None:
        """Record in TensorBoard how the run ended: in a separate event file, because a status cannot be overwritten."""
        events = FileWriter(str(self.run_dir / "tensorboard"), filename_suffix=ENDED)
        events.add_summary(hparams.ending(success), 0)
        events.close()

    def close(self) -> None:
        """Close the event file and the bar."""
        self.bar.close()
        self.tensorboard.close()


def _stays(step: int, checkpoint_step: int, every: int | None) -> bool:
    """Whether an uninterrupted run has a row, or a picture, of this step. ``every``: steps between them then."""
    return step < checkpoint_step or (step == checkpoint_step and every is not None and step % every == 0)
