"""Searches whose study is in memory: a database takes most of the time of a search without trainings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def storages(monkeypatch: pytest.MonkeyPatch) -> dict[Path, Any]:
    """The storages of all searches of this process, by the absolute directory of the sweep."""
    from optuna.storages import InMemoryStorage

    made: dict[Path, Any] = {}
    monkeypatch.setattr(
        "gan_cli.sweeps.study.open_storage",
        lambda options, sweep_dir: made.setdefault(sweep_dir.absolute(), InMemoryStorage()),
    )
    return made
