"""Sample grids of several groups side by side, at equal numbers of images seen."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gan_cli.comparing.charts import finite
from gan_cli.comparing.html import STYLES, Named, Room, count, fold, listed, note, text_of
from gan_cli.comparing.records import Group, Run

SHARES = (0.25, 0.5, 1.0)  # of the images that all groups have seen
MOST_OTHERS = 24  # pictures of other seeds


@dataclass(frozen=True)
class Picture:
    """A file of ``samples/``, and the images that had been seen by then."""

    step: int
    images: float
    path: Path


def at_steps(run: Run, steps: Iterable[int], key: str) -> dict[int, float]:
    """A column of the rows that grows from 0, at steps: of their rows, else in proportion of the next (or last) row."""
    known = sorted((row["step"], value) for row in run.rows if row["step"] > 0 and math.isfinite(value := finite(row.get(key))))
    found = {}
    for step in steps if known else ():
        at, value = known[min(bisect_left(known, (step,)), len(known) - 1)]
        found[step] = value * (step / at)
    return found


def pictures(run: Run) -> list[Picture]:
    """In the order of training; without those of which nobody knows how many images had been seen."""
    return [Picture(step, images, run.pictures[step]) for step, images in at_steps(run, sorted(run.pictures), "images").items()]


def shown_run(group: Group) -> Run | None:
    """The run that stands for a group: of those with pictures the first seed that was completed, or the first."""
    runs = sorted(
        (run for run in group.runs if run.pictures and pictures(run)), key=lambda run: (run.state != "complete", run.seed)
    )
    return runs[0] if runs else None


def nearest(found: Sequence[Picture], images: float) -> Picture | None:
    """The picture made nearest to a number of images, if it is within a quarter of it."""
    picture = min(found, key=lambda picture: abs(picture.images - images))
    return picture if abs(picture.images - images) <= 0.25 * images else None


def goals(found: Sequence[Sequence[Picture]], common: float) -> list[float]:
    """The numbers of images to show: shares of ``common``, without those that would show the same pictures again."""
    columns: dict[tuple[Picture | None, ...], float] = {}
    for share in SHARES:
        row = tuple(nearest(pictures, share * common) for pictures in found)
        if any(row):
            columns[row] = share * common
    return list(columns.values())


def section(groups: Sequence[Named], room: Room) -> str:
    """Groups below each other, images seen from left to right; the last pictures of other seeds in a fold."""
    shown = [(one, run, pictures(run)) for one in groups[:STYLES] if (run := shown_run(one.group)) is not None]
    if not shown:
        return ""
    # A run that ended early does not hold the others back.
    common = min(
        [found[-1].images for _, run, found in shown if run.state == "complete"] or [f[-1].images for _, _, f in shown]
    )
    columns = goals([found for _, _, found in shown], common)
    rows = []
    for one, run, found in shown:
        cells = "".join(_cell(one, run, found, goal, room) for goal in columns)
        title = f'<h4>{one.html} <span class="soft">seed {run.seed}</span></h4>'
        rows.append(f'<div class="together">{title}\n<div class="grids c{len(columns)}">{cells}</div></div>\n')
    at = listed([f"{goal:,.0f}" for goal in columns])
    said = [f"At {at} images, or the picture of each run that is nearest; every time of the same latents or held-out images."]
    if len(groups) > STYLES:
        said.append(f"Of {len(groups)} groups the first {STYLES}.")
    return note(" ".join(said)) + "".join(rows) + _other_seeds(groups, {run.path for _, run, _ in shown}, room)


def _cell(one: Named, run: Run, found: Sequence[Picture], goal: float, room: Room) -> str:
    picture = nearest(found, goal)
    if picture is None:
        return f'<div class="none">no picture near {goal:,.0f} images; the last is of {found[-1].images:,.0f}</div>'
    return _figure(one, run, picture, room) or '<div class="none">left out: not a PNG file, or too large for this page</div>'


def _figure(one: Named, run: Run, picture: Picture, room: Room, label: str = "") -> str:
    embedded = room.picture(picture.path)
    if embedded is None:
        return ""
    uri, width, height = embedded
    where = f"{picture.images:,.0f} images (step {picture.step:,})"
    alt = text_of(f"Samples of {one.group.name}, seed {run.seed}, after {where}")
    image = f'<img src="{uri}" width="{width}" height="{height}" alt="{alt}">'
    return f"<figure>{image}<figcaption>{label}{where}</figcaption></figure>\n"


def _other_seeds(groups: Sequence[Named], shown: set[Path], room: Room) -> str:
    rest = [(one, run) for one in groups for run in sorted(one.group.runs, key=lambda run: run.seed)]
    rest = [(one, run) for one, run in rest if run.path not in shown and pictures(run)]
    figures: list[str] = []
    for one, run in rest[:MOST_OTHERS]:
        state = f", {text_of(run.state)}" if run.state != "complete" else ""
        figures.append(_figure(one, run, pictures(run)[-1], room, f"{one.badge} seed {run.seed}{state}, "))
    figures = [figure for figure in figures if figure]
    left = len(rest) - len(figures)
    line = note(
        f"{count(left, 'picture')} of other seeds left out to keep this file small: see samples/ of each run." if left else ""
    )
    grid = f'<div class="grids c4">{"".join(figures)}</div>'
    return (fold(f"Last pictures of other seeds ({len(figures)})", grid) if figures else "") + line
