"""The game of Goodfellow et al. 2014 on data whose density is known, so that its theory can be measured and drawn.

p_data and p_g are compared as probabilities of the cells of a grid, both smoothed by the same Gaussian one cell wide. Those
of p_data are exact; those of p_g are the shares of 2^16 generated points, so p_g is a kernel density estimate. As both are
treated alike, a divergence between cells never exceeds the true one (data processing inequality) and is 0 where p_g = p_data,
apart from the noise of the shares, which the smoothing and evenly spread latents keep small: see docs/theory.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from gan_cli.data.densities import GaussianMixture
from gan_cli.losses import Logistic
from gan_cli.objective import Objective
from gan_cli.randomness import derive
from gan_cli.ranges import Width
from gan_cli.tasks.noise import NoiseToImage

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GENERATED = 2**16  # generated points whose density represents p_g
VEEGAN_SAMPLES = 2500  # generated points for metric/modes
GOOD = 3.0  # standard deviations from the nearest centre (Srivastava et al. 2017, section 4.1)
MOST_LATENTS = 1024
CELLS_PER_STD = {1: 8, 2: 4}  # dimension -> cells per standard deviation
MOST_CELLS = 256  # cells along an axis
SHOWN_POINTS = 1500
SEEN = 1e-6  # probability of a cell below which D* is not drawn in the plane
ARROWS = 61  # lines z -> x in the picture
WIDTH, HEIGHT, DPI = 900, 600, 100  # size of a picture in pixels
DATA, FAKE, LEARNED, OPTIMAL = "black", "tab:green", "tab:blue", "tab:orange"


def optimal_discriminator(p_data: Tensor, p_g: Tensor) -> Tensor:
    """D* = p_data / (p_data + p_g), NaN where both are 0 (Goodfellow et al. 2014, proposition 1, equation 2).

    ``p_data``, ``p_g``: densities or probabilities of cells, any shape.
    """
    return p_data / (p_data + p_g)


def value(p_data: Tensor, p_g: Tensor) -> Tensor:
    """C(G) = max_D V(D, G) = E_data[log D*] + E_g[log(1 - D*)], in nats (Goodfellow et al. 2014, equation 4). A scalar.

    ``p_data``, ``p_g``: probabilities of the same cells, any shape, each summing to 1. The least value is -log 4 = -1.386,
    where p_g = p_data (theorem 1).
    """
    real, fake = (optimal_discriminator(*pair).nan_to_num(0.5) for pair in ((p_data, p_g), (p_g, p_data)))  # D*, 1 - D*
    return (torch.xlogy(p_data, real) + torch.xlogy(p_g, fake)).sum()


def jensen_shannon(p_data: Tensor, p_g: Tensor) -> Tensor:
    """JSD(p_data, p_g) = KL(p_data, m) / 2 + KL(p_g, m) / 2 with m their mean, in nats: 0 to log 2 = 0.693. A scalar.

    ``p_data``, ``p_g``: probabilities of the same cells, any shape, each summing to 1.
    """
    middle = (p_data + p_g) / 2
    terms = [torch.xlogy(p, (p / middle).nan_to_num(1.0)) for p in (p_data, p_g)]
    return (terms[0] + terms[1]).sum() / 2


def inner_edges(density: GaussianMixture) -> Tensor:
    """The grid: float64 (dim, cells - 1), evenly spaced, the same along every axis. The outermost cells have no end."""
    low, high = float(density.means.min()), float(density.means.max())
    margin = max(0.25 * (high - low), 4 * float(density.stds.max()))
    cells = math.ceil((high - low + 2 * margin) * CELLS_PER_STD[density.dim] / float(density.stds.min()))
    edges = torch.linspace(low - margin, high + margin, min(cells, MOST_CELLS) + 1, dtype=torch.float64)[1:-1]
    return edges.repeat(density.dim, 1)


def centres(edges: Tensor) -> Tensor:
    """The centres of the cells, (cells,) * dim + (dim,), the outermost cells taken as wide as the others.

    ``edges``: (dim, cells - 1).
    """
    width = edges[:, 1:2] - edges[:, 0:1]
    along = torch.cat([edges[:, :1] - width / 2, edges + width / 2], dim=1)
    return torch.stack(torch.meshgrid(*along, indexing="ij"), dim=-1)


def shares(points: Tensor, edges: Tensor) -> Tensor:
    """The share of ``points``, (N, dim), in each cell of a grid, float32 (cells,) * dim. ``edges``: (dim, cells - 1)."""
    dim, cells = len(edges), edges.shape[1] + 1
    index = torch.zeros(len(points), dtype=torch.int64, device=points.device)
    for axis in range(dim):
        index = index * cells + torch.bucketize(points[:, axis].contiguous(), edges[axis].contiguous())
    return torch.bincount(index, minlength=cells**dim).reshape([cells] * dim) / len(points)


def smooth(masses: Tensor) -> Tensor:
    """``masses`` of cells, (cells,) * dim with dim 1 or 2, spread by a Gaussian one cell wide that loses none at the edges."""
    place = torch.arange(len(masses), device=masses.device)
    kernel = torch.exp(-0.5 * (place[:, None] - place).square()).to(masses.dtype)
    kernel /= kernel.sum(0)
    return kernel @ masses if masses.dim() == 1 else kernel @ masses @ kernel.T


class Theory(NoiseToImage):
    """G(z) -> point against D(point) -> logit, with p_data known.

    The players and their losses are those of :class:`NoiseToImage`; this adds what is measured and drawn. Whatever speaks of
    D as a probability is left out when the loss is not one on probabilities (Wasserstein, say).

    Args:
        generator, discriminator: networks on points (N, dim). objective: the game.
        density: density of the data, in one or two dimensions.
        latent_dim: size of z. prior: distribution of z.
        same_noise: both players' turns of a step use the same latents.

    Raises:
        ValueError: the density has more than two dimensions.
    """

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        objective: Objective,
        density: GaussianMixture,
        latent_dim: Width,
        prior: Literal["normal", "uniform"] = "normal",
        same_noise: bool = False,
    ) -> None:
        super().__init__(generator, discriminator, objective, latent_dim, prior, same_noise)
        if density.dim not in CELLS_PER_STD:
            raise ValueError(f"the density has {density.dim} dimensions, only 1 and 2 can be drawn")
        if latent_dim > MOST_LATENTS:
            raise ValueError(f"latent_dim={latent_dim} is more than {MOST_LATENTS}")
        self.density = density

    @property
    def has_probabilities(self) -> bool:
        """Whether sigmoid(logit) is the probability that a point is real."""
        return isinstance(self.objective.adversarial, Logistic)

    def _from_uniform(self, u: Tensor) -> Tensor:
        """Latents of the prior from numbers in (0, 1), any shape."""
        return u * 2 - 1 if self.prior == "uniform" else torch.special.ndtri(u)

    def examples(self, dataset: Any, seed: int, device: torch.device) -> dict[str, Tensor]:
        """The data of all pictures and measurements of a run, all float32.

        ``latents`` (2^16, latent_dim): scrambled Sobol points of the prior, which cover it more evenly than random ones.
        ``data`` (n, dim): the first points of the data set. ``edges`` (dim, cells - 1): see :func:`inner_edges`.
        ``p_data`` (cells,) * dim: the probability of each cell, smoothed. ``quantiles`` (2^16,): of p_data, at equal steps,
        in one dimension only.
        """
        sobol: Any = torch.quasirandom.SobolEngine(  # type: ignore[no-untyped-call]
            self.latent_dim, scramble=True, seed=derive(seed, "sobol") % 2**31
        )
        tiny = 2.0**-24  # the points lie in [0, 1): keep the tails of the normal prior finite
        latents = self._from_uniform(sobol.draw(GENERATED).clamp(tiny, 1 - tiny))  # type: ignore[no-untyped-call]
        edges = inner_edges(self.density)
        made = {
            "latents": latents,
            "data": dataset.batch(torch.arange(min(SHOWN_POINTS, len(dataset)))),
            "edges": edges,
            "p_data": smooth(self.density.cell_masses(edges)),
        }
        if self.density.dim == 1:
            made["quantiles"] = self.density.quantiles((torch.arange(GENERATED, dtype=torch.float64) + 0.5) / GENERATED)
        return {name: tensor.float().to(device) for name, tensor in made.items()}

    @torch.no_grad()
    def measure(self, generator: nn.Module, examples: dict[str, Tensor]) -> dict[str, float]:
        """Distances of p_g from p_data, and of D from D*.

        ``metric/value``: C(G), see :func:`value`. ``metric/value_gap``: C(G) + log 4. ``metric/jsd``: half of that, from its
        own definition. With a loss on probabilities ``metric/d_error``: the mean of |D - D*| under (p_data + p_g) / 2,
        and ``metric/d_fake``: that of D(G(z)). In one dimension ``metric/wasserstein_1``: the mean distance between sorted
        generated points and the exact quantiles of p_data, which is the optimal transport on a line. In two
        ``metric/good_share``: the share of points within 3 standard deviations of the nearest centre (98.9 % of p_data
        itself), and ``metric/modes``: the number of centres that 2,500 points have a good one at (Srivastava et al. 2017).
        """
        fake = generator(examples["latents"])
        p_data, p_g = examples["p_data"], smooth(shares(fake, examples["edges"]))
        found = {"metric/value": value(p_data, p_g), "metric/jsd": jensen_shannon(p_data, p_g)}
        found["metric/value_gap"] = found["metric/value"] + math.log(4)
        if self.has_probabilities:
            error = (self._d_at_centres(examples["edges"]) - optimal_discriminator(p_data, p_g).nan_to_num(0.5)).abs()
            found["metric/d_error"] = (error * (p_data + p_g) / 2).sum()
            found["metric/d_fake"] = torch.sigmoid(self.discriminator(fake)).mean()
        if self.density.dim == 1:
            found["metric/wasserstein_1"] = (fake[:, 0].sort().values - examples["quantiles"]).abs().mean()
        else:
            mode, distance = self.density.nearest(fake)
            good = distance <= GOOD
            found["metric/good_share"] = good.float().mean()
            hits = torch.bincount(mode[:VEEGAN_SAMPLES], good[:VEEGAN_SAMPLES].float(), minlength=self.density.modes)
            found["metric/modes"] = (hits > 0).sum()
        return {name: float(number) for name, number in found.items()}

    @torch.no_grad()
    def picture(self, generator: nn.Module, examples: dict[str, Tensor]) -> Tensor:
        """Picture uint8 (3, 600, 900): figure 1 of Goodfellow et al. 2014 at this step, or its counterpart in the plane."""
        draw = self._draw_line if self.density.dim == 1 else self._draw_plane
        return _rendered(lambda figure: draw(figure, generator, examples))

    def draw_points(self, points: Tensor) -> Tensor:
        """Picture of ``points``, float32 (N, dim), on p_data, for gan-sample: uint8 (3, 600, 900)."""
        edges = inner_edges(self.density)
        p_data = self.density.cell_masses(edges)
        low, high = float(edges[0, 0]), float(edges[0, -1])

        def draw(figure: Figure) -> None:
            axes = figure.subplots()
            if self.density.dim == 1:
                width, x = float(edges[0, 1] - edges[0, 0]), centres(edges)[1:-1, 0]
                share = [60 / (high - low) / len(points)] * len(points)  # contribution of each point to the density of its bin
                axes.hist(points[:, 0].tolist(), bins=60, range=(low, high), weights=share, color=FAKE, label="generated")
                _curve(axes, x, p_data[1:-1] / width, DATA, r"$p_{data}$", ":")
                axes.legend()
            else:
                axes.imshow(p_data.T, origin="lower", extent=(low, high, low, high), cmap="Greys")
                axes.plot(*points.T.tolist(), linestyle="none", marker=".", markersize=3, color=FAKE)
                axes.set(ylim=(low, high))
            outside = int(((points < low) | (points > high)).any(1).sum())
            axes.set(xlim=(low, high), title=f"{len(points):,} points" + (f", {outside:,} of them outside" if outside else ""))

        return _rendered(draw)

    def _d_at_centres(self, edges: Tensor) -> Tensor:
        """D at the centres of the cells, (cells,) * dim: a probability, or a score where the loss is not on probabilities."""
        at = centres(edges)
        logits = self.discriminator(at.reshape(-1, len(edges))).float().reshape(at.shape[:-1])
        return torch.sigmoid(logits) if self.has_probabilities else logits

    def _draw_line(self, figure: Figure, generator: nn.Module, examples: dict[str, Tensor]) -> None:
        """Densities above, D below them, and the lines z -> x at the bottom where z is a number."""
        edges, p_data = examples["edges"], examples["p_data"]
        p_g = smooth(shares(generator(examples["latents"]), edges))
        x = centres(edges)[:, 0]
        width = float(edges[0, 1] - edges[0, 0])
        inside = slice(1, -1)  # without the outermost cells, which reach to infinity
        with_lines = self.latent_dim == 1
        axes = figure.subplots(2 + with_lines, 1, sharex=True, height_ratios=[3, 2, 2][: 2 + with_lines])
        top, middle = axes[0], axes[1]
        _curve(top, x[inside], p_data[inside] / width, DATA, r"$p_{data}$", ":")
        _curve(top, x[inside], p_g[inside] / width, FAKE, r"$p_g$", "-")
        top.set_ylim(0, 1.6 * float(p_data[inside].max()) / width)
        top.set_ylabel("density")
        learned = self._d_at_centres(edges)
        if self.has_probabilities:
            best = optimal_discriminator(p_data, p_g)
            _curve(middle, x[inside], best[inside], OPTIMAL, r"$D^* = p_{data}\,/\,(p_{data} + p_g)$", "-")
            middle.axhline(0.5, color="grey", linewidth=0.8)
            middle.set_ylim(-0.05, 1.05)
            middle.set_ylabel("D(x)")
        else:
            middle.set_ylabel("score")
        _curve(middle, x[inside], learned[inside], LEARNED, "D, learned", "--")
        for axis in (top, middle):
            axis.legend(loc="upper right", fontsize=9, framealpha=0.8)
        if with_lines:
            bottom = axes[2]
            z = self._from_uniform((torch.arange(ARROWS, device=x.device) + 0.5) / ARROWS)
            places = torch.linspace(float(x[1]), float(x[-2]), ARROWS)
            reached = generator(z[:, None])[:, 0]
            bottom.plot([places.tolist(), reached.tolist()], [[0.0] * ARROWS, [1.0] * ARROWS], color=FAKE, linewidth=0.7)
            bottom.set_yticks([0, 1], ["z", "x"])
            bottom.set_ylim(0, 1)
            bottom.set_ylabel("x = G(z)")
        axes[-1].set_xlim(float(x[1]), float(x[-2]))

    def _draw_plane(self, figure: Figure, generator: nn.Module, examples: dict[str, Tensor]) -> None:
        """Real and generated points on the left; on the right D above D*, or the score of a critic."""
        edges, p_data = examples["edges"], examples["p_data"]
        fake = generator(examples["latents"])
        low, high = float(edges[0, 0]), float(edges[0, -1])
        tiles = figure.add_gridspec(2, 3)
        left = figure.add_subplot(tiles[:, :2])
        shown = fake[: len(examples["data"])]
        for points, colour, name in ((examples["data"], DATA, "data"), (shown, FAKE, "generated")):
            left.plot(*points.T.tolist(), linestyle="none", marker=".", markersize=3, alpha=0.5, color=colour, label=name)
        left.legend(loc="upper right", fontsize=9, markerscale=3)
        pictures = [("D(x), learned" if self.has_probabilities else "critic's score", self._d_at_centres(edges))]
        if self.has_probabilities:
            p_g = smooth(shares(fake, edges))
            best = optimal_discriminator(p_data, p_g)
            best[p_data + p_g < SEEN] = math.nan  # left white
            pictures.append((r"$D^* = p_{data}\,/\,(p_{data} + p_g)$", best))
        for row, (title, pixels) in enumerate(pictures):
            right = figure.add_subplot(tiles[row, 2])
            image = right.imshow(pixels.T.cpu(), origin="lower", extent=(low, high, low, high), cmap="RdYlBu")
            if self.has_probabilities:
                image.set_clim(0, 1)
            right.set_title(title, fontsize=10)
            right.set_xticks([])
            right.set_yticks([])
            figure.colorbar(image, ax=right, shrink=0.8)
        left.set(xlim=(low, high), ylim=(low, high), aspect="equal")


def _curve(axes: Axes, x: Tensor, y: Tensor, colour: str, label: str, style: str) -> None:
    axes.plot(x.tolist(), y.tolist(), color=colour, linestyle=style, linewidth=1.8, label=label)


def _rendered(draw: Callable[[Figure], None]) -> Tensor:
    """Picture of what ``draw`` puts on a figure, uint8 (3, 600, 900). Does not change matplotlib's global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH / DPI, HEIGHT / DPI), dpi=DPI, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    draw(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    rgba = torch.from_numpy(np.array(canvas.buffer_rgba()))  # type: ignore[no-untyped-call]
    return rgba[..., :3].permute(2, 0, 1).contiguous()
