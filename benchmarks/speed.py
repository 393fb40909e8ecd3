"""Speed of gan_cli against plain loops of the same networks on the same data: the tables of docs/speed.md.

    python benchmarks/speed.py [--models mlp,dcgan64] [--quick] [--data data] [--device cuda] [--write-docs]

Every training is a separate process, see ``measure.py``. In each round every process runs the same number of steps while the
others sleep, and ratios are taken within a round. Data sets missing in ``--data`` are replaced by synthetic images.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import platform
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from cases import CASES, composed, first_images, images_per_step, make_data
from measure import Peak, Training

from gan_cli.compute.device import choose_device, default_threads

DOCS = Path(__file__).parents[1] / "docs"
MODELS = [name for name in CASES if not name.endswith("_mnist")]
FP32, COMPILED, DEFAULT = "fp32", "fp32, compiled", "as chosen"
# The growth curves: quantity -> its setting and values.
GROWTH = {
    "batch": ("batch_size={}", [16, 64, 256]),
    "image size": ("dataset.image_size={}", [32, 64, 128]),
    "data set": ("", [1_000, 10_000, 60_000]),
}
WARM_UP_STEPS = {"cpu": 2, "cuda": 10}  # steps for compiling and recording CUDA graphs, not measured

Result = dict[str, Any]


def ways(quick: bool) -> dict[str, list[str]]:
    """Settings of the measured variants of gan_cli: in float32, compiled (not with ``quick``), and with default settings."""
    compiled = {} if quick else {COMPILED: ["precision=fp32", "compile=true"]}
    return {FP32: ["precision=fp32", "compile=false"], **compiled, DEFAULT: ["compile=false"] if quick else []}


@dataclass(frozen=True)
class Plan:
    """Length of a measurement: ``rounds`` rounds of about ``seconds`` of the plain loop, at most ``most`` steps each."""

    rounds: int
    seconds: float
    most: int = 2000


def compare(
    case: str, folder: Path, settings: Sequence[str], device: str, plan: Plan, peak: Peak, kinds: dict[str, list[str]]
) -> Result:
    """Train one case with the plain loop and all variants of gan_cli, in turns.

    Returns:
        For ``plain`` and each of ``kinds``: lists over the rounds of ``seconds``, ``cpu`` seconds and seconds ``waited`` for
        data per step; and the peak ``memory`` in bytes. For gan_cli also ``beside``, the seconds of a picture with its
        measurements and a checkpoint.
    """
    running: dict[str, Training] = {}
    try:
        running["plain"] = Training("plain", case, folder, settings, device)
        running["plain"].ask("steps", WARM_UP_STEPS[device])
        steps = max(1, min(plan.most, round(plan.seconds / running["plain"].ask("steps", 1)["seconds"])))
        last = WARM_UP_STEPS[device] + steps * plan.rounds + 2  # the step with the picture and the checkpoint
        rhythm = [f"log_every={steps}", f"sample_every={last}", f"save_every={last}"]
        for name, own in kinds.items():
            try:
                running[name] = Training("ours", case, folder, [*settings, *rhythm, *own], device)
            except SystemExit as error:
                if name != COMPILED:
                    raise
                print(f"{name} is left out: {str(error).strip().splitlines()[-1]}", file=sys.stderr)
                continue
            running[name].ask("steps", WARM_UP_STEPS[device])
        rounds = []
        for k in range(plan.rounds):
            peak.measure()
            names = [*running][k % len(running) :] + [*running][: k % len(running)]  # another one is first in each round
            rounds.append({name: running[name].ask("steps", steps) for name in names})
        result: Result = {}
        for name, training in running.items():
            reports = [answers[name] for answers in rounds]
            per_step = {key: [report[key] / steps for report in reports] for key in ("seconds", "cpu", "waited")}
            result[name] = {**per_step, "memory": reports[-1]["memory"]}
            result[name] |= {"precision": training.precision, "compiled": training.compiled}
            if name != "plain":
                typical = statistics.median(per_step["seconds"])
                training.ask("steps")
                result[name]["beside"] = max(training.ask("steps")["seconds"] - typical, 0.0)
    finally:
        for training in running.values():
            training.end()
    return result


def products(case: str, folder: Path, settings: Sequence[str], device: str, *, compiled: bool) -> Result:
    """``flops`` of a step and ``bare``, the seconds of its products alone, measured without torch.compile."""
    training = Training("as compiled" if compiled else "ours", case, folder, [*settings, "compile=false"], device)
    try:
        training.ask("steps", 2)
        report = training.ask("products")
        return {key: report[key] for key in ("flops", "bare")}
    finally:
        training.end()


def measure_models(
    models: Sequence[str], folder: Path, sources: dict[str, str], arguments: argparse.Namespace, peak: Peak
) -> Result:
    """Measure the plain loop and all variants of each model."""
    results: Result = {}
    for name in models:
        case = CASES[name]
        config = composed(case, folder)
        plan = Plan(2, 0.5, 20) if arguments.quick else Plan(arguments.rounds, 2.0)
        results[name] = {
            "title": case.title,
            "data": sources[case.data],
            "images": images_per_step(config),
            "every": min(config.sample_every, config.save_every),
            "ways": compare(name, folder, common(arguments), arguments.device, plan, peak, ways(arguments.quick)),
        }
        ours = [way for kind, way in results[name]["ways"].items() if kind != "plain"]
        for precision, compiled in sorted({(way["precision"], way["compiled"]) for way in ours}):
            settings = [*common(arguments), f"precision={precision}"]
            figures = products(name, folder, settings, arguments.device, compiled=compiled)
            for way in ours:
                way |= figures if (way["precision"], way["compiled"]) == (precision, compiled) else {}
        print("\n".join(rows_of(results[name])), flush=True)
    return results


def measure_growth(folder: Path, arguments: argparse.Namespace, peak: Peak) -> Result:
    """Measure the plain loop and gan_cli for several sizes of batch, image and data set."""
    results: Result = {}
    for count in GROWTH["data set"][1]:
        first_images(folder / str(count), folder, count)
    for name in ("mlp_mnist", "dcgan_mnist"):
        for what, (setting, values) in GROWTH.items():
            points = []
            for value in values:
                settings = [setting.format(value)] if setting else []
                home = folder / str(value if what == "data set" else 10_000)
                plan = Plan(min(arguments.rounds, 3), 1.0)
                ways = compare(name, home, [*common(arguments), *settings], arguments.device, plan, peak, {DEFAULT: []})
                images = images_per_step(composed(CASES[name], home, *settings))
                points.append({"value": value, "images": images, "ways": ways})
                print(growth_row(CASES[name].title, what, points[-1]), flush=True)
            results[f"{name} {what}"] = {"title": CASES[name].title, "what": what, "points": points}
    return results


def common(arguments: argparse.Namespace) -> list[str]:
    """Settings of all trainings."""
    return [f"threads={arguments.threads}"]


def rate(way: Result, images: int) -> float:
    """Median of the images per second."""
    return images / statistics.median(way["seconds"])


def ratios(ways: Result, name: str) -> list[float]:
    """Speed relative to the plain loop in each round, ascending."""
    return sorted(p / o for p, o in zip(ways["plain"]["seconds"], ways[name]["seconds"], strict=True))


MODELS_HEAD = [
    "| model | loop | images/s | ms per step | times the plain loop (of all rounds) | waits for data | memory, MB |",
    "|---|---|---|---|---|---|---|",
]


def rows_of(result: Result) -> list[str]:
    """Rows of a model in the table of models, one for each variant."""
    rows = []
    for name, way in result["ways"].items():
        step = statistics.median(way["seconds"])
        times = "1" if name == "plain" else spread(ratios(result["ways"], name))
        label = "plain" if name == "plain" else f"{name} ({way['precision']})" if name == DEFAULT else name
        title = f"{result['title']}{'' if result['data'] == 'real' else ' (made images)'}" if name == "plain" else ""
        cells = [figure(rate(way, result["images"])), figure(step * 1e3), times]
        cells += [f"{statistics.median(way['waited']) / step:.1%}", f"{way['memory'] / 1e6:,.0f}"]
        rows.append(f"| {title} | {label} | {' | '.join(cells)} |")
    return rows


USE_HEAD = [
    "| model | loop | GFLOP a step | of the matrix-product rate | bare products, share of the step "
    "| their own rate | picture + checkpoint |",
    "|---|---|---|---|---|---|---|",
]


def use_rows(results: Result, peaks: dict[str, float]) -> list[str]:
    """Rows of the table of machine use."""
    rows = []
    for result in results.values():
        for name, way in result["ways"].items():
            if name == "plain":
                continue
            step, best = statistics.median(way["seconds"]), peaks[way["precision"]]
            beside = way["beside"] / (way["beside"] + result["every"] * step)
            cells = [f"{way['flops'] / 1e9:.3g}", f"{way['flops'] / step / best:.0%}", f"{way['bare'] / step:.0%}"]
            cells += [f"{way['flops'] / way['bare'] / best:.0%}", f"{beside:.1%}"]
            rows.append(f"| {result['title'] if name == FP32 else ''} | {name} | {' | '.join(cells)} |")
    return rows


GROWTH_HEAD = ["| model | grows | to | plain, images/s | ours, images/s | ratio |", "|---|---|---|---|---|---|"]


def growth_row(title: str, what: str, point: Result) -> str:
    """The table row of a point of a growth curve."""
    rates = [figure(rate(point["ways"][name], point["images"])) for name in ("plain", DEFAULT)]
    return f"| {title} | {what} | {point['value']:,} | {' | '.join(rates)} | {spread(ratios(point['ways'], DEFAULT))} |"


def figure(value: float) -> str:
    """Format with three digits, or as a whole number from 100 on: ``0.204``, ``17.6``, ``5,300``."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def spread(values: list[float]) -> str:
    """Format median, minimum and maximum as ``3.20 (3.00-3.40)``."""
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


