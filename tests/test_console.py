"""Output of commands, alone and as jobs of a sweep that share a console."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Callable, Iterator

import pytest

from gan_cli.system import console


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def begin(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Terminal]]:
    """Set up the output to a terminal of a job, or "" for a single command."""

    def begin(job: str) -> Terminal:
        monkeypatch.setattr(sys, "stderr", Terminal())
        console.setup(logging.INFO, job)
        return sys.stderr  # type: ignore[return-value]

    yield begin
    console.setup(logging.INFO)


def test_a_job_that_shares_it_says_who_speaks_and_only_what_matters(begin: Callable[[str], Terminal]) -> None:
    terminal = begin("loss=hinge")
    log = logging.getLogger("gan_cli")
    log.info("generator: 3 parameters")
    log.log(console.NOTICE, "Downloading it")
    log.warning("warning: it is late")
    console.write("gan-train: error: it is lost")
    lines = terminal.getvalue().replace(console.CLEAR_BELOW, "").splitlines()
    assert lines == [
        "loss=hinge: Downloading it",
        "loss=hinge: warning: it is late",
        "loss=hinge: gan-train: error: it is lost",
    ]


def test_alone_it_says_everything(begin: Callable[[str], Terminal]) -> None:
    terminal = begin("")
    logging.getLogger("gan_cli").info("generator: 3 parameters")
    assert terminal.getvalue().endswith("generator: 3 parameters\n")


def test_jobs_elsewhere_draw_no_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.delenv("GAN_CLI_SWEEP", raising=False)
    assert console.may_draw()
    monkeypatch.setenv("GAN_CLI_SWEEP", "elsewhere:1")
    assert not console.may_draw()
    monkeypatch.delenv("GAN_CLI_SWEEP")
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert not console.may_draw()
