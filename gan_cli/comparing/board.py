"""A comparison as event files: ``gan-compare ... --tensorboard DIR``. One TensorBoard run for each group, not for each run."""

from __future__ import annotations

import itertools
import json
import logging
import math
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from gan_cli.comparing import charts, text
from gan_cli.comparing.charts import Point
from gan_cli.comparing.records import Comparison, Group
from gan_cli.config.metrics import VALUES
from gan_cli.system import signals
from gan_cli.system.errors import OutputError
from gan_cli.system.files import opened, read_file

log = logging.getLogger("gan_cli")
MARKER = ".gan-compare.json"  # in a directory of ours: what else is in it
PICTURES = 50  # of each comparison, at most
SIDE = 512  # pixels of a picture of a group, at most
BAND = "band"  # begins the tags of what bounds the values of the seeds beside a mean
OVERVIEW, RUNS = "overview", "runs"


def write(comparisons: Sequence[Comparison], directory: Path) -> None:
    """Event files of all comparisons, in the place of what this function has written there before.

    The horizontal axis is images seen by the discriminator, so that groups with different ``n_critic`` can be compared.

    Raises:
        OutputError: the directory holds other things, or cannot be written.
        Interrupted: a signal came; nothing is left of what was begun.
    """
    directory = Path(os.path.abspath(directory))
    refuse_foreign(directory)
    temporary = directory.with_name(f".{directory.name}.{secrets.token_hex(4)}")
    try:
        with signals.stop_on_signal() as stop:
            temporary.mkdir(parents=True)
            taken: set[str] = set()
            for comparison in comparisons:
                folder = temporary / unique(comparison.title, taken) if len(comparisons) > 1 else temporary
                _write_comparison(comparison, folder, stop)
        (temporary / MARKER).write_text(json.dumps(sorted(os.listdir(temporary))))
        if directory.exists():
            shutil.rmtree(directory)
        temporary.rename(directory)
    except OSError as error:
        what = f"the event files cannot be written: {error.strerror}"
        raise OutputError(what, str(directory), "Choose another --tensorboard") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def refuse_foreign(directory: Path) -> None:
    """Refuse a directory with something in it that :func:`write` did not put there.

    Raises:
        OutputError: naming it.
    """
    todo = "Choose another --tensorboard, a new directory or one that gan-compare wrote"
    if directory.is_symlink() or (directory.exists() and not directory.is_dir()):
        raise OutputError("this is not a directory", str(directory), todo)
    if directory.exists() and directory.samefile("."):  # it is replaced, and a shell would stand in what is gone
        raise OutputError("this is the current directory", str(directory), todo)
    there = set(os.listdir(directory)) if directory.exists() else set()
    try:
        ours = {MARKER, *json.loads(read_file(directory / MARKER))}
    except (OSError, ValueError, TypeError):
        ours = set()
    if there - ours:
        raise OutputError(f"this directory holds other things ({sorted(there - ours)[0]})", str(directory), todo)


def plain(name: str) -> str:
    """A name as one of a directory."""
    return text.plain(name).replace("/", "_").replace(", ", ",").lstrip(".")[:150] or "default"


def unique(name: str, taken: set[str]) -> str:
    """``name`` as that of a directory, unlike those ``taken``, which it joins."""
    found = next(c for k in itertools.count(1) if (c := plain(name) + (f"-{k}" if k > 1 else "")) not in taken)
    taken.add(found)
    return found


def curves(group: Group, protocols: Iterable[str]) -> dict[str, list[Point]]:
    """Each column of the rows, and the evaluations by these protocols, against images, over the runs that the table counts."""
    protocols = set(protocols)
    series: dict[str, list[dict[int, tuple[float, float]]]] = {}
    for run in charts.counting(group):
        found: dict[str, dict[int, tuple[float, float]]] = {}
        measured = [(e.step, e.images, f"metric/{key}", value) for e in run.evaluations if e.protocol_id in protocols
                    for key, value in e.metrics.items()]  # fmt: skip
        logged = [(row.get("step"), row.get("images"), key, value) for row in run.rows for key, value in row.items()
                  if key not in ("step", "images") and not key.startswith("time/")
                  and not (protocols and key.removeprefix("metric/") in VALUES)]  # fmt: skip
        for step, images, key, value in [*logged, *measured]:
            if isinstance(step, int) and math.isfinite(charts.finite(images)) and not key.endswith("_std"):
                found.setdefault(key, {})[step] = (charts.finite(images), charts.finite(value))
        for key, points in found.items():
            series.setdefault(key, []).append(points)
    return {key: charts.thinned(charts.over_seeds(runs)) for key, runs in sorted(series.items())}


