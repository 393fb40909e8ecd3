"""Every item of the state that is missing from a checkpoint is detected."""

from __future__ import annotations

import json
import random
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .conftest import KINDS, SOAK  # type: ignore[import-not-found]

STEP, LATER = (13, 15) if SOAK else (4, 6)  # steps with a row and a picture between them
EACH = 10_000 if SOAK else 1  # maximum number of tensors of each group
SOME = tuple(KINDS) if SOAK else ("spectral norm", "cyclegan")
some_kinds = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == SOME[0] else pytest.mark.slow) for name in SOME]
)
Item = tuple[str, ...]  # ("tensors", group, key), or ("info", key) or ("info", key, key)

# Data that a resumed run does not need: it is written for people and other programs.
NOT_NEEDED = {"versions": "read by nobody", "class_names": "the data set says it again"}


def items(tensors: Any, info: Any) -> Iterator[Item]:
    """All items of a checkpoint."""
    for group, values in tensors.items():
        yield from (("tensors", group, key) for key in values)
    for key, value in info.items():
        if key == "step":
            continue  # the name of the directory has it too, and must agree
        yield "info", key
        if key in ("optimizer_scalars", "skipped", "machine"):
            yield from (("info", key, inner) for inner in value)


def chosen(everything: list[Item], seed: str) -> list[Item]:
    """All items, or a few of each group of tensors; all plain data for the first kind."""
    groups = sorted({item[:2] for item in everything if item[0] == "tensors"})
    found = [item for item in everything if item[0] == "info" and (SOAK or seed == SOME[0])]
    for group in groups:
        members = [item for item in everything if item[:2] == group]
        found += random.Random(f"{seed} {group}").sample(members, min(EACH, len(members)))
    return found


def fresh(kind: Any) -> tuple[Any, Any]:
    """The checkpoint of a run of this kind before its first step."""
    from gan_cli.training.build import build_game
    from gan_cli.training.state import snapshot

    game = build_game(kind.config, None)
    game.batches.close()
    tensors, info = snapshot(game)
    return tensors, {**info, "config": kind.config.as_dict()}


def overwritten(config: Any) -> dict[str, str]:
    """Items that are overwritten before they are read, so that their saved value has no effect; and the reason."""
    found = {
        r"generator_ema/.*num_batches_tracked": "the average copies it from the generator after every step",
        r"generator_ema/.*\._[uv]": "the same",
        r"generator/last\.parametrizations\.weight\.0\._v": "of a matrix of one row, found in one power iteration",
        r".*parametrizations\.\w+\.0\._u": "torch's power iteration begins with _v and makes _u from it",
    }
    if config.ema["half_life"] == 0:
        found[r"generator_ema/.*"] = "the average is a copy, made after every step"
    if config.optimizer.get("betas", [1])[0] == 0:
        found[r"optimizer_\w+/.*\.exp_avg"] = "a mean over the last gradient alone, made in every update"
    if config.loss["constraint"] is not None:
        found[r"discriminator/layers\.3\.bias"] = (
            "the last one of a Wasserstein critic has no gradient: clipping alone decides it"
        )
    return found


def outcome(kind: Any, run: Path, stop_at: Any) -> tuple[str, list[str]]:
    """``refused``, or the differences at ``LATER`` of the run resumed from ``STEP``, and the notes in its log."""
    from gan_cli.rundir import checkpoint
    from gan_cli.system.errors import CheckpointError

    log = run / "train.log"
    log.unlink()
    try:
        checkpoint.load(run, STEP)  # otherwise it would resume from the previous checkpoint
        stop_at(LATER, signal.SIGTERM)
        assert f"stopped at step {LATER}" in kind.train(run)
    except CheckpointError as error:
        return f"refused: {error}", []
    except Exception as error:
        return f"TRACEBACK: {type(error).__name__}: {error}", []
    notes = [line for line in log.read_text().splitlines() if "note: " in line]
    return ", ".join(kind.lost(run, LATER)), notes


@some_kinds
def test_nothing_taken_out_goes_on_as_if_it_were_there(name: str, kinds: Any, forge: Any, stop_at: Any, tmp_path: Path) -> None:
    kind = kinds(name)
    found: list[Item] = []

    def take_out(tensors: Any, info: Any) -> None:
        place: Any = {"tensors": tensors, "info": info}
        for key in item[:-1]:
            place = place[key]
        del place[item[-1]]

    saved = forge(kind, tmp_path / "as it is", STEP, lambda t, i: found.extend(items(t, i)))
    assert outcome(kind, saved, stop_at) == ("", [])
    everything, unnoticed = chosen(found, name), []
    for k, item in enumerate(everything):
        run = forge(kind, tmp_path / str(k), STEP, take_out)
        result, notes = outcome(kind, run, stop_at)
        shutil.rmtree(run)
        if not (result.startswith("refused: ") or notes or (item[-1] in NOT_NEEDED and result == "")):
            unnoticed.append((item, result))
    print(f"mutation: {name}: {len(everything) - len(unnoticed)} of {len(everything)} items missing, noticed")
    assert unnoticed == []


