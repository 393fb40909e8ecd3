"""How fast gan_cli trains, beside plain loops of the same networks on the same data, in turns: the tables of docs/speed.md.

    python benchmarks/speed.py [--models mlp,dcgan64] [--quick] [--data data] [--device cuda] [--write-docs]

Every training is a process of its own, see ``measure.py``. In each round every one of them does the same number of steps while
the others sleep, and a ratio is that of one round. Real data is used where ``--data`` has it.
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
# Of the curves: what grows, its settings, its values.
GROWTH = {
    "batch": ("batch_size={}", [16, 64, 256]),
    "image size": ("dataset.image_size={}", [32, 64, 128]),
    "data set": ("", [1_000, 10_000, 60_000]),
}
WARM = {"cpu": 2, "cuda": 10}  # steps before anything is measured: compiling, and recording CUDA graphs

Result = dict[str, Any]


def ways(quick: bool) -> dict[str, list[str]]:
    """How gan_cli is run: the same mathematics as the plain loop, compiled unless it has to be quick, and as it chooses."""
    compiled = {} if quick else {COMPILED: ["precision=fp32", "compile=true"]}
    return {FP32: ["precision=fp32", "compile=false"], **compiled, DEFAULT: ["compile=false"] if quick else []}


@dataclass(frozen=True)
class Plan:
    """``rounds`` turns of about ``seconds`` of the plain loop each, at most ``most`` steps."""

    rounds: int
    seconds: float
    most: int = 2000


def compare(
    case: str, folder: Path, settings: Sequence[str], device: str, plan: Plan, peak: Peak, kinds: dict[str, list[str]]
) -> Result:
    """Trains one case in all ways, in turns.

    Returns:
        For ``plain`` and each of ``kinds``, of each round: ``seconds`` of a step, those of the process (``cpu``), those that it
        ``waited`` for data; and ``memory`` in bytes. For ours also ``beside``, the seconds of a picture, what is measured with
        it and a checkpoint.
    """
    running: dict[str, Training] = {}
    try:
        running["plain"] = Training("plain", case, folder, settings, device)
        running["plain"].ask("steps", WARM[device])
        steps = max(1, min(plan.most, round(plan.seconds / running["plain"].ask("steps", 1)["seconds"])))
        last = WARM[device] + steps * plan.rounds + 2  # that of the picture and the checkpoint
        rhythm = [f"log_every={steps}", f"sample_every={last}", f"save_every={last}"]
        for name, own in kinds.items():
            try:
                running[name] = Training("ours", case, folder, [*settings, *rhythm, *own], device)
            except SystemExit as error:
                if name != COMPILED:
                    raise
                print(f"no figures of {name}: {str(error).strip().splitlines()[-1]}", file=sys.stderr)
                continue
            running[name].ask("steps", WARM[device])
        rounds = []
        for k in range(plan.rounds):
            peak.measure()
            names = [*running][k % len(running) :] + [*running][: k % len(running)]  # each is first once
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
    """``flops`` of a step and ``bare``, the seconds of its products alone. Without torch.compile, which would hide them."""
    training = Training("as compiled" if compiled else "ours", case, folder, [*settings, "compile=false"], device)
    try:
        training.ask("steps", 2)
        found = training.ask("products")
        return {key: found[key] for key in ("flops", "bare")}
    finally:
        training.end()


def measure_models(
    models: Sequence[str], folder: Path, given: dict[str, str], arguments: argparse.Namespace, peak: Peak
) -> Result:
    """All ways of training each model."""
    results: Result = {}
    for name in models:
        case = CASES[name]
        config = composed(case, folder)
        plan = Plan(2, 0.5, 20) if arguments.quick else Plan(arguments.rounds, 2.0)
        results[name] = {
            "title": case.title,
            "data": given[case.data],
            "images": images_per_step(config),
            "every": min(config.sample_every, config.save_every),
            "ways": compare(name, folder, common(arguments), arguments.device, plan, peak, ways(arguments.quick)),
        }
        ours = [way for kind, way in results[name]["ways"].items() if kind != "plain"]
        for precision, compiled in sorted({(way["precision"], way["compiled"]) for way in ours}):
            settings = [*common(arguments), f"precision={precision}"]
            found = products(name, folder, settings, arguments.device, compiled=compiled)
            for way in ours:
                way |= found if (way["precision"], way["compiled"]) == (precision, compiled) else {}
        print("\n".join(rows_of(results[name])), flush=True)
    return results


def measure_growth(folder: Path, arguments: argparse.Namespace, peak: Peak) -> Result:
    """Plain and ours at sizes of batch, image and data set."""
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
    """Settings of every training."""
    return [f"threads={arguments.threads}"]


def rate(way: Result, images: int) -> float:
    """Images a second, the median."""
    return images / statistics.median(way["seconds"])


def ratios(ways: Result, name: str) -> list[float]:
    """How many times faster than the plain loop, in each round."""
    return sorted(p / o for p, o in zip(ways["plain"]["seconds"], ways[name]["seconds"], strict=True))


MODELS_HEAD = [
    "| model | loop | images/s | ms per step | times the plain loop (of all rounds) | waits for data | memory, MB |",
    "|---|---|---|---|---|---|---|",
]


def rows_of(result: Result) -> list[str]:
    """Of the table of models, one row for each way."""
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
    """How much of the machine ours uses."""
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
    """One point of a curve."""
    rates = [figure(rate(point["ways"][name], point["images"])) for name in ("plain", DEFAULT)]
    return f"| {title} | {what} | {point['value']:,} | {' | '.join(rates)} | {spread(ratios(point['ways'], DEFAULT))} |"


def figure(value: float) -> str:
    """Three digits, or all of a whole number: ``0.204``, ``17.6``, ``5,300``."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def spread(values: list[float]) -> str:
    """``3.2 (3.0-3.4)``: the median, the least and the most."""
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


