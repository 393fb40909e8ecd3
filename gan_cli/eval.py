"""``gan-eval``: measure a trained generator. Not in this version yet."""

from __future__ import annotations

from typing import NoReturn

from omegaconf import DictConfig

from gan_cli import cli
from gan_cli.config import to_plain
from gan_cli.errors import GanError


def app(cfg: DictConfig) -> None:
    """Say so, and what can be done instead."""
    run_dir = to_plain(cfg)["run_dir"]
    todo = f"Until then judge the images of: gan-sample run_dir={run_dir} num_samples=10000 formats=[npz]"
    raise GanError("evaluation is not in this version yet", "gan-eval", todo)


def main() -> NoReturn:
    """Console script."""
    cli.run(app, "eval", "gan-eval")


if __name__ == "__main__":
    main()
