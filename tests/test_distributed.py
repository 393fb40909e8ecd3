"""Several processes train as one does: the same data, and weights that differ by rounding."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from .conftest import TINY, Reader  # type: ignore[import-not-found]
from .several import train_all  # type: ignore[import-not-found]
from .test_presets import PRESETS, tiny  # type: ignore[import-not-found]

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
EVERY = ["batch_size=4", "total_steps=6", "log_every=1", "save_every=6", "sample_every=6", "gif=false"]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> Path:
    """Every preset, trained by one process and by two."""
    home = tmp_path_factory.mktemp("pairs")
    runs = {}
    for preset in PRESETS:
        args = [arg for arg in tiny(preset, data_root) if not arg.startswith("batch_size=")]
        runs[preset] = [f"experiment={preset}", *args, *EVERY]
    (home / "runs.json").write_text(json.dumps(runs))
    command = [*TORCHRUN, str(Path(__file__).with_name("several.py")), "runs.json", "two"]
    with subprocess.Popen(command, cwd=home, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as two:
        here = os.getcwd()
        os.chdir(home)
        try:
            train_all(runs, "one")
        finally:
            os.chdir(here)
            said, _ = two.communicate(timeout=300)
    assert two.returncode == 0, said.decode()
    print(said.decode()[-2000:])
    return home


def test_measure(pairs) -> None:
    R = Reader
    home = pairs
    for p in PRESETS:
        a, b = R.rows(home/f"{p}-one"), R.rows(home/f"{p}-two")
        worst = max((abs(x[k]-y[k])/max(abs(x[k]),1e-2), k, x["step"]) for x,y in zip(a,b) for k in x)
        one = np.load(home/f"{p}-one.0.npz"); two=[np.load(home/f"{p}-two.{k}.npz") for k in range(2)]
        same = one.files==two[0].files and all(np.array_equal(one[f], np.concatenate([t[f] for t in two])) for f in one.files)
        x, y = R.tensors(home/f"{p}-one"), R.tensors(home/f"{p}-two")
        assert x.keys()==y.keys()
        w = sorted(((float(np.abs(x[k].astype(float)-y[k]).max()), float(np.abs(x[k].astype(float)).max()), k) for k in x if x[k].size), reverse=True)
        wt = [v for v in w if not v[2].startswith(("optimizer","log_sums"))][:2]
        print(f"{p:24s} rows {worst[0]:.1e} {worst[1]}@{worst[2]} data {same} weights", *[f"{d:.1e}/{m:.2g} {k}" for d,m,k in wt])
    assert 0
