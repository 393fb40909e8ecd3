"""Adversarial losses: functions of the discriminator's logits on real and generated images.

Each class has ``discriminator(real_logits, fake_logits)`` and ``generator(real_logits, fake_logits)``, both scalars to be
minimised, and ``report``, the numbers to watch. Logits are float32 of any shape: (N,) or a map of patches.
``real_logits`` is None in the generator's turn unless the class sets ``uses_real = True`` (relativistic losses do).

To add a loss: a class like these, in any importable file, and a YAML that names it. See CONTRIBUTING.md.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from gan_cli.ranges import Positive


def accuracy(real_logits: Tensor, fake_logits: Tensor, boundary: float) -> Tensor:
    """The mean of two shares: real logits above ``boundary`` and generated ones below it. A scalar in [0, 1]."""
    return ((real_logits > boundary).float().mean() + (fake_logits < boundary).float().mean()) / 2


class Logistic:
    """Base of the losses on probabilities D = sigmoid(logits): the discriminator's side of the value function.

    D maximises E[log D(x)] + E[log(1 - D(G(z)))] (Goodfellow et al. 2014, equation 1). Its loss is the negative of this
    sum. It is log 4 = 1.386 where D = 1/2 everywhere, which is the optimum of the game.
    """

    uses_real = False

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """-E[log D(x)] - E[log(1 - D(G(z)))]."""
        return F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()

    def report(self, real_logits: Tensor, fake_logits: Tensor) -> dict[str, Tensor]:
        """``d/real``: mean D(x). ``d/fake``: mean D(G(z)). Both are probabilities. ``d/accuracy``: see :func:`accuracy`."""
        real, fake = torch.sigmoid(real_logits).mean(), torch.sigmoid(fake_logits).mean()
        return {"d/real": real, "d/fake": fake, "d/accuracy": accuracy(real_logits, fake_logits, 0.0)}


class Minimax(Logistic):
    """The game as written: G minimises E[log(1 - D(G(z)))] (Goodfellow et al. 2014, equation 1)."""

    def generator(self, real_logits: Tensor | None, fake_logits: Tensor) -> Tensor:
        """E[log(1 - D(G(z)))], which is never positive."""
        return -F.softplus(fake_logits).mean()


class NonSaturating(Logistic):
    """G maximises E[log D(G(z))], whose gradient does not vanish early on (Goodfellow et al. 2014, section 3)."""

    def generator(self, real_logits: Tensor | None, fake_logits: Tensor) -> Tensor:
        """-E[log D(G(z))]."""
        return F.softplus(-fake_logits).mean()


class Score:
    """Base of the losses on unbounded scores D(x).

    ``boundary``: the score that separates real from generated images; None if only differences of scores have a meaning.
    """

    uses_real = False
    boundary: float | None = None

    def report(self, real_logits: Tensor, fake_logits: Tensor) -> dict[str, Tensor]:
        """``d/real``: mean score of real images. ``d/fake``: of generated ones. ``d/accuracy`` if there is a boundary."""
        scores = {"d/real": real_logits.mean(), "d/fake": fake_logits.mean()}
        if self.boundary is not None:
            scores["d/accuracy"] = accuracy(real_logits, fake_logits, self.boundary)
        return scores


class LeastSquares(Score):
    """LSGAN with a = 0, b = c = 1 (Mao et al. 2017, equation 9).

    Args:
        generator_weight: factor on the generator's square: 1/2 in LSGAN, 1 in CycleGAN.
    """

    boundary = 0.5

    def __init__(self, generator_weight: Positive = 0.5) -> None:
        self.generator_weight = generator_weight

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """E[(D(x) - 1)^2] / 2 + E[D(G(z))^2] / 2."""
        return 0.5 * (real_logits - 1).square().mean() + 0.5 * fake_logits.square().mean()

    def generator(self, real_logits: Tensor | None, fake_logits: Tensor) -> Tensor:
        """E[(D(G(z)) - 1)^2] * generator_weight."""
        return self.generator_weight * (fake_logits - 1).square().mean()


class Hinge(Score):
    """Hinge loss (Lim and Ye 2017; Miyato et al. 2018, equations 16 and 17)."""

    boundary = 0.0

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """E[max(0, 1 - D(x))] + E[max(0, 1 + D(G(z)))]."""
        return F.relu(1 - real_logits).mean() + F.relu(1 + fake_logits).mean()

    def generator(self, real_logits: Tensor | None, fake_logits: Tensor) -> Tensor:
        """-E[D(G(z))]."""
        return -fake_logits.mean()


class Wasserstein(Score):
    """Wasserstein loss: the critic estimates the Wasserstein-1 distance (Arjovsky et al. 2017, equation 2).

    A constraint (weight clipping) or a penalty must keep the critic Lipschitz.
    """

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """E[D(G(z))] - E[D(x)]."""
        return fake_logits.mean() - real_logits.mean()

    def generator(self, real_logits: Tensor | None, fake_logits: Tensor) -> Tensor:
        """-E[D(G(z))]."""
        return -fake_logits.mean()

    def report(self, real_logits: Tensor, fake_logits: Tensor) -> dict[str, Tensor]:
        """``d/wasserstein``: the estimate E[D(x)] - E[D(G(z))], up to the critic's Lipschitz constant."""
        scores = super().report(real_logits, fake_logits)
        return {**scores, "d/wasserstein": scores["d/real"] - scores["d/fake"]}
