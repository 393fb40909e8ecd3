"""Profile of a step of each model, for docs/speed.md.

    python benchmarks/profile_step.py [--models mlp,dcgan64] [--device cuda] [--write-docs]

``gan-train`` runs under ``torch.profiler`` with its default settings, but without torch.compile, which hides the operations.
The matrix products and convolutions of a step are then repeated alone: their time is a lower bound. On a GPU the time of a
step, and the share of it in which kernels run, are those of the compiled step.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch
from cases import CASES, make_data
from measure import KINDS, Peak, Training
from speed import WARM_UP_STEPS, common, figure, machine, shared_arguments, write_between

HEAD = [
    f"| model | ms per step | {' | '.join(KINDS)} | products alone | their rate, of a large product's |",
    f"|---|---|{'---|' * len(KINDS)}---|---|",
]
GPU_COLUMN = " kernels run, as chosen |"


def measure(name: str, folder: Path, settings: list[str], device: str, steps: int, *, alone: bool = True) -> dict[str, Any]:
    """Profile a step of one model. ``seconds`` is its time without the profiler. ``alone``: also time the products alone."""
    training = Training("ours", name, folder, settings, device)
    try:
        training.ask("steps", WARM_UP_STEPS[device])
        seconds = [training.ask("steps", steps)["seconds"] / steps for _ in range(2)]
        profile = training.ask("profile", steps)
        seconds.append(training.ask("steps", steps)["seconds"] / steps)
        share = None if profile["kernels"] is None else profile["kernels"] / profile["wall"]
        result = {**profile, "kernels_share": share, "seconds": sorted(seconds)[1], "precision": training.precision}
        return {**training.ask("products"), **result} if alone else result
    finally:
        training.end()


def row(title: str, result: dict[str, Any], peak: Peak) -> str:
    """The row of a model in the table."""
    cells = [figure(result["seconds"] * 1e3), *(f"{result['kinds'][kind] / result['wall']:.0%}" for kind in KINDS)]
    rate = result["flops"] / result["bare"] / peak[result["precision"]]
    cells += [f"{result['bare'] / result['seconds']:.0%} of the step", f"{rate:.0%} ({result['precision']})"]
    if result["kernels_share"] is not None:
        cells.append(f"{result['kernels_share']:.0%}")
    return f"| {title} | {' | '.join(cells)} |"


def main() -> None:
    """Measure all models, print the table and write it to the docs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shared_arguments(parser)
    parser.add_argument("--steps", default=None, type=int, help="steps to profile; by default 50, or 3 from 64 pixels on")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    peak, lines = Peak(arguments.device), list(HEAD)
    if arguments.device == "cuda":
        lines = [HEAD[0] + GPU_COLUMN, HEAD[1] + "---|"]
    print("\n".join(lines), flush=True)
    with tempfile.TemporaryDirectory(prefix="gan-cli-bench-") as home:
        make_data(Path(home), {CASES[name].data for name in arguments.models}, arguments.data)
        for name in arguments.models:
            few = 50 if name in ("mlp", "wgan") or arguments.device == "cuda" else 3
            settings = [*common(arguments), "compile=false"]
            peak.measure()
            result = measure(name, Path(home), settings, arguments.device, arguments.steps or few)
            if arguments.device == "cuda" and len(settings) > 1:
                compiled = measure(name, Path(home), settings[:1], arguments.device, arguments.steps or few, alone=False)
                result |= {key: compiled[key] for key in ("seconds", "kernels_share")}
            peak.measure()
            lines.append(row(CASES[name].title, result, peak))
            print(lines[-1], flush=True)
    place = machine(arguments, {name: peak[name] for name in ("fp32", "bf16")})
    print("\n" + place)
    if arguments.write_docs:
        write_between(arguments.docs / "speed.md", {"profile": "\n".join([*lines, "", place])})


if __name__ == "__main__":
    main()
