"""Time of the FID of 10,000 images from their features, compared with torch-fidelity and torchmetrics.

    python benchmarks/fid_cost.py [--n 10000] [--dim 2048] [--rounds 3]

All start from the same float32 features and run in turns in one process. torchmetrics is left out if it is not installed.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric

from gan_cli.metrics.frechet import Gaussian, frechet_distance


def ours(real: Tensor, fake: Tensor) -> float:
    """FID by gan_cli."""
    return frechet_distance(Gaussian.of(real), Gaussian.of(fake))


def fidelity(real: Tensor, fake: Tensor) -> float:
    """FID by torch-fidelity."""
    statistics = [fid_features_to_statistics(features) for features in (real, fake)]
    return float(fid_statistics_to_metric(*statistics, verbose=False)[KEY_METRIC_FID])


def torchmetrics_way(real: Tensor, fake: Tensor) -> float:
    """FID by torchmetrics, with an extractor that returns its input."""
    from torchmetrics.image.fid import FrechetInceptionDistance

    extractor = nn.Identity()
    extractor.num_features = real.shape[1]  # type: ignore[assignment]
    metric = FrechetInceptionDistance(feature=extractor, normalize=False, input_img_size=(1, 1, 1))
    metric.set_dtype(torch.float64)
    metric.update(real, real=True)
    metric.update(fake, real=False)
    return float(metric.compute())


def main() -> None:
    """Run all in turns and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", default=10_000, type=int)
    parser.add_argument("--dim", default=2048, type=int)
    parser.add_argument("--rounds", default=3, type=int)
    arguments = parser.parse_args()
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(arguments.dim, arguments.dim, generator=generator) / arguments.dim**0.5
    scales = torch.logspace(0, -2, arguments.dim)
    real, fake = (
        torch.randn(arguments.n, arguments.dim, generator=generator).mul(scales).matmul(mixing).relu() for _ in range(2)
    )
    ways: dict[str, Callable[[Tensor, Tensor], float]] = {"gan_cli": ours, "torch-fidelity": fidelity}
    try:
        import torchmetrics.image.fid  # noqa: F401

        ways["torchmetrics"] = torchmetrics_way
    except ImportError:
        pass
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    values = {}
    for _ in range(arguments.rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            values[name] = way(real, fake)
            seconds[name].append(time.perf_counter() - start)
    base = sorted(seconds["gan_cli"])[arguments.rounds // 2]
    print(f"{arguments.n} x {arguments.dim}, {torch.get_num_threads()} threads, medians of {arguments.rounds}")
    for name, times in seconds.items():
        median = sorted(times)[arguments.rounds // 2]
        print(f"{name:<15} FID {values[name]:.8f}  {median:6.2f} s  {median / base:5.2f} x ours")


if __name__ == "__main__":
    main()
