"""Output of commands, alone and as jobs of a sweep that share a console."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

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


def test_jobs_of_a_sweep_say_what_they_share_once(gan: Any, tmp_path: Path) -> None:
    tiny = ["model=mlp", "model.generator.hidden=8", "model.discriminator.hidden=8", "total_steps=1", "threads=1"]
    said = gan("gan-train", "-m", "seed=0,1", *tiny, "hydra.sweep.dir=s").err
    assert said.count("generator:") == 1
    assert said.count("run directory:") == 2
    assert all("generator:" in log.read_text() for log in (tmp_path / "s").glob("*/train.log"))
    assert "generator:" in gan("gan-train", *tiny, "run_dir=r").err


def test_rows_are_in_the_log_and_on_the_console_if_asked(gan: Any, tmp_path: Path) -> None:
    networks = ["model=mlp", "model.generator.hidden=8", "model.discriminator.hidden=8"]
    tiny = [*networks, "total_steps=30", "log_every=10", "threads=1"]
    for extra, shown in (([], 2), (["print_rows=true"], 3)):
        said = gan("gan-train", *tiny, *extra, f"run_dir=r{shown}").err
        assert said.count("D(x)") == shown
        assert (tmp_path / f"r{shown}" / "train.log").read_text().count("D(x)") == 3
        assert said.count("time left:") == 1
    assert "D(x)" not in gan("gan-train", *tiny, "loss=hinge", "run_dir=h").err
