"""The jobs of a sweep while it runs: state, step, time left."""

from __future__ import annotations

import json
import logging
import math
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gan_cli.rundir import status
from gan_cli.system.locks import is_locked
from gan_cli.system.text import short

log = logging.getLogger("gan_cli")
LOOK, FULL = 2.0, 60.0  # seconds between looks; at most one whole table in this time
EVERY = 600.0  # seconds after which there is a table even if no job began or ended
TAIL = 8192  # bytes at the end of metrics.jsonl that hold its last row
ENDED = ("complete", "diverged", "failed", "pruned")


@dataclass(frozen=True)
class Job:
    """A job as it is on disk.

    Attributes:
        state: waiting (not begun), stopped (killed; it will be continued), or that of its ``status.json``.
        step, total_steps: where it is; 0 if that is not known. seconds: of training so far.
    """

    name: str
    state: str
    step: int = 0
    total_steps: int = 0
    seconds: float = 0.0
    message: str = ""

    @property
    def left(self) -> float | None:
        """Seconds until its end at the pace so far; None as long as that is not known."""
        if self.state in ENDED:
            return 0.0
        return self.seconds / self.step * (self.total_steps - self.step) if self.step and self.seconds else None


def look(directory: Path, name: str) -> Job:
    """Read what a job's directory says."""
    path = directory / name
    told = status.read(path)
    if told is None:
        return Job(name, "waiting")
    state, total = str(told["state"]), told.get("total_steps")
    step, seconds = _last_row(path)
    if state == "running" and not is_locked(path):
        state = "stopped"
    if isinstance(told.get("step"), int) and state != "running":
        step = max(step, told["step"]) if state == "complete" else told["step"]
    return Job(name, state, step, total if isinstance(total, int) else 0, seconds, str(told.get("message") or ""))