def _write_comparison(comparison: Comparison, directory: Path, stop: Sequence[str]) -> None:
    """``stop``: holds the name of a signal once one came."""
    from torch.utils.tensorboard import SummaryWriter

    from gan_cli.rundir import hparams

    protocols = [column.protocol_id for column in comparison.columns if column.protocol_id]
    tags: dict[str, bool] = {}  # whether there is a band
    taken, folders = {OVERVIEW, RUNS, MARKER}, set[str]()
    for group in comparison.groups:
        with SummaryWriter(directory / unique(group.name, taken)) as board:
            for key, points in curves(group, protocols).items():
                _leave(stop)
                points = [point for point in points if point.n]
                band = any(point.n > 1 for point in points)
                if points:
                    tags[key] = tags.get(key, False) or band
                for point in points:
                    images = round(point.x)
                    board.add_scalar(key, point.y, images)
                    if band:
                        board.add_scalar(f"{BAND}/{key}/lower", point.low, images)
                        board.add_scalar(f"{BAND}/{key}/upper", point.high, images)
    with SummaryWriter(directory / OVERVIEW) as board:
        board.add_text("comparison", markdown_table(comparison))
        layout = {
            key: ["Margin", [key, f"{BAND}/{key}/lower", f"{BAND}/{key}/upper"]]
            if band
            else ["Multiline", [f"^{re.escape(key)}$"]]
            for key, band in sorted(tags.items())
        }
        board.add_custom_scalars({"mean over seeds, and one standard deviation (of two seeds: both values)": layout})
        for images, picture in pictures(comparison.groups):
            _leave(stop)
            board.add_image("samples", np.asarray(picture), images, dataformats="HWC")
    names = [column.name for column in comparison.columns]
    for group in comparison.groups:
        for run in group.runs:
            _leave(stop)
            values = {name: group.summaries[name].values.get(str(run.path)) for name in names if name in group.summaries}
            told: dict[str, str | float] = {key: _number(value) for key, value in group.settings.items()}
            final = {f"final/{name}": value for name, value in values.items() if value is not None}
            with SummaryWriter(directory / RUNS / unique(run.path.name, folders)) as board:
                metrics = [f"final/{name}" for name in names]
                for summary in hparams.beginning({**told, "seed": float(run.seed)}, metrics, ",".join(told)):
                    board._get_file_writer().add_summary(summary, 0)  # type: ignore[no-untyped-call]
                for key, value in final.items():
                    measured = group.summaries[key.removeprefix("final/")].measured.get(str(run.path))
                    board.add_scalar(key, value, run.images if measured is None else measured.images)
                if run.state in ("complete", "failed", "diverged"):
                    end = hparams.ending(run.state == "complete")
                    board._get_file_writer().add_summary(end, 0)  # type: ignore[no-untyped-call]


def _leave(stop: Sequence[str]) -> None:
    if stop:
        raise signals.Interrupted(stop[0])


def _number(word: str) -> str | float:
    try:
        return float(word)
    except ValueError:
        return word


def markdown_table(comparison: Comparison) -> str:
    """Mean +- std (n) of every column, a row for each group, and the notes, as Markdown."""
    names = [column.name for column in comparison.columns]
    lines = [f"| {comparison.title} | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for group in comparison.groups:
        cells = []
        for name in names:
            found = group.summaries.get(name)
            spread = "" if found is None or found.std is None else f" +- {found.std:.3g}"
            cells.append("" if found is None else f"{found.mean:.4g}{spread} (n={found.n})")
        lines.append(f"| {group.name} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *(f"- {text.plain(note)}" for note in comparison.notes)])


def pictures(groups: Sequence[Group]) -> Iterable[tuple[int, Image.Image]]:
    """The samples of a run of each group, the first that counts, side by side, for each number of images that has some."""
    drawn: list[tuple[str, dict[int, Path]]] = []
    for group in groups:
        run = min(charts.counting(group) or group.runs, key=lambda run: run.seed)
        at = {step * run.images // max(run.step, 1): path for step, path in run.pictures.items()}
        drawn.append((f"{group.name}, seed {run.seed}", at))
    counts = sorted({images for _, at in drawn for images in at})
    for images in counts[:: max(1, -(-len(counts) // PICTURES))]:
        shown = []
        for name, at in drawn:
            latest = max((k for k in at if k <= images), default=None)
            picture = None if latest is None else _read(at[latest])
            label = name if latest in (images, None) else f"{name}, {latest:,} images"
            shown.append((label, picture))
        if any(picture is not None for _, picture in shown):
            yield images, side_by_side(shown)


def _read(path: Path) -> Image.Image | None:
    try:
        with opened(path) as file, Image.open(file, formats=["PNG"]) as picture:
            if max(picture.size) > 8192:
                return None
            small = picture.convert("RGB")
            small.thumbnail((SIDE, SIDE))
            return small
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        log.warning("warning: %s cannot be read", path)
        return None


def side_by_side(shown: Sequence[tuple[str, Image.Image | None]]) -> Image.Image:
    """One picture of several, each with its label above it, in rows of at most four."""
    wide = max([picture.width for _, picture in shown if picture] + [160])
    letter = max(12, wide // 16)  # pixels; the tab shows the picture in a third of its size
    columns, gap, head = min(4, len(shown)), 8, 3 * letter
    high = max([picture.height for _, picture in shown if picture] + [16]) + head
    sheet = Image.new("RGB", (columns * (wide + gap) - gap, -(-len(shown) // columns) * (high + gap) - gap), "white")
    pen, font, fits = ImageDraw.Draw(sheet), ImageFont.load_default(letter), 2 * wide // letter
    for k, (label, picture) in enumerate(shown):
        x, y = k % columns * (wide + gap), k // columns * (high + gap)
        lines = [label[at : at + fits] for at in range(0, min(len(label), 2 * fits), fits)]
        pen.text((x, y), "\n".join(lines), fill="black", font=font)
        if picture is not None:
            sheet.paste(picture, (x, y + head))
    return sheet