def machine(arguments: argparse.Namespace, peaks: dict[str, float]) -> str:
    """Description of the machine and its rates."""
    processor = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        named = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
        processor = named[0].partition(": ")[2] if named else processor
    if arguments.device == "cuda":
        processor = f"{torch.cuda.get_device_name()}, {processor}"
    shown = ", ".join(f"{name} {value / 1e9:,.0f} GFLOP/s" for name, value in peaks.items())
    return (
        f"{processor}, {arguments.threads} threads, torch {torch.__version__.partition('+')[0]}. "
        f"A large square matrix product runs at {shown}."
    )


def tables(results: Result, peaks: dict[str, float], place: str) -> dict[str, str]:
    """The tables of docs/speed.md, by their names in it."""
    models = results["models"].values()
    growth = [growth_row(g["title"], g["what"], point) for g in results["growth"].values() for point in g["points"]]
    return {
        "machine": place,
        "models": "\n".join([*MODELS_HEAD, *(row for result in models for row in rows_of(result))]),
        "use": "\n".join([*USE_HEAD, *use_rows(results["models"], peaks)]),
        **({"growth": "\n".join([*GROWTH_HEAD, *growth])} if growth else {}),
    }


def write_between(path: Path, texts: dict[str, str]) -> None:
    """Write each text between ``<!-- NAME -->`` and ``<!-- /NAME -->`` in a file."""
    page = path.read_text(encoding="utf-8")
    for name, text in texts.items():
        head, begin, rest = page.partition(f"<!-- {name} -->\n")
        _, end, tail = rest.partition(f"<!-- /{name} -->")
        if not begin or not end:
            sys.exit(f"{path} has no markers for {name}: add <!-- {name} --> and <!-- /{name} -->")
        page = f"{head}{begin}{text}\n{end}{tail}"
    path.write_text(page, encoding="utf-8")


