"""Sample grids of several groups side by side, at equal numbers of images seen."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from gan_cli.comparing.charts import STYLES, Named, at_steps
from gan_cli.comparing.records import Group, RunRecord
from gan_cli.system.files import read_file

SHARES = (0.25, 0.5, 1.0)  # columns, as fractions of the images that all groups have seen
TOLERANCE = 0.25  # relative distance of a picture from the number of images of its column
MAX_OTHERS = 24  # pictures of further seeds
MAX_PICTURE_BYTES = 2 * 2**20  # size of one file
MAX_PICTURES_BYTES = 6 * 2**20  # size of all files in a page; base64 adds a third
MAX_SIDE = 4096  # pixels


class Picture(NamedTuple):
    """A file of ``samples/`` and the number of images seen at its step."""

    step: int
    images: float
    path: Path


@dataclass
class Room:
    """Number of bytes that are left for pictures in a page."""

    left: int = MAX_PICTURES_BYTES

    def embed(self, picture: Picture | None) -> dict[str, Any] | None:
        """Return a PNG file for the template, or None if it is something else, too large, or the page is full."""
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
    """Return the pictures of a run whose number of images is known, sorted by step."""
    return [Picture(step, images, run.pictures[step]) for step, images in at_steps(run, sorted(run.pictures), "images").items()]


def shown_run(group: Group) -> RunRecord | None:
    """Return the run with pictures that represents a group: complete if possible, then the smallest seed."""
    runs = [run for run in group.runs if pictures(run)]
    return min(runs, key=lambda run: (run.state != "complete", run.seed), default=None)


def nearest(found: Sequence[Picture], images: float) -> Picture | None:
    """Return the picture nearest to a number of images, or None if none is within the tolerance."""
    picture = min(found, key=lambda picture: abs(picture.images - images))
    return picture if abs(picture.images - images) <= TOLERANCE * images else None


def section(groups: Sequence[Named], room: Room) -> dict[str, Any] | None:
    """Return a row of pictures for each group, and the last pictures of other seeds; None without pictures."""
    shown = [(one, run, pictures(run)) for one in groups[:STYLES] if (run := shown_run(one.group)) is not None]
    if not shown:
        return None
    # A failed run does not limit the range of the others.
    complete = [found[-1].images for _, run, found in shown if run.state == "complete"]
    common = min(complete or [found[-1].images for _, _, found in shown])
    # Columns with the same pictures are merged.
    goals = {tuple(nearest(found, share * common) for _, _, found in shown): share * common for share in SHARES}
    columns = [(goal, cells) for cells, goal in goals.items() if any(cells)]
    rows = [
        {
            **{"group": one, "run": run, "last": found[-1]},
            "cells": [{"goal": goal, "near": cells[k] is not None, "picture": room.embed(cells[k])} for goal, cells in columns],
        }
        for k, (one, run, found) in enumerate(shown)
    ]
    taken = {run.path for _, run, _ in shown}
    others = [
        (one, run, found[-1])
        for one in groups
        for run in sorted(one.group.runs, key=lambda run: run.seed)
        if run.path not in taken and (found := pictures(run))
    ]
    figures = [
        {"group": one, "run": run, "picture": embedded}
        for one, run, picture in others[:MAX_OTHERS]
        if (embedded := room.embed(picture)) is not None
    ]
    return {"goals": [goal for goal, _ in columns], "rows": rows, "others": figures, "left": len(others) - len(figures)}
