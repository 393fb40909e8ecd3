"""Searches whose storage does not wait for the disk."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    connect = sqlite3.connect

    def quick(*args: Any, **keywords: Any) -> sqlite3.Connection:
        connection = connect(*args, **keywords)
        if "damaged" not in str(args[0]):
            connection.execute("PRAGMA synchronous=OFF")
        return connection

    monkeypatch.setattr(sqlite3, "connect", quick)


@pytest.fixture(params=["in memory", pytest.param("in a file", marks=pytest.mark.slow)])
def storage(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of searches. In memory it spares the tables of a database, which take most of the time of a search without trainings."""
    from optuna.storages import InMemoryStorage

    made: dict[Path, InMemoryStorage] = {}
    if request.param == "in memory":
        monkeypatch.setattr(
            "gan_cli.sweeps.search.open_storage", lambda options, sweep_dir: made.setdefault(sweep_dir, InMemoryStorage())
        )