def _last_row(path: Path) -> tuple[int, float]:
    """Step and seconds of training, from the end of the file."""
    try:
        with open(path / "metrics.jsonl", "rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - TAIL))
            row = json.loads(file.read().splitlines()[-1])
        return int(row["step"]), float(row["time/elapsed"])
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return 0, 0.0


def remaining(jobs: Sequence[Job], side_by_side: int, more: int = 0) -> float | None:
    """Seconds until all have ended, or None as long as nobody knows how long one takes. ``more``: that are not planned yet."""
    known = [job.seconds + job.left for job in jobs if job.left is not None and job.seconds]
    if not known:
        return 0.0 if not more and all(job.state in ENDED for job in jobs) else None
    usual = sum(known) / len(known)
    lefts = [job.left if job.left is not None else usual for job in jobs] + more * [usual]
    return max(sum(lefts) / max(side_by_side, 1), max(lefts, default=0.0))


def clock(seconds: float | None) -> str:
    """``1:02:03``, ``2:03``, or ``-`` for None."""
    if seconds is None or not math.isfinite(seconds):
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def table(jobs: Sequence[Job]) -> list[str]:
    """A line for each job."""
    width = max([3, *(len(short(job.name, 70)) for job in jobs)])
    lines = [f"{'job':<{width}}  {'state':<9}  {'step':>13}  {'time':>8}  {'ETA':>8}"]
    for job in jobs:
        step = f"{job.step}/{job.total_steps}" if job.total_steps else "-"
        left = "-" if job.state in ENDED else clock(job.left)
        time_spent = clock(job.seconds) if job.seconds else "-"
        lines.append(f"{short(job.name, 70):<{width}}  {job.state:<9}  {step:>13}  {time_spent:>8}  {left:>8}")
    return lines


def summary(jobs: Sequence[Job], side_by_side: int, more: int = 0, *, over: bool = False) -> str:
    """``3 of 20 complete, 1 diverged, 2 running, ETA 12:01``. ``more``: that are not planned yet; ``over``: no ETA."""
    counts = {state: sum(job.state == state for job in jobs) for state in dict.fromkeys(job.state for job in jobs)}
    done = counts.pop("complete", 0)
    if more:
        counts["to come"] = more
    rest = "".join(f", {n} {state}" for state, n in counts.items())
    left = None if over else remaining(jobs, side_by_side, more)
    eta = f", ETA {clock(left)}" if left else ""
    return f"{done} of {len(jobs) + more} complete{rest}{eta}"


class Bars:
    """On a terminal: a line for the sweep and a bar for each job that runs, below what is printed."""

    def __init__(self) -> None:
        from tqdm import tqdm

        self.new = tqdm
        self.sweep = tqdm(bar_format="{desc}", leave=False)
        self.jobs: dict[str, Any] = {}

    def show(self, jobs: Sequence[Job], summary: str) -> None:
        """Draw them anew."""
        running = {job.name: job for job in jobs if job.state == "running"}
        for name in self.jobs.keys() - running.keys():
            self.jobs.pop(name).close()
        self.sweep.set_description_str(summary)
        for name, job in running.items():
            if name not in self.jobs:
                layout = "{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}{postfix}"
                self.jobs[name] = self.new(total=job.total_steps, desc=short(name, 60), bar_format=layout, leave=False)
            bar = self.jobs[name]
            bar.n, bar.total = job.step, job.total_steps
            bar.set_postfix_str(f"ETA {clock(job.left)}")

    def close(self) -> None:
        """Remove them."""
        for bar in [*self.jobs.values(), self.sweep]:
            bar.close()


class Watch:
    """Prints what becomes of the jobs while a launcher runs them.

    Args:
        directory: of the sweep. names: of its jobs, which may grow. apart: the jobs run in other processes, which leave the
            console to this one. says: nor can they say here why they failed.

    Attributes:
        failed: what jobs ended with that left nothing on disk. expected: how many jobs there will be, if more than now.
        said: names of jobs whose failure was.
    """

    expected = 0

    def __init__(self, directory: Path, names: list[str], *, apart: bool = False, says: bool = False) -> None:
        self.directory, self.names = directory, names
        self.apart, self.says = apart, says
        self.said: set[str] = set()
        self.bars: Bars | None = None
        self.seen: dict[str, Job] = {}
        self.failed: dict[str, str] = {}
        self.over = threading.Event()
        self.shown = -math.inf
        self.thread = threading.Thread(target=self._keep_looking, name="jobs of the sweep", daemon=True)

    def start(self) -> None:
        """Print the table, and go on looking. Once more: nothing new."""
        if not self.thread.is_alive():
            jobs = self._look()
            self.seen = {job.name: job for job in jobs}
            self.show(jobs)
            self.bars = Bars() if self.apart and sys.stderr.isatty() else None
            self.thread.start()

    def stop(self) -> None:
        """Print the table for the last time, if it was begun."""
        self.over.set()
        if self.thread.is_alive():
            self.thread.join()
            if self.bars is not None:
                self.bars.close()
            self.show(self._look())

    def show(self, jobs: Sequence[Job]) -> None:
        """The whole table."""
        self.shown = time.monotonic()
        log.info("%s", "\n".join(["", *table(jobs), self._summary(jobs), ""]))

    def _summary(self, jobs: Sequence[Job]) -> str:
        side_by_side, more = sum(job.state == "running" for job in jobs), self.expected - len(jobs)
        return summary(jobs, max(1, side_by_side), max(0, more), over=self.over.is_set())

    def _look(self) -> list[Job]:
        jobs = []
        for name in list(self.names):
            job = self.seen.get(name)
            if job is None or job.state != "complete":
                job = look(self.directory, name)
            if job.state in ("waiting", "stopped") and name in self.failed:
                job = replace(job, state="failed", message=self.failed[name])
            jobs.append(job)
        return jobs

    def _keep_looking(self) -> None:
        while not self.over.wait(LOOK):
            jobs = self._look()
            changed = [job for job in jobs if job.state != getattr(self.seen.get(job.name), "state", "waiting")]
            self.seen = {job.name: job for job in jobs}
            since = time.monotonic() - self.shown
            if (changed and since > FULL) or (self.apart and self.bars is None and since > EVERY):
                self.show(jobs)
            elif changed:
                what = "; ".join(f"{short(job.name, 70)}: {job.state}" for job in changed)
                log.info("sweep: %s (%s)", what, self._summary(jobs))
            for job in changed:
                if self.says and job.message and job.state in ENDED:
                    log.info("%s: %s", job.name, job.message)
                    self.said.add(job.name)
            if self.bars is not None:
                self.bars.show(jobs, self._summary(jobs))
