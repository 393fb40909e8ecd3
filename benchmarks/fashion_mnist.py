"""Four GANs on Fashion-MNIST with three seeds each, after equally many images: the table in docs/evaluation.md.

    python benchmarks/fashion_mnist.py [--root data] [--folder outputs/fashion_mnist] [--seeds 3]

Every run is a gan-train and a gan-eval command, which is printed. Finished commands are skipped and stopped ones resumed.
Takes about an hour and a half on 2 CPU cores.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

IMAGES = 640_000  # real images shown to the discriminator
NARROW = ["model.generator.width=32", "model.discriminator.width=32"]  # narrow enough for twelve runs on a laptop
# Name -> arguments of gan-train, and images per step: batch size times discriminator updates.
RUNS = {
    "gan": (["experiment=gan_fashion_mnist", "dataset.image_size=32", "log_every=50"], 100),
    "dcgan": (["experiment=dcgan_fashion_mnist", *NARROW], 64),
    "wgan": (["model=wgan_dcgan", "dataset=fashion_mnist", *NARROW], 64 * 5),
    "wgan_gp": (["experiment=wgan_gp_fashion_mnist", *NARROW, "log_every=50"], 64 * 5),
}
COLUMNS = ["fid", "kid", "is", "precision", "recall", "density", "coverage", "classes"]


def main() -> None:
    """Train and evaluate all runs and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", default="data", help="directory of FashionMNIST/raw, or of its download")
    parser.add_argument("--folder", default="outputs/fashion_mnist", type=Path)
    parser.add_argument("--seeds", default=3, type=int)
    arguments = parser.parse_args()
    results: dict[str, list[dict[str, float]]] = {name: [] for name in RUNS}
    protocols = set()
    for seed in range(arguments.seeds):
        for name, (recipe, per_step) in RUNS.items():
            steps = IMAGES // per_step
            run_dir = arguments.folder / f"{name}-seed{seed}"
            every = [f"total_steps={steps}", f"save_every={steps // 5}", f"sample_every={steps // 5}", "keep_checkpoints=10"]
            place = [f"dataset.root={arguments.root}", "threads=1", f"seed={seed}", f"run_dir={run_dir}"]
            command("gan_cli.train", *recipe, *every, *place)
            for step in range(steps // 5, steps + 1, steps // 5) if seed == 0 else [steps]:  # a curve for seed 0
                table = run_dir / "table"  # separate from other evaluations of the run
                if not list(table.glob(f"*step-{step:08d}-*.json")):
                    command("gan_cli.eval", f"run_dir={run_dir}", f"step={step}", f"root={arguments.root}", f"output={table}")
            (file,) = table.glob(f"*step-{steps:08d}-*.json")
            protocols.add(file.stem.rsplit("-", 1)[1])
            results[name].append(json.loads(file.read_text())["metrics"])
    if len(protocols) > 1:
        sys.exit(f"the evaluations have different protocols: {', '.join(sorted(protocols))}. Remove {arguments.folder}/*/table")
    print(f"\nprotocol {protocols.pop()}; mean +- standard deviation over {arguments.seeds} seeds\n")
    print(f"| | {' | '.join(COLUMNS)} |\n|---|{'---|' * len(COLUMNS)}")
    for name, evaluations in results.items():
        print(f"| {name} | {' | '.join(spread([result[key] for result in evaluations]) for key in COLUMNS)} |")


def command(module: str, *arguments: str) -> None:
    """Run a command of gan_cli. Exits if it fails."""
    print("gan-" + module.removeprefix("gan_cli."), *arguments, flush=True)
    done = subprocess.run([sys.executable, "-m", module, *arguments], stdout=subprocess.DEVNULL)
    if done.returncode:
        sys.exit(done.returncode)


def spread(values: list[float]) -> str:
    """Format mean and standard deviation as ``12.3 +- 0.4``."""
    digits = 4 if max(map(abs, values)) < 0.1 else 3 if max(map(abs, values)) < 2 else 2
    if len(values) < 2:
        return f"{values[0]:.{digits}f}"
    return f"{statistics.mean(values):.{digits}f} +- {statistics.stdev(values):.{digits}f}"


if __name__ == "__main__":
    main()