@some_kinds
@pytest.mark.slow
def test_nothing_is_saved_in_vain(name: str, kinds: Any, forge: Any, stop_at: Any, tmp_path: Path) -> None:
    import torch

    kind = kinds(name)
    new_tensors, new_info = fresh(kind)
    skipped: dict[str, list[Item]] = {}
    found: list[Item] = []

    def anew(tensors: Any, info: Any) -> None:
        nonlocal same
        if item[0] == "tensors":
            _, group, key = item
            before = tensors[group][key]
            after = new_tensors.get(group, {}).get(key, torch.zeros_like(before)).detach().contiguous()
            tensors[group][key], same = after, torch.equal(before, after)
        else:
            place, new = (info, new_info) if len(item) == 2 else (info[item[1]], new_info[item[1]])
            after = new.get(item[-1])
            same = place[item[-1]] == after
            place[item[-1]] = after

    same = False
    saved = forge(kind, tmp_path / "as it is", STEP, lambda t, i: found.extend(items(t, i)))
    assert outcome(kind, saved, stop_at) == ("", [])
    everything, wrong, noticed = chosen(found, name), [], 0
    made_anew = re.compile("|".join(overwritten(kind.config)))
    for k, item in enumerate(everything):
        run = forge(kind, tmp_path / str(k), STEP, anew)
        if same:
            skipped.setdefault("/".join(item[:2]), []).append(item)
        else:
            result, _ = outcome(kind, run, stop_at)
            if made_anew.fullmatch("/".join(item[1:])):
                skipped.setdefault("overwritten", []).append(item)
                wrong += [(item, result)] * (result != "")
            else:
                noticed += 1
                wrong += [(item, result)] * (result == "" or result.startswith("TRACEBACK"))
        shutil.rmtree(run)
    others = {place: len(those) for place, those in skipped.items()}
    print(f"mutation: {name}: {noticed - len(wrong)} of {noticed} items as if never saved, noticed; as they begin or {others}")
    assert wrong == []


def test_the_command_says_it_in_one_line(train: Any, trained: Path, tmp_path: Path) -> None:
    from gan_cli.rundir import checkpoint

    run = tmp_path / "r"
    shutil.copytree(trained, run)
    saved = checkpoint.load(run, 4)
    del saved.tensors["optimizer_generator"]
    shutil.rmtree(run / "checkpoints" / checkpoint.name(4))
    checkpoint.save(run, 4, saved.tensors, saved.info)
    result = train("total_steps=6", "save_every=2", "log_every=2", "sample_every=2", "run_dir=r", code=76)
    assert len(result.errors) == 1 and "Traceback" not in result.err


# Parts of the checkpoints of two steps


def test_a_checkpoint_under_the_name_of_another_step_is_refused(kinds: Any, tmp_path: Path) -> None:
    from gan_cli.rundir import checkpoint
    from gan_cli.system.errors import CheckpointError

    run = kinds("mlp" if SOAK else "spectral norm").killed(tmp_path / "r", STEP)
    (run / "checkpoints" / checkpoint.name(STEP)).rename(run / "checkpoints" / checkpoint.name(STEP + 1))
    with pytest.raises(CheckpointError):
        checkpoint.load(run, STEP + 1)


@pytest.mark.parametrize("k", range(6))
def test_parts_of_two_steps_are_refused(k: int, kinds: Any, tmp_path: Path) -> None:
    from gan_cli.rundir import checkpoint
    from gan_cli.system.errors import CheckpointError

    run = kinds("spectral norm").killed(tmp_path / "r", STEP + 1)
    older, newer = (run / "checkpoints" / checkpoint.name(step) for step in (STEP, STEP + 1))
    file = sorted(path.name for path in newer.glob("*.safetensors"))[k]
    manifests = [json.loads((folder / "manifest.json").read_text()) for folder in (older, newer)]
    manifests[1]["files"][file] = manifests[0]["files"][file]
    for name, data in ((file, (older / file).read_bytes()), ("manifest.json", json.dumps(manifests[1]).encode())):
        (newer / name).unlink()  # a hard link to the file of the other run
        (newer / name).write_bytes(data)
    assert checkpoint.verify(run, STEP + 1)
    with pytest.raises(CheckpointError):
        checkpoint.load(run, STEP + 1)


# A counter that is zero unless updates are skipped


def test_updates_skipped_in_a_row_are_counted_across_a_stop(
    kinds: Any, stop_at: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from gan_cli.system.errors import DivergedError
    from gan_cli.tasks.noise import NoiseToImage

    kind, run = kinds("spectral norm"), tmp_path / "r"
    kind.killed(run, STEP)
    loss = NoiseToImage.generator_loss

    def lost(self: Any, *args: Any) -> Any:
        value, logs = loss(self, *args)
        return value * float("nan"), logs

    monkeypatch.setattr(NoiseToImage, "generator_loss", lost)
    shutil.copytree(run, tmp_path / "never stopped")
    with pytest.raises(DivergedError) as whole:
        kind.train(tmp_path / "never stopped", max_skipped_updates=2)
    stop_at(STEP + 1, signal.SIGTERM)
    assert f"stopped at step {STEP + 1}" in kind.train(run, max_skipped_updates=2)
    with pytest.raises(DivergedError) as stopped:
        kind.train(run, max_skipped_updates=2)
    assert f"step {STEP + 1}" in whole.value.what
    assert stopped.value.what == whole.value.what
