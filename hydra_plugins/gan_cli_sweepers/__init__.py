"""Where Hydra looks for sweepers. Imported at every start, so it loads what they are made of only when one is built."""

# No `from __future__ import annotations`: Hydra runs this before it is among the modules.
from typing import Any

from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class GridSweeper(Sweeper):
    """See :class:`gan_cli.sweeps.grid.Grid`."""

    def __init__(self, **options: Any) -> None:
        from gan_cli.sweeps.grid import Grid

        self.sweeper: Any = Grid(**options)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra."""
        self.sweeper.setup(hydra_context, task_function, config)

    def sweep(self, arguments: list[str]) -> Any:
        """Called by Hydra with the overrides of the command line."""
        return self.sweeper.sweep(arguments)


class OptunaSweeper(Sweeper):
    """See :class:`gan_cli.sweeps.search.OptunaSearch`."""

    def __init__(self, **options: Any) -> None:
        from gan_cli.sweeps.search import OptunaSearch

        self.sweeper: Any = OptunaSearch(**options)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra."""
        self.sweeper.setup(hydra_context, task_function, config)

    def sweep(self, arguments: list[str]) -> Any:
        """Called by Hydra with the overrides of the command line."""
        return self.sweeper.sweep(arguments)