def machine(arguments: argparse.Namespace, peaks: dict[str, float]) -> str:
    """On what it was measured."""
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
    """The tables of docs/speed.md by their names there."""
    models = results["models"].values()
    growth = [growth_row(g["title"], g["what"], point) for g in results["growth"].values() for point in g["points"]]
    return {
        "machine": place,
        "models": "\n".join([*MODELS_HEAD, *(row for result in models for row in rows_of(result))]),
        "use": "\n".join([*USE_HEAD, *use_rows(results["models"], peaks)]),
        **({"growth": "\n".join([*GROWTH_HEAD, *growth])} if growth else {}),
    }


def write_between(path: Path, texts: dict[str, str]) -> None:
    """Puts each text between ``<!-- NAME -->`` and ``<!-- /NAME -->`` of a file."""
    page = path.read_text(encoding="utf-8")
    for name, text in texts.items():
        head, begin, rest = page.partition(f"<!-- {name} -->\n")
        _, end, tail = rest.partition(f"<!-- /{name} -->")
        if not begin or not end:
            sys.exit(f"{path} has no place for {name}: add <!-- {name} --> and <!-- /{name} -->")
        page = f"{head}{begin}{text}\n{end}{tail}"
    path.write_text(page, encoding="utf-8")


def draw(results: Result, path: Path) -> None:
    """Bars of the ratios, and curves of what grows, narrow enough for a phone."""
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
            if name not in model["ways"]:  # it could not be compiled
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
    """``mlp,dcgan64`` as a list."""
    names = text.split(",")
    if unknown := [name for name in names if name not in MODELS]:
        raise argparse.ArgumentTypeError(f"there is no model {unknown[0]!r}. Choose of {', '.join(MODELS)}")
    return names


def shared_arguments(parser: argparse.ArgumentParser) -> None:
    """Those that the profile has too."""
    parser.add_argument("--models", default=MODELS, type=models, help="of " + ",".join(MODELS))
    parser.add_argument("--data", default=Path("data"), type=Path, help="the dataset.root of gan-train")
    parser.add_argument("--device", default=choose_device("auto").type, choices=["cpu", "cuda"])
    parser.add_argument("--threads", default=default_threads(), type=int)
    parser.add_argument("--write-docs", action="store_true", help="rewrite the tables and the picture of docs/speed.md")
    parser.add_argument("--docs", default=DOCS, type=Path, help=argparse.SUPPRESS)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shared_arguments(parser)
    parser.add_argument("--quick", action="store_true", help="few steps and rounds; no curves")
    parser.add_argument("--no-growth", action="store_true", help="no curves")
    parser.add_argument("--rounds", default=5, type=int)
    parser.add_argument("--save", type=Path, help="keep every figure in this JSON file")
    parser.add_argument("--load", type=Path, help="measure nothing, take the figures of such a file")
    arguments = parser.parse_args()
    if arguments.load is not None:
        results = json.loads(arguments.load.read_text())
    else:
        torch.set_num_threads(arguments.threads)
        peak = Peak(arguments.device)
        with tempfile.TemporaryDirectory(prefix="gan-cli-bench-") as home:
            curves = not (arguments.quick or arguments.no_growth)
            kinds = {CASES[name].data for name in arguments.models} | ({"MNIST"} if curves else set())
            given = make_data(Path(home), kinds, arguments.data)
            print("\n".join(MODELS_HEAD), flush=True)
            measured = measure_models(arguments.models, Path(home), given, arguments, peak)
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
