"""The notebook of docs/ runs from top to bottom, and the commands of the documents can be pasted into any shell."""

from __future__ import annotations

import json
import re
import shlex
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "docs" / "colab.ipynb"
TINY = {
    "gan-train": [
        "model.generator.width=8",
        "model.discriminator.width=8",
        "batch_size=8",
        "total_steps=100",
        "sample_every=50",
    ],
    "gan-sample": [],
    "gan-eval": ["features=classifier", "features.epochs=1"],  # other tests use the same classifier
}


def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gan: Callable[..., Any]) -> None:
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(not cell["outputs"] for cell in notebook["cells"] if cell["cell_type"] == "code")
    plt.switch_backend("agg")
    shown: list[str] = []
    display: Any = types.SimpleNamespace(Image=lambda filename, width: filename, display=shown.append)
    monkeypatch.setitem(
        sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: None, version_info=(9, 0), display=display)
    )
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    commands = []
    for cell in cells:
        lines = [line for line in cell.splitlines() if not line.startswith(("%", "!"))]
        for line in (line for line in cell.splitlines() if line.startswith("!gan-")):
            program, *words = shlex.split(line[1:])
            result = gan(program, *words, *TINY[program], "threads=1")
            assert result.code == 0, result.err
            commands.append(program)
        exec("\n".join(lines), names)
    assert commands == ["gan-train", "gan-sample", "gan-eval"]
    assert len(shown) == 3
    assert all(Path(picture).is_file() for picture in shown)
    assert len(names["rows"]) == 2


@pytest.mark.parametrize(
    "document", ["README.md", "CONTRIBUTING.md", *(f"docs/{path.name}" for path in ROOT.glob("docs/*.md"))]
)
def test_commands_can_be_pasted_into_any_shell(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8").replace("\\\n", "")
    commands = re.findall(r"(?m)^(?:    )?(?:\$ )?((?:gan-\w+|make|torchrun|tensorboard) (?!error:).*)$", text)
    commands += re.findall(r"`((?:gan-\w+|make|torchrun) [^`]+)`", text)
    for command in commands:
        bare = re.sub(r"""'[^']*'|"[^"]*\"""", "", command)
        assert not re.search(r"[\[\]*?#(){}<>^!~]", bare), f"zsh or fish refuses it, or reads a comment: {command}"
