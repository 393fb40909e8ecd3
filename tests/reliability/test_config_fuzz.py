"""Mutated overrides and YAML files: composed or refused with one line, nothing made, nothing executed, nothing hanging."""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from ..conftest import call  # type: ignore[import-not-found]
from .strangers import fresh_peak, peak  # type: ignore[import-not-found]

SOAK = "GAN_CLI_SOAK" in os.environ
CASES = [5_000] if SOAK else [6, pytest.param(60, marks=pytest.mark.slow)]
SECONDS, MEGABYTES = 5, 300
CONF = Path(str(resources.files("gan_cli.conf")))
GROUPS = {path.name: sorted(file.stem for file in path.glob("*.yaml")) for path in CONF.iterdir() if any(path.glob("*.yaml"))}
CANARY = "builtins.open(canary,w)", "os.system", "os.mkdir", "subprocess.run", "builtins.exec", "shutil.rmtree", "posix.system"
WORDS = [
    *["nan", "-nan", "inf", "-inf", "1e400", "-1", "0", "1e-400", "9" * 30, "9" * 5000, "0x10", "1_000", "1:30", "null"],
    *["???", "''", '""', "'", '"', "[", "]", "{", "}", "[]", "{}", "[[]]", "{a:{b:c}}", "[1,2,3]", "{a:1}", "{1:2}", "[null]"],
    *["a,b", "1,2,3", "range(1,4)", "range(1,1e12)", "choice(1,2)", "choice(", "interval(0,1)", "glob(*)", "shuffle(1,2)"],
    *["${seed}", "${nope}", "${optimizer.lr}", "${.}", "${..}", "${", "${}", "${oc.env:NOPE}", "${oc.env:HOME}", "${model}"],
    *["${oc.select:a,b}", "${oc.create:{a:1}}", "${oc.dict.keys:model}", "${hydra:job.name}", "${now:%Y}", "${nope:1}", "$x"],
    *["é", "日本", "\u202e", "\x1b[31m", "\t", "\\", "\\x", "a b", "a=b", "@", "#", "x" * 3000, "[" * 300, "[" * 99 + "]" * 99],
    *["{a:" * 99 + "1" + "}" * 99, "${" * 99, "../../x", "/dev/null", "~", "*", "&a", "!!python/name:os.system", "%s%n", "\0"],
]  # fmt: skip
YAML_LINES = [
    *["- a", "a", "3", "null", "{", "[", "? a", ": b", "a: b: c", "a: &x [*x]", "<<: 3", "*x", "&x"],
    *["!!python/object/apply:os.system [touch canary]", "_target_: os.system", "x: [" * 900, "k: " + "x" * 120_000],
    *["\ta: 1", "---", "...", "%YAML 9", "# @package a..b", "# @package", "defaults: 3", "defaults: [3]"],
    *["defaults: [_self_, _self_]", "defaults: [mutant]", "defaults: [{override /model: nope}]", "hydra: 3", "hydra: {run: 3}"],
    *["hydra: {searchpath: [x]}", "1: 2", "null: 3", "'': 3", "a.b: 3", "seed: !!binary aGk=", "seed: 2001-01-01", "seed: ${"],
    *["seed: " + "9" * 5000, "seed: ???", "{{a}}: 3", "é: 1", "# @package _global_.x"],
    "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "\n".join(f"{b}: &{b} [{','.join([f'*{a}'] * 10)}]" for a, b in pairwise("abcdefg")),
]  # fmt: skip


def keys() -> list[str]:
    """Every key of the default config and of some others."""
    from hydra import compose, initialize_config_module
    from omegaconf import OmegaConf

    from gan_cli.config.plain import flatten

    with initialize_config_module("gan_cli.conf", version_base="1.3"):
        configs = [compose("train", choice) for choice in ([], ["model=cyclegan", "loss=wgan_gp", "schedule=linear"])]
    found = {key for cfg in configs for key in flatten(OmegaConf.to_container(cfg, resolve=False))}
    return sorted(found | {key.rpartition(".")[0] for key in found if "." in key})


