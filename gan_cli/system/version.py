"""The version of gan_cli."""

from __future__ import annotations

import shlex
from functools import cache
from pathlib import Path

__version__ = "0.1.0"


@cache
def commit() -> str | None:
    """First 12 hex digits of the commit, if gan_cli is used from a checkout of its repository; else None."""
    git = Path(__file__).parents[2] / ".git"
    try:
        if git.is_file():  # a worktree of git
            git = git.parent / git.read_text().removeprefix("gitdir:").strip()
        head = (git / "HEAD").read_text().strip()
        if head.startswith("ref: "):
            common = git / (git / "commondir").read_text().strip() if (git / "commondir").exists() else git
            name = head.removeprefix("ref: ")
            packed = [] if (common / name).exists() else (common / "packed-refs").read_text().splitlines()
            head = next((line.split()[0] for line in packed if line.endswith(f" {name}")), "") or (common / name).read_text()
    except (OSError, UnicodeDecodeError):
        return None
    return head[:12]


def install_command(extra: str) -> str:
    """The command that installs the packages of an extra of gan_cli, wherever gan_cli itself came from."""
    from importlib.metadata import requires  # slow to import

    lines = [line.partition(";") for line in requires("gan_cli") or []]
    packages = [package.strip() for package, _, condition in lines if extra in condition.replace("'", '"').split('"')]
    return shlex.join(["pip", "install", *packages])


def version() -> str:
    """Version and commit: ``0.1.0 (commit 0123456789ab)``."""
    return __version__ + (f" (commit {commit()})" if commit() else "")
