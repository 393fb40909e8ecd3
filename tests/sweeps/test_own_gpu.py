"""Several jobs at a time on a machine with several GPUs: the choice of one, with a simulated driver."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from gan_cli.sweeps import jobs, worker_processes


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers that CUDA gets, on a machine with two GPUs."""
    found: list[int] = []
    monkeypatch.setenv("GAN_CLI_SWEEP", "elsewhere:1")
    monkeypatch.setattr(worker_processes.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", found.append)
    return found


def test_each_job_takes_one_that_is_free(chosen: list[int], tmp_path: Path) -> None:
    first, second = (worker_processes.own_gpu(tmp_path, device, 7) for device in ("auto", "cuda"))
    with first, second, worker_processes.own_gpu(tmp_path, "auto", 9):  # none is free: it shares one
        pass
    with worker_processes.own_gpu(tmp_path, "auto", 10):
        pass
    assert chosen == [0, 1, 9 % 2, 0]


def test_a_job_without_a_choice_takes_none(chosen: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with worker_processes.own_gpu(tmp_path, "cpu", 0):
        pass
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with worker_processes.own_gpu(tmp_path, "auto", 0):
        pass
    monkeypatch.delenv("GAN_CLI_SWEEP")  # in the process that sweeps
    with worker_processes.own_gpu(tmp_path, "auto", 0):
        pass
    assert not chosen and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("given", "device", "count", "expected"), [(-1, "auto", 2, 2), (-1, "cpu", 2, -1), (-1, "auto", 0, -1), (6, "auto", 2, 6)]
)
def test_as_many_jobs_as_gpus(given: int, device: str, count: int, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from omegaconf import OmegaConf

    launcher = {"_target_": "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher", "n_jobs": given}
    hydra: Any = None
    config = OmegaConf.create({"hydra": {"launcher": launcher}, "device": device})
    monkeypatch.setattr(jobs, "gpus", lambda: count)
    jobs.Jobs(hydra, hydra, config).set_workers()
    assert config.hydra.launcher.n_jobs == expected
