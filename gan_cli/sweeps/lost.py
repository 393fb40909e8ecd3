"""Jobs whose process is gone: killed for lack of memory, or with its machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hydra.core.utils import JobReturn, JobStatus

from gan_cli.system.errors import PeerError

KINDS = {"BrokenExecutor", "UncompletedJobError"}  # of joblib and submitit, which need not be installed
LOST = "its process is gone: killed, for lack of memory perhaps"


class LostError(PeerError):
    """A worker was killed."""


def is_loss(error: BaseException) -> bool:
    """Whether a launcher says by it that a process of its own is gone."""
    return any(kind.__name__ in KINDS for kind in type(error).__mro__)


def as_failed(error: LostError) -> JobReturn:
    """What a launcher says of a job that failed."""
    end = JobReturn()
    end.status = JobStatus.FAILED
    end.return_value = error
    return end


@contextmanager
def as_failures() -> Iterator[None]:
    """Within this block a job that submitit lost is one that failed. By itself submitit would wait for no other one."""
    from submitit.core import core, utils

    before = core.Job.results

    def results(job: Any) -> list[Any]:
        try:
            return before(job)
        except utils.UncompletedJobError:
            return [as_failed(LostError(LOST, str(job.paths.stderr), "Repeat the command, which goes on with it"))]

    core.Job.results = results  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        core.Job.results = before  # type: ignore[method-assign]
