"""Pieces of the page of a comparison: escaped text, tables, folds, numbers as a reader wants them."""

from __future__ import annotations

import base64
import math
import os
import re
import string
from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from urllib.parse import quote

from gan_cli.comparing.records import Column, Group, Run
from gan_cli.system.files import read_file

STYLES = 8  # groups with a colour, dash and marker of their own; there is no ninth that can be told from them
PICTURE_LIMIT = 2 * 2**20  # bytes of a file
PICTURES_LIMIT = 6 * 2**20  # of all in a page; as base64 a third more
PICTURE_SIDE = 4096  # pixels
CONFIG_LIMIT, CONFIGS_LIMIT = 2**18, 2**20  # bytes of a config.yaml, and of all in a page


@dataclass
class Room:
    """What a page still has room for, in bytes, and the folder where it will lie."""

    folder: Path
    pictures: int = PICTURES_LIMIT
    configs: int = CONFIGS_LIMIT

    def link(self, path: Path) -> str:
        """A relative URL, which never begins with a scheme."""
        return "./" + quote(os.fsencode(os.path.relpath(path.absolute(), self.folder)))

    def picture(self, path: Path) -> tuple[str, int, int] | None:
        """A PNG file as a data: URI, its width and height in pixels; None if it is none, too large, or the page is full."""
        try:
            content = read_file(path, min(PICTURE_LIMIT, self.pictures))
        except OSError:
            return None
        width, height = int.from_bytes(content[16:20]), int.from_bytes(content[20:24])
        if content[:8] != b"\x89PNG\r\n\x1a\n" or not (0 < width <= PICTURE_SIDE and 0 < height <= PICTURE_SIDE):
            return None
        self.pictures -= len(content)
        return f"data:image/png;base64,{base64.b64encode(content).decode()}", width, height

    def config(self, run: Run) -> str | None:
        """The text of ``config.yaml``, or what is known of it; None if the page is full."""
        try:
            text = read_file(run.path / "config.yaml", CONFIG_LIMIT).decode("utf-8", "replace")
        except OSError:
            text = "\n".join(f"{key}: {value}" for key, value in run.config.items())[:CONFIG_LIMIT]
        if len(text) > self.configs:
            return None
        self.configs -= len(text)
        return text


@dataclass(frozen=True)
class Named:
    """A group, and what it is called and drawn as everywhere in its chapter: a letter, and a style if it is among the first."""

    group: Group
    letter: str
    style: int | None

    @property
    def badge(self) -> str:
        """The letter."""
        return f'<span class="letter">{self.letter}</span>'

    @property
    def html(self) -> str:
        """Letter and name."""
        name = re.sub("([=_/,])", r"\1<wbr>", text_of(self.group.name))  # where a narrow column may break it
        return f'<span class="named">{self.badge} <span>{name}</span></span>'


def named(groups: Sequence[Group]) -> list[Named]:
    """The groups in their order."""
    return [Named(group, letter(k), k if k < STYLES else None) for k, group in enumerate(groups)]


def short_names(groups: Sequence[Group]) -> list[Group]:
    """The groups with ``lr=0.01`` for ``optimizer.lr=0.01`` in their names, where no other key ends so."""
    keys = {key for group in groups for key in group.settings}
    dropped = {}
    for key in keys:
        tails = [key.split(".", k)[-1] for k in reversed(range(key.count(".") + 1))]
        alone = (tail for tail in tails if sum(f".{other}".endswith(f".{tail}") for other in keys) == 1)
        dropped[key] = key.removesuffix(next(alone, key))
    renamed = []
    for group in groups:
        name = group.name
        for key in group.settings:
            rest = key.removeprefix(dropped[key])
            name = re.sub(rf"(^|, ){re.escape(dropped[key])}(?={re.escape(rest)}=)", r"\1", name)
        renamed.append(replace(group, name=name))
    return renamed


def letter(k: int) -> str:
    """A, B, ..., Z, AA, AB, ..."""
    rest, last = divmod(k, 26)
    return (letter(rest - 1) if rest else "") + string.ascii_uppercase[last]


def text_of(value: object, most: int = 2000) -> str:
    """Any text for HTML: escaped, and what does not print (or turns the direction of writing) as its code; lines stay."""
    text = str(value)
    text = text if len(text) <= most else text[:most] + " ..."
    return escape("".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text))


def count(n: int, thing: str) -> str:
    """``1 run``, ``2 runs``, ``1,000 images``."""
    return f"{n:,} {thing}{'' if n == 1 else 's'}"


def listed(items: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return " and ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)


def number(value: float) -> str:
    """Whole from 1000 on, with separators; four significant digits below."""
    return (f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}").replace("-", "−")


def spread(mean: float, std: float | None) -> str:
    """``12.34 ± 0.45``: the spread in two digits, the mean in as many decimals."""
    if std is None or not math.isfinite(std) or std == 0:
        return number(mean) + (" ± 0" if std == 0 else "")
    digits = min(max(0, 1 - math.floor(math.log10(std))), 8)
    return f"{mean:,.{digits}f} ± {std:,.{digits}f}".replace("-", "−")


def duration(seconds: float) -> str:
    """``45 s``, ``3 min 20 s``, ``2 h 05 min``."""
    if not math.isfinite(seconds):
        return "-"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def direction(column: Column) -> str:
    """``lower is better``, or nothing."""
    return f"{column.better} is better" if column.better else ""


def _attributes(kind: str, value: float | str | None = None) -> str:
    sort = "" if value is None else f' data-value="{value}"'
    return (f' class="{kind}"' if kind else "") + sort


def head(name: str, kind: str = "", under: str = "", down: bool = False) -> str:
    """A cell over a column. ``under``: in small letters below. ``down``: largest first when it is sorted."""
    first = ' data-first="descending"' if down else ""
    small = f"<small>{text_of(under)}</small>" if under else ""
    return f'<th scope="col"{_attributes(kind)}{first}>{text_of(name)}{small}</th>'


def cell(html: str, kind: str = "", value: float | str | None = None) -> str:
    """``value``: what it is sorted by, if not by its text; "" comes last."""
    return f"<td{_attributes(kind, value)}>{html}</td>"


def row(first: str, cells: str, kind: str = "") -> str:
    """``first``: the HTML of the cell that names it. ``cells``: made by :func:`cell`."""
    return f'<tr><th scope="row"{_attributes(kind)}>{first}</th>{cells}</tr>\n'


def table(name: str, heads: str, rows: Sequence[str], kind: str = "") -> str:
    """In a box that scrolls by itself on a narrow screen. ``kind``: ``sortable`` by a click on a head, ``wide``."""
    body = f"<thead><tr>{heads}</tr></thead>\n<tbody>\n{''.join(rows)}</tbody>"
    box = f'<div class="box" tabindex="0" role="group" aria-label="{text_of(name)}">'
    return f"{box}<table{_attributes(kind)}>{body}</table></div>\n"


def fold(summary: str, content: str, kind: str = "") -> str:
    """What opens on demand. ``kind``: ``bulky`` if it is not to be printed."""
    return f"<details{_attributes(kind)}><summary>{summary}</summary>\n{content}</details>\n"


def note(text: str) -> str:
    """A line that explains what is beside it."""
    return f'<p class="note">{text}</p>\n' if text else ""
