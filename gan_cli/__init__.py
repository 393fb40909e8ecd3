"""gan_cli: train, sample and evaluate generative adversarial networks from composable configs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Run", "load_run"]

if TYPE_CHECKING:
    from gan_cli.runs import Run, load_run


def __getattr__(name: str) -> Any:  # torch is imported only when it is needed
    if name in __all__:
        from gan_cli import runs

        return getattr(runs, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