def draw(results: Result, path: Path) -> None:
    """Draw bars of the ratios and the growth curves."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    colours = {"plain": "#999999", FP32: "#6baed6", COMPILED: "#3182bd", DEFAULT: "#e6550d"}
    models, growth = list(results["models"].values()), list(results["growth"].values())
    heights = [0.5 + 0.75 * len(models)] + ([2.6, 2.6] if growth else [])
    figure = plt.figure(figsize=(6.4, sum(heights)), layout="constrained")
    panels = figure.add_gridspec(len(heights), 3, height_ratios=heights)
    bars = figure.add_subplot(panels[0, :])
    names = [name for name in colours if name != "plain" and any(name in model["ways"] for model in models)]
    for row, model in enumerate(models):
        for k, name in enumerate(names):
            if name not in model["ways"]:  # compiling failed
                continue
            values = ratios(model["ways"], name)
            middle = statistics.median(values)
            place = row + (k - (len(names) - 1) / 2) * 0.8 / len(names)
            label = name if row == 0 else None
            error = [[middle - values[0]], [values[-1] - middle]]
            bars.barh(place, middle, 0.8 / len(names), xerr=error, color=colours[name], label=label, error_kw={"lw": 0.8})
            bars.text(0.06, place, f"{middle:.1f}", va="center", color="white", fontsize=8)
    bars.axvline(1, color=colours["plain"], lw=1)
    bars.set_yticks(range(len(models)), [model["title"].replace(", ", "\n") for model in models])
    bars.invert_yaxis()
    bars.set_xlabel("times as fast as a plain loop of the same networks")
    bars.legend(fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False)
    for k, curve in enumerate(growth):
        axes = figure.add_subplot(panels[1 + k // 3, k % 3])
        values = [point["value"] for point in curve["points"]]
        for name in ("plain", DEFAULT):
            rates = [rate(point["ways"][name], point["images"]) for point in curve["points"]]
            axes.plot(values, rates, "o-", ms=3, color=colours[name], label="plain" if name == "plain" else "gan_cli")
        axes.set(xscale="log", ylim=(0, None), title=f"{curve['title']}: {curve['what']}")
        axes.set_xticks(values, [f"{value:,}" for value in values], fontsize=7)
        axes.minorticks_off()
        axes.title.set_fontsize(8)
        axes.tick_params(labelsize=7)
        if k % 3 == 0:
            axes.set_ylabel("images/s", fontsize=8)
        if k == 0:
            axes.legend(fontsize=7)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def models(text: str) -> list[str]:
    """Parse a list of models such as ``mlp,dcgan64``."""
    names = text.split(",")
    if unknown := [name for name in names if name not in MODELS]:
        raise argparse.ArgumentTypeError(f"unknown model {unknown[0]!r}. Choose from {', '.join(MODELS)}")
    return names


def shared_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments shared with ``profile_step.py``."""
    parser.add_argument("--models", default=MODELS, type=models, help="any of " + ",".join(MODELS))
    parser.add_argument("--data", default=Path("data"), type=Path, help="dataset.root of gan-train")
    parser.add_argument("--device", default=choose_device("auto").type, choices=["cpu", "cuda"])
    parser.add_argument("--threads", default=default_threads(), type=int)
    parser.add_argument("--write-docs", action="store_true", help="rewrite the tables and the picture of docs/speed.md")
    parser.add_argument("--docs", default=DOCS, type=Path, help=argparse.SUPPRESS)


