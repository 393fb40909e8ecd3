"""Train a tiny version of every preset for 50 steps and hash the weights, to show that two versions of gan_cli train alike.

    python scripts/preset_weights.py > before.json                    # in a checkout of one version
    python scripts/preset_weights.py --against before.json            # in a checkout of another
    python scripts/preset_weights.py --python OTHER/.venv/bin/python  # train with another version, with the presets of this one

The hash covers the weights and buffers of all networks, their average and the states of both optimizers. Hashes differ
between kinds of processors and versions of torch, so run both versions on one machine.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from conftest import make_data  # noqa: E402
from safetensors.numpy import load_file  # noqa: E402
from tiny import PRESETS, tiny  # noqa: E402

STEPS = 50
GROUPS = ("generator", "discriminator", "generator_ema", "task", "optimizer_generator", "optimizer_discriminator")
MORE_CONFIGS = {  # options that no preset uses
    "loss=hinge": ["model=dcgan", "loss=hinge"],
    "loss=minimax": ["model=dcgan", "loss=minimax"],
    "model=infogan": ["model=infogan", "dataset.image_size=32", "model.generator.width=4", "model.discriminator.width=4"],
    "model=resnet": ["model=resnet", "loss=wgan_gp", "model.generator.width=4", "model.discriminator.width=4"],
    "schedule=cosine": ["schedule=cosine"],
    "optimizer=ttur": ["optimizer=ttur"],
    "precision=bf16": ["model=dcgan", "precision=bf16"],
    "generator first": ["model=dcgan", "loss.first=generator", "loss.n_critic=2", "model.task.same_noise=true"],
}


def weights(python: str, arguments: list[str], home: Path) -> str:
    """SHA-256 in hex of the weights after ``gan-train arguments``."""
    common = [f"total_steps={STEPS}", "log_every=25", f"save_every={STEPS}", "sample_every=1000", "gif=false", "run_dir=run"]
    command = [python, "-m", "gan_cli.train", *arguments, *common]
    done = subprocess.run(command, cwd=home, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr[-2000:]}")
    digest = hashlib.sha256()
    for group in GROUPS:
        file = home / "run" / "checkpoints" / f"step-{STEPS:08d}" / f"{group}.safetensors"
        for key, value in sorted(load_file(file).items()) if file.exists() else []:
            digest.update(f"{group} {key} {value.dtype} {value.shape}".encode() + value.tobytes())
    return digest.hexdigest()


def main() -> None:
    """Print the hashes as JSON, or compare them with a file of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=sys.executable, help="interpreter of the version to train with")
    parser.add_argument("--against", type=Path, help="JSON file with the hashes of another version")
    parser.add_argument("names", nargs="*", help="presets to train; all by default")
    options = parser.parse_args()
    hashes = {}
    with tempfile.TemporaryDirectory() as folder:
        data = make_data(Path(folder) / "data")
        small = ["threads=1", "batch_size=4", "precision=fp32"]
        jobs = {name: [f"experiment={name}", *tiny(name, data)] for name in PRESETS}
        jobs |= {name: [*small, *arguments] for name, arguments in MORE_CONFIGS.items()}
        for name in options.names or jobs:
            home = Path(folder) / name.replace(" ", "-")
            home.mkdir()
            hashes[name] = weights(options.python, jobs[name], home)
            print(name, hashes[name][:12], file=sys.stderr, flush=True)
    if options.against is None:
        print(json.dumps(hashes, indent=1))
        return
    before = json.loads(options.against.read_text())
    differ = [name for name in hashes if hashes[name] != before.get(name)]
    print(f"{len(hashes) - len(differ)} of {len(hashes)} identical" + (f"; not: {', '.join(differ)}" if differ else ""))
    sys.exit(bool(differ))


if __name__ == "__main__":
    main()
