"""gan_cli: train, sample and evaluate generative adversarial networks from composable configs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gan_cli.system.version import __version__

__all__ = ["Run", "__version__", "load_run"]

if TYPE_CHECKING:
    from gan_cli.rundir.reload import Run, load_run


def __getattr__(name: str) -> Any:  # delays the import of torch
    if name in ("Run", "load_run"):
        from gan_cli.rundir import reload

        return getattr(reload, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