def main() -> None:
    """Measure all models, print the tables and write them to the docs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shared_arguments(parser)
    parser.add_argument("--quick", action="store_true", help="few steps and rounds, no growth curves")
    parser.add_argument("--no-growth", action="store_true", help="no growth curves")
    parser.add_argument("--rounds", default=5, type=int)
    parser.add_argument("--save", type=Path, help="write all measurements to this JSON file")
    parser.add_argument("--load", type=Path, help="read the measurements from this JSON file instead of measuring")
    arguments = parser.parse_args()
    if arguments.load is not None:
        results = json.loads(arguments.load.read_text())
    else:
        torch.set_num_threads(arguments.threads)
        peak = Peak(arguments.device)
        with tempfile.TemporaryDirectory(prefix="gan-cli-bench-") as home:
            curves = not (arguments.quick or arguments.no_growth)
            kinds = {CASES[name].data for name in arguments.models} | ({"MNIST"} if curves else set())
            sources = make_data(Path(home), kinds, arguments.data)
            print("\n".join(MODELS_HEAD), flush=True)
            measured = measure_models(arguments.models, Path(home), sources, arguments, peak)
            growth = measure_growth(Path(home), arguments, peak) if curves else {}
        peaks = {name: peak[name] for name in ("fp32", "bf16")}
        results = {"models": measured, "growth": growth, "peaks": peaks, "machine": machine(arguments, peaks)}
    if arguments.save is not None:
        arguments.save.write_text(json.dumps(results, indent=1))
    texts = tables(results, results["peaks"], results["machine"])
    print("\n" + "\n\n".join(texts.values()))
    if arguments.write_docs:
        write_between(arguments.docs / "speed.md", texts)
        draw(results, arguments.docs / "speed.png")


if __name__ == "__main__":
    main()
