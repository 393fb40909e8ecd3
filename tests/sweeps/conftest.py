"""Searches whose study is in memory: a database takes most of the time of a search without trainings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def storages() -> Iterator[dict[Path, Any]]:
    """The storages of all searches of this process, by the absolute directory of the sweep."""
    from optuna.storages import InMemoryStorage

    made: dict[Path, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "gan_cli.sweeps.study.open_storage",
            lambda options, sweep_dir: made.setdefault(sweep_dir.absolute(), InMemoryStorage()),
        )
        yield made
