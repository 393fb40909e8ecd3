"""The sweepers, where Hydra finds them. Imported at every start, so it imports their modules only when they run."""

# No `from __future__ import annotations`: Hydra executes this file before it is in sys.modules.
from typing import TYPE_CHECKING, Any

from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

if TYPE_CHECKING:
    from gan_cli.sweeps.jobs import Jobs


class Configured(Sweeper):
    """Keeps what Hydra hands over. ``options``: of the config, by key."""

    def __init__(self, **options: Any) -> None:
        self.options = options

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep Hydra's arguments."""
        self.hydra = hydra_context, task_function, config

    def jobs(self) -> "Jobs":
        """The jobs of the sweep, none of them planned yet."""
        from gan_cli.sweeps.jobs import Jobs

        return Jobs(*self.hydra)


class GridSweeper(Configured):
    """Every combination of values. ``params``: values by key, as in conf/sweep/."""

    def sweep(self, arguments: list[str]) -> Any:
        """See :func:`gan_cli.sweeps.grid.sweep`."""
        from gan_cli.sweeps import grid

        return grid.sweep(self.jobs(), self.options.get("params") or {}, arguments)


class OptunaSweeper(Configured):
    """A search by Optuna; the options are those of conf/hydra/sweeper/optuna.yaml."""

    def sweep(self, arguments: list[str]) -> Any:
        """See :func:`gan_cli.sweeps.search.sweep`."""
        from gan_cli.sweeps import search

        return search.sweep(self.jobs(), self.options, arguments)
