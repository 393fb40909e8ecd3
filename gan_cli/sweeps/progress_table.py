"""The jobs of a sweep while it runs: state, step, time left."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gan_cli.rundir import status
from gan_cli.system.locks import is_locked
from gan_cli.system.text import clock, short

log = logging.getLogger("gan_cli")
POLL_S = 2.0  # seconds between two looks at the jobs
SUMMARY_S = 600.0  # seconds after which a summary is logged though no state changed
TAIL_BYTES = 8192  # bytes at the end of metrics.jsonl that hold its last row
ENDED = ("complete", "diverged", "failed", "pruned")


@dataclass(frozen=True)
class Job:
    """A job as its files show it.

    Attributes:
        state: waiting (not begun), stopped (killed; it will be resumed), or that of its ``status.json``.
        step, total_steps: 0 if unknown. seconds: of training so far.
    """

    name: str
    state: str
    step: int = 0
    total_steps: int = 0
    seconds: float = 0.0

    @property
    def left(self) -> float | None:
        """Seconds until its end at the pace so far; None if the pace is unknown."""
        if self.state in ENDED:
            return 0.0
        return self.seconds / self.step * (self.total_steps - self.step) if self.step and self.seconds else None


def look(directory: Path, name: str) -> Job:
    """Read the state of a job from its directory."""
    path = directory / name
    found = status.read(path)
    if found is None:
        return Job(name, "waiting")
    state, total = str(found["state"]), found.get("total_steps")
    step, seconds = _last_row(path)
    if state == "running" and not is_locked(path):
        state = "stopped"
    if isinstance(found.get("step"), int) and state != "running":
        step = max(step, found["step"]) if state == "complete" else found["step"]
    return Job(name, state, step, total if isinstance(total, int) else 0, seconds)


def _last_row(path: Path) -> tuple[int, float]:
    """Step and seconds of training from the end of ``metrics.jsonl``; zeros if it cannot be read."""
    try:
        with open(path / "metrics.jsonl", "rb") as file:
            file.seek(max(0, file.seek(0, 2) - TAIL_BYTES))
            row = json.loads(file.read().splitlines()[-1])
        return int(row["step"]), float(row["time/elapsed"])
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return 0, 0.0


def remaining(jobs: Sequence[Job], more: int = 0) -> float | None:
    """Seconds until all have ended, as many at a time as run now; None if no job has a pace yet.

    ``more``: number of jobs that are not planned yet.
    """
    known = [job.seconds + job.left for job in jobs if job.left is not None and job.seconds]
    if not known:
        return None
    usual = sum(known) / len(known)
    lefts = [usual if job.left is None else job.left for job in jobs] + more * [usual]
    return max(sum(lefts) / max(1, sum(job.state == "running" for job in jobs)), *lefts)


def table(jobs: Sequence[Job]) -> list[str]:
    """A line for each job, below a header."""
    width = max([3, *(len(short(job.name, 70)) for job in jobs)])
    lines = [f"{'job':<{width}}  {'state':<9}  {'step':>13}  {'time':>8}  {'ETA':>8}"]
    for job in jobs:
        step = f"{job.step}/{job.total_steps}" if job.total_steps else "-"
        left = "-" if job.state in ENDED or job.left is None else clock(job.left)
        spent = clock(job.seconds) if job.seconds else "-"
        lines.append(f"{short(job.name, 70):<{width}}  {job.state:<9}  {step:>13}  {spent:>8}  {left:>8}")
    return lines


def summary(jobs: Sequence[Job], more: int = 0, *, over: bool = False) -> str:
    """``3 of 20 complete, 1 diverged, 2 running, ETA 12:01``. ``over``: without the time left."""
    counts = Counter(job.state for job in jobs)
    counts["to come"] = more
    done = counts.pop("complete", 0)
    left = None if over else remaining(jobs, more)
    others = [f", {count} {state}" for state, count in counts.items() if count]
    return f"{done} of {len(jobs) + more} complete{''.join(others)}{f', ETA {clock(left)}' if left else ''}"


class Watch:
    """Logs the table of jobs when it starts and stops, and a line when the state of a job changes.

    Attributes:
        names: of the jobs so far. failed: names of jobs that failed. expected: number of jobs there will be, if known.
    """

    def __init__(self, directory: Path, names: list[str]) -> None:
        self.directory, self.names, self.failed, self.expected = directory, names, set[str](), 0
        self.seen: dict[str, Job] = {}
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._poll, name="jobs of the sweep", daemon=True)

    def start(self) -> None:
        """Log the table and begin to look, if that was not done."""
        if not self.thread.is_alive():
            self._log_table()
            self.thread.start()

    def stop(self) -> None:
        """Log the table for the last time, if it was started."""
        self.over.set()
        if self.thread.is_alive():
            self.thread.join()
            self._log_table()

    def look(self) -> list[Job]:
        """The state of all jobs; that of a complete one is read once."""
        names = list(self.names)
        for name in names:
            if name not in self.seen or self.seen[name].state != "complete":
                job = look(self.directory, name)
                is_lost = job.state in ("waiting", "stopped") and name in self.failed
                self.seen[name] = replace(job, state="failed") if is_lost else job
        return [self.seen[name] for name in names]

    def _summary(self, jobs: Sequence[Job]) -> str:
        return summary(jobs, max(0, self.expected - len(jobs)), over=self.over.is_set())

    def _log_table(self) -> None:
        jobs = self.look()
        log.info("%s", "\n".join(["", *table(jobs), self._summary(jobs), ""]))

    def _poll(self) -> None:
        logged = time.monotonic()
        while not self.over.wait(POLL_S):
            before = {name: job.state for name, job in self.seen.items()}
            jobs = self.look()
            changed = [f"{short(job.name, 70)}: {job.state}; " for job in jobs if job.state != before.get(job.name, "waiting")]
            if changed or time.monotonic() - logged > SUMMARY_S:
                log.info("sweep: %s%s", "".join(changed), self._summary(jobs))
                logged = time.monotonic()
