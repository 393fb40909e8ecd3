"""Sample grids of several groups side by side, at equal numbers of images seen."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from gan_cli.comparing.charts import STYLES, at_steps
from gan_cli.comparing.records import Group, RunRecord
from gan_cli.system.files import read_file

SHARES = (0.25, 0.5, 1.0)  # of the images that all groups have seen
TOLERANCE = 0.25  # how far from such a number a picture may be, as a share of it
MAX_OTHERS = 24  # pictures of other seeds
MAX_PICTURE_BYTES = 2 * 2**20  # of a file
MAX_PICTURES_BYTES = 6 * 2**20  # of all files in a page; base64 adds a third
MAX_SIDE = 4096  # pixels


class Picture(NamedTuple):
    """A file of ``samples/``, and the images that had been seen by then."""

    step: int
    images: float
    path: Path


@dataclass
class Room:
    """How many bytes of pictures a page still has room for."""

    left: int = MAX_PICTURES_BYTES

    def embed(self, picture: Picture | None) -> dict[str, Any] | None:
        """Return what the page needs of a PNG file, or None if it is none, is too large, or the page is full."""
        try:
            content = read_file(picture.path, min(MAX_PICTURE_BYTES, self.left)) if picture else b""
        except OSError:
            return None
        width, height = int.from_bytes(content[16:20]), int.from_bytes(content[20:24])
        if picture is None or content[:8] != b"\x89PNG\r\n\x1a\n" or not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE):
            return None
        self.left -= len(content)
        source = f"data:image/png;base64,{base64.b64encode(content).decode()}"
        return {"source": source, "width": width, "height": height, "step": picture.step, "images": picture.images}


def pictures(run: RunRecord) -> list[Picture]:
    """Return the pictures in the order of training, but for those without a row that has the number of images."""
    return [Picture(step, images, run.pictures[step]) for step, images in at_steps(run, sorted(run.pictures), "images").items()]


def shown_run(group: Group) -> RunRecord | None:
    """Return the run that stands for a group: the first seed that is complete and has pictures, or that has pictures."""
    runs = [run for run in group.runs if run.pictures and pictures(run)]
    return min(runs, key=lambda run: (run.state != "complete", run.seed), default=None)


def nearest(found: Sequence[Picture], images: float) -> Picture | None:
    """Return the picture made nearest to a number of images, if it is near enough."""
    picture = min(found, key=lambda picture: abs(picture.images - images))
    return picture if abs(picture.images - images) <= TOLERANCE * images else None


def goals(found: Sequence[Sequence[Picture]], common: float) -> list[float]:
    """Return the numbers of images to show: shares of ``common``, without those that would repeat the same pictures."""
    columns: dict[tuple[Picture | None, ...], float] = {}
    for share in SHARES:
        row = tuple(nearest(pictures, share * common) for pictures in found)
        if any(row):
            columns[row] = share * common
    return list(columns.values())


def section(groups: Sequence[Any], room: Room) -> dict[str, Any] | None:
    """Return the rows of pictures, one for each group, and the last pictures of other seeds; None if there is no picture.

    Args:
        groups: ``page.Named``, in their order.
    """
    shown = [(one, run, pictures(run)) for one in groups[:STYLES] if (run := shown_run(one.group)) is not None]
    if not shown:
        return None
    complete = [found[-1].images for _, run, found in shown if run.state == "complete"]  # a failed run holds nobody back
    common = min(complete or [found[-1].images for _, _, found in shown])
    columns = goals([found for _, _, found in shown], common)
    rows = [
        {"group": one, "run": run, "last": found[-1], "cells": [_cell(nearest(found, goal), goal, room) for goal in columns]}
        for one, run, found in shown
    ]
    taken = {run.path for _, run, _ in shown}
    others = [(one, run) for one in groups for run in sorted(one.group.runs, key=lambda run: run.seed) if run.path not in taken]
    others = [(one, run) for one, run in others if pictures(run)]
    figures = [
        {"group": one, "run": run, "picture": embedded}
        for one, run in others[:MAX_OTHERS]
        if (embedded := room.embed(pictures(run)[-1])) is not None
    ]
    return {"goals": columns, "rows": rows, "others": figures, "left": len(others) - len(figures)}


def _cell(picture: Picture | None, goal: float, room: Room) -> dict[str, Any]:
    return {"goal": goal, "near": picture is not None, "picture": room.embed(picture)}