def value(draw: random.Random) -> str:
    if draw.random() < 0.1:
        return draw.choice(CANARY)
    if draw.random() < 0.1:
        return "".join(draw.choice("[]{}(),:=${}'\"\\ .~+-@!&*|>%#?aé0\n") for _ in range(draw.randrange(1, 12)))
    return "".join(draw.choice(WORDS) for _ in range(draw.choice([1, 1, 1, 1, 2, 3]))).replace("\0", "\\0")


def override(draw: random.Random, known: list[str]) -> str:
    if draw.random() < 0.25:
        group = draw.choice(list(GROUPS))
        return f"{draw.choice(['', '', '', '+', '++', '~'])}{group}={draw.choice([*GROUPS[group], value(draw)])}"
    key = draw.choice(known)
    if draw.random() < 0.15:
        at = draw.randrange(len(key) + 1)
        key = key[:at] + draw.choice(["", ".", "_", "x", "@", "[", "0", " ", "é", "/", ":"]) + key[at + draw.randrange(2) :]
    if draw.random() < 0.1:
        key += draw.choice(["._target_", ".x", "._args_", "._partial_", "._recursive_", "@x"])
    text = f"{draw.choice(['', '', '', '', '+', '++', '~'])}{key}={value(draw)}"
    return text if draw.random() < 0.95 else text.replace("=", draw.choice(["", "==", " = ", ":"]), 1)


def mutant(draw: random.Random, folder: Path) -> list[str]:
    """A shipped YAML with some lines or characters changed; the arguments that use it."""
    file = draw.choice(sorted(CONF.glob("*/*.yaml")))
    lines = file.read_text(encoding="utf-8").splitlines()
    for _ in range(draw.choice([1, 1, 2, 4])):
        at = draw.randrange(len(lines) + 1)
        kind = draw.random()
        if kind < 0.3:
            lines.insert(at, " " * draw.choice([0, 0, 2, 4]) + draw.choice(YAML_LINES))
        elif kind < 0.7 and at < len(lines) and ":" in lines[at]:
            lines[at] = f"{lines[at].partition(':')[0]}: {value(draw)}"
        elif at < len(lines):
            lines[at] = draw.choice(["", "  " + lines[at], lines[at].strip(), lines[at][: len(lines[at]) // 2], lines[at] * 2])
    content = bytearray("\n".join(lines), encoding="utf-8", errors="replace")
    for _ in range(draw.choice([0, 0, 0, 1, 3])):
        if content:
            content[draw.randrange(len(content))] = draw.randrange(256)
    target = folder / file.parent.name / "mutant.yaml"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)
    return ["--config-dir", folder.name, f"{file.parent.name}=mutant"]


@pytest.mark.parametrize("cases", CASES)
def test_mutated_configs(cases: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gan_cli.training.session.run", lambda *args, **keywords: None)
    draw, known, codes = random.Random(5), keys(), Counter[int]()
    call(tmp_path, "gan-train")
    slowest, before = 0.0, fresh_peak()
    for case in range(cases):
        cwd = tmp_path / str(case)
        cwd.mkdir()
        args = mutant(draw, cwd / "my") if case % 3 == 0 else [override(draw, known) for _ in range(draw.choice([1, 1, 2, 4]))]
        args = [arg.encode(errors="replace").decode() for arg in args]
        made = set(cwd.rglob("*"))
        start = time.process_time()
        result: Any = call(cwd, "gan-train", *args)
        slowest = max(slowest, time.process_time() - start)
        told = f"{case}: {args}\n{result.err[:2000]}"
        assert result.code in (0, 2), told
        assert "Traceback" not in result.err and slowest < SECONDS, told
        if result.code == 2:
            assert len(result.err.splitlines()) == 1 and result.err.startswith("gan-train: error: "), told
            assert len(result.err) < 20_000, told
        assert not [path for path in set(cwd.rglob("*")) - made if "__pycache__" not in path.parts], told
        codes[result.code] += 1
    grown = (peak() - before) / 1024
    assert grown < MEGABYTES and codes[0] > cases // 50 and codes[2] >= cases // 2
    print(f"{cases} mutated configs: {dict(codes)} by exit code, slowest {slowest:.1f} s, memory grew by {grown:.0f} MB")
