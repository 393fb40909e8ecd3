"""The layout of the package: layers of imports, modules without torch, the size of the root."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from gan_cli.config import schema

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "gan_cli"
MAX_ROOT_MODULES = 14


def test_contracts_of_imports() -> None:
    pytest.importorskip("importlinter")
    code = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"  # disables loggers
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_root_is_small() -> None:
    modules = [path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__"]
    assert len(modules) <= MAX_ROOT_MODULES, modules


def targets(node: Any) -> list[str]:
    children = list(node.values()) if isinstance(node, dict) else node if isinstance(node, list) else []
    own = [node["_target_"]] if isinstance(node, dict) and isinstance(node.get("_target_"), str) else []
    return [*own, *(target for child in children for target in targets(child))]


@pytest.mark.parametrize("path", sorted((ROOT / "conf").rglob("*.yaml")), ids=lambda p: p.relative_to(ROOT / "conf").as_posix())
def test_every_target_resolves(path: Path) -> None:
    for target in targets(yaml.safe_load(path.read_text())):
        if target.startswith("gan_cli."):
            schema.parameters(target)
