"""Where Hydra looks for sweepers. Imported at every start, so it loads what they are made of only when one is built."""

# No `from __future__ import annotations`: Hydra runs this before it is among the modules.
from abc import abstractmethod
from typing import Any

from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class Late(Sweeper):
    """Hands everything on to a sweeper of :mod:`gan_cli.sweeps`."""

    def __init__(self, **options: Any) -> None:
        self.sweeper = self.made(options)

    @abstractmethod
    def made(self, options: dict[str, Any]) -> Any:
        """That sweeper."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra."""
        self.sweeper.setup(hydra_context, task_function, config)

    def sweep(self, arguments: list[str]) -> Any:
        """Called by Hydra with the overrides of the command line."""
        return self.sweeper.sweep(arguments)


class GridSweeper(Late):
    """See :class:`gan_cli.sweeps.grid.Grid`."""

    def made(self, options: dict[str, Any]) -> Any:
        """That sweeper."""
        from gan_cli.sweeps.grid import Grid

        return Grid(**options)


class OptunaSweeper(Late):
    """See :class:`gan_cli.sweeps.search.OptunaSearch`."""

    def made(self, options: dict[str, Any]) -> Any:
        """That sweeper."""
        from gan_cli.sweeps.search import OptunaSearch

        return OptunaSearch(**options)
