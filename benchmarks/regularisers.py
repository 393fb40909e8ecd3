"""Cost of R1: on the logits of the loss, with an additional pass of D, and in every 16th step only.

    python benchmarks/regularisers.py [--rounds 12] [--width 64] [--size 32]

The three and the plain loss take turns in one process, so that other load on the machine affects all of them. The network is
a DCGAN without normalisation; a step has one update of D and one of G. Printed are the median milliseconds of a step, and
the median over the rounds of the ratio to the plain loss.
"""

from __future__ import annotations

import argparse
import statistics
import time
from itertools import count
from types import SimpleNamespace

import torch
from torch import Tensor

from gan_cli.losses import NonSaturating
from gan_cli.networks import dcgan
from gan_cli.objective import DiscriminatorPass, Objective, Regulariser
from gan_cli.penalties import R1
from gan_cli.schedules import Constant
from gan_cli.tasks.noise import NoiseToImage
from gan_cli.training.ema import EMA
from gan_cli.training.loop import Player, Progress, train

BATCH_SIZE = 64
STEPS_PER_ROUND = 16  # a regulariser with every=16 is part of one of them


class OwnPass(Regulariser):
    """R1 with an additional pass of D, as in a penalty."""

    per_sample = True

    def forward(self, seen: DiscriminatorPass) -> Tensor:
        """Half the mean squared norm of the gradient at the real images, a scalar."""
        images = seen.real.images.detach().requires_grad_(True)
        (gradient,) = torch.autograd.grad(seen.critic(images).sum(), images, create_graph=True)
        return 0.5 * gradient.square().flatten(1).sum(1).mean()


class Stream:
    """An endless stream of one random batch."""

    def __init__(self, size: int) -> None:
        self.batch, self.position = {"image": torch.rand(BATCH_SIZE, 1, size, size) * 2 - 1}, 0

    def __next__(self) -> dict[str, Tensor]:
        self.position += BATCH_SIZE
        return self.batch


def game(size: int, width: int, regulariser: Regulariser | None) -> SimpleNamespace:
    """A game of two DCGAN networks without normalisation in D."""
    torch.manual_seed(0)
    networks = {
        "generator": dcgan.Generator(latent_dim=100, image_size=size, channels=1, width=width),
        "discriminator": dcgan.Discriminator(image_size=size, channels=1, width=width, norm="none"),
    }
    for network in networks.values():
        network.to(memory_format=torch.channels_last)
    objective = Objective(NonSaturating(), regularisers={} if regulariser is None else {"r1": regulariser})
    task = NoiseToImage(**networks, objective=objective, latent_dim=100)
    players = {
        name: Player(name, task, network, torch.optim.Adam(network.parameters(), lr=2e-4, fused=True), Constant())  # type: ignore[arg-type]
        for name, network in networks.items()
    }
    return SimpleNamespace(
        task=task, **players, ema=EMA(task.generator, half_life=10_000), batches=Stream(size), progress=Progress()
    )


def main() -> None:
    """Measure in turns and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--size", type=int, default=32)
    options = parser.parse_args()
    kinds = {
        "plain loss": None,
        "R1 on the loss's logits": R1(),
        "R1 with a pass of its own": OwnPass(10.0),
        "R1 every 16th step": R1(every=16),
    }
    games = {name: game(options.size, options.width, kind) for name, kind in kinds.items()}
    seconds: dict[str, list[float]] = {name: [] for name in games}
    for turn in count(-1):
        if turn == options.rounds:
            break
        for name, each in games.items():
            start = time.perf_counter()
            train(each, total_steps=each.progress.step + STEPS_PER_ROUND, seed=0, after_step=lambda logs: True)
            if turn >= 0:  # the first round is a warm-up
                seconds[name].append((time.perf_counter() - start) / STEPS_PER_ROUND)
    plain = seconds["plain loss"]
    for name, values in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(values, plain, strict=True))
        print(f"{name:<28} {statistics.median(values) * 1000:8.1f} ms  {ratio:5.2f}")


if __name__ == "__main__":
    main()
