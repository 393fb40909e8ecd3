"""The presets compared with the papers' tables: first the networks, then their training.

Parameter counts are written as sums over the layers of the table they belong to. Networks are built on the meta device
where only their shapes matter.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_module
from torch import Tensor, nn

import gan_cli.config
from gan_cli.config.build import build
from gan_cli.config.training import TrainConfig, optimizer_node
from gan_cli.data.batches import Batches
from gan_cli.data.dataset import ArrayDataset, Jitter, TranslationDataset
from gan_cli.losses import LeastSquares, Minimax, NonSaturating, Wasserstein
from gan_cli.networks import cgan, dcgan, mlp, patchgan, resnet, resnet_translator, unet
from gan_cli.networks.layers import Maxout
from gan_cli.objective import Critic, Objective, WarmUp
from gan_cli.penalties import GradientPenalty
from gan_cli.tasks.unpaired import ImagePool
from gan_cli.training.build import Game, build_game
from gan_cli.training.loop import Player, train

from .tiny import turns  # type: ignore[import-not-found]

NORM = nn.BatchNorm2d | nn.InstanceNorm2d | nn.GroupNorm
WEIGHTED = nn.Conv2d | nn.ConvTranspose2d | nn.Linear


def on_meta(network: Any, *args: Any, **kwargs: Any) -> nn.Module:
    """Build a network without memory for its weights."""
    with torch.device("meta"):
        return network(*args, **kwargs)


def layers(network: nn.Module) -> list[str]:
    """The layers in order: ``c64...`` convolution, ``u64...`` transposed, ``l64`` linear; ``b``: with bias."""
    words = []
    for m in network.modules():
        if isinstance(m, nn.Conv2d):
            words.append(f"c{m.out_channels}k{m.kernel_size[0]}s{m.stride[0]}p{m.padding[0]}" + "b" * (m.bias is not None))
        elif isinstance(m, nn.ConvTranspose2d):
            words.append(f"u{m.out_channels}k{m.kernel_size[0]}s{m.stride[0]}p{m.padding[0]}" + "b" * (m.bias is not None))
        elif isinstance(m, nn.Linear):
            words.append(f"l{m.out_features}" + "b" * (m.bias is not None))
        elif isinstance(m, nn.BatchNorm2d):
            words.append("bn")
        elif isinstance(m, nn.InstanceNorm2d):
            assert not m.affine and not m.track_running_stats
            words.append("in")
        elif isinstance(m, nn.LeakyReLU):
            words.append(f"lrelu{m.negative_slope}")
        elif isinstance(m, nn.Dropout):
            words.append(f"drop{m.p}")
        elif isinstance(m, nn.ReflectionPad2d):
            words.append(f"reflect{m.padding[0]}")
        elif isinstance(m, nn.ReLU | nn.Tanh | nn.GroupNorm | nn.AvgPool2d | nn.AdaptiveAvgPool2d | nn.Upsample):
            words.append(type(m).__name__.lower())
        else:
            assert list(m.children()) or isinstance(m, nn.Identity | nn.Flatten | nn.Unflatten), m
    return words


def channels(network: nn.Module) -> list[tuple[int, int]]:
    """(in, out) of each convolution."""
    return [(m.in_channels, m.out_channels) for m in network.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]


def units(network: nn.Module) -> list[tuple[int, int]]:
    """(in, out) of each linear layer."""
    return [(m.in_features, m.out_features) for m in network.modules() if isinstance(m, nn.Linear)]


def size(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def weights(pairs: list[tuple[int, int]], area: int = 1) -> int:
    """Number of weights of layers with these (in, out) channels and kernels of this many pixels, without biases."""
    return sum(a * b * area for a, b in pairs)


# DCGAN, Radford et al. 2016, figure 1 and section 3


def test_dcgan_64() -> None:
    """Channels of dcgan.torch, half of figure 1's."""
    g = on_meta(dcgan.Generator, latent_dim=100, image_size=64, channels=3)
    d = on_meta(dcgan.Discriminator, image_size=64, channels=3)
    up = ["u512k4s1p0", "u256k4s2p1", "u128k4s2p1", "u64k4s2p1"]
    assert layers(g) == [word for conv in up for word in (conv, "bn", "relu")] + ["u3k4s2p1", "tanh"]
    down = ["c128k4s2p1", "c256k4s2p1", "c512k4s2p1"]
    assert layers(d) == [
        *["c64k4s2p1", "lrelu0.2"],
        *[word for conv in down for word in (conv, "bn", "lrelu0.2")],
        "c1k4s1p0",
    ]


def test_dcgan_figure_1_has_twice_the_channels() -> None:
    g = on_meta(dcgan.Generator, latent_dim=100, image_size=64, channels=3, width=128)
    assert channels(g) == list(pairwise([100, 1024, 512, 256, 128, 3]))


# cGAN, Mirza & Osindero 2014, section 4.1


def test_cgan_generator() -> None:
    g = on_meta(cgan.Generator, latent_dim=100, image_size=28, channels=1, num_classes=10)
    assert units(g) == [(100, 200), (10, 1000), (200 + 1000, 1200), (1200, 784)]
    assert layers(g) == [word for n in (200, 1000, 1200) for word in (f"l{n}b", "relu", "drop0.5")] + ["l784b", "tanh"]


def test_cgan_discriminator() -> None:
    d = on_meta(cgan.Discriminator, image_size=28, channels=1, num_classes=10)
    assert [m.shape for m in d.modules() if isinstance(m, Maxout)] == [(240, 5), (50, 5), (240, 4)]
    assert units(d) == [(784, 240 * 5), (10, 50 * 5), (240 + 50, 240 * 4), (240, 1)]
    assert layers(d) == ["l1200b", "drop0.5", "l250b", "drop0.5", "l960b", "drop0.5", "l1b"]


def test_maxout_is_the_largest_of_its_pieces() -> None:
    """Goodfellow et al. 2013, section 3: h_i(x) = max_j x^T W_ij + b_ij."""
    torch.manual_seed(0)
    layer, x = Maxout(4, 3, 2), torch.randn(5, 4)
    pieces = layer.linear(x)
    expected = [[max(row[2 * i], row[2 * i + 1]) for i in range(3)] for row in pieces.tolist()]
    torch.testing.assert_close(layer(x), torch.tensor(expected))


def conditional_pair(family: str) -> tuple[nn.Module, nn.Module]:
    """Small players for 3 classes of 16 x 16 images, without dropout."""
    torch.manual_seed(0)
    if family == "cgan":
        small: dict[str, Any] = {"hidden_y": 6, "hidden": 8, "dropout": 0.0}
        return cgan.Generator(5, 16, 1, 3, hidden_z=4, **small), cgan.Discriminator(16, 1, 3, hidden_x=4, **small)
    return dcgan.ConditionalGenerator(5, 16, 1, 3, width=4), dcgan.ConditionalDiscriminator(16, 1, 3, width=4, norm="none")


@pytest.mark.parametrize("family", ["cgan", "cdcgan"])
def test_the_label_reaches_both_players(family: str) -> None:
    generator, discriminator = conditional_pair(family)
    z, label = torch.randn(6, 5), torch.tensor([0, 0, 1, 1, 2, 2])
    other = torch.tensor([0, 1, 1, 2, 2, 0])
    images = generator(z, label)
    assert images.shape == (6, 1, 16, 16) and images.abs().max() <= 1
    assert discriminator(images, label).shape == (6,)
    changed = (discriminator(images, label) - discriminator(images, other)).abs() > 1e-6
    assert changed.tolist() == (label != other).tolist()
    difference = (generator.eval()(z, label) - generator(z, other)).flatten(1).abs().amax(1)
    assert (difference > 1e-6).tolist() == (label != other).tolist()


@pytest.mark.parametrize("family", ["cgan", "cdcgan"])
def test_each_class_can_be_learned_by_itself(family: str) -> None:
    """Only the weights of the given label have a gradient."""
    generator, discriminator = conditional_pair(family)
    (discriminator(generator(torch.randn(4, 5), torch.full((4,), 1)), torch.full((4,), 1))).sum().backward()
    if family == "cgan":
        maps = [generator.y[0].weight.grad.T, discriminator.y[0].linear.weight.grad.T]
    else:
        maps = [generator.generator.layers[0].weight.grad[5:], discriminator.maps.weight.grad]
    assert [[bool((row != 0).any()) for row in m] for m in maps] == [[False, True, False]] * 2


def test_conditional_dcgan_is_dcgan_with_one_more_input() -> None:
    g = on_meta(dcgan.ConditionalGenerator, latent_dim=100, image_size=64, channels=3, num_classes=10)
    d = on_meta(dcgan.ConditionalDiscriminator, image_size=64, channels=3, num_classes=10)
    assert channels(g) == list(pairwise([100 + 10, 512, 256, 128, 64, 3]))
    assert channels(d) == list(pairwise([3 + 1, 64, 128, 256, 512, 1]))
    assert tuple(d.maps.weight.shape) == (10, 64 * 64)


# WGAN, Arjovsky et al. 2017, section 4.2: a ReLU MLP with 512 units per layer; martinarjovsky/WassersteinGAN models/mlp.py has
# three such layers and a linear one to the pixels, without the tanh


def test_wgan_mlp_generator() -> None:
    g = on_meta(mlp.Generator, latent_dim=100, image_size=64, channels=3, hidden=[512] * 3)
    assert units(g) == [(100, 512), (512, 512), (512, 512), (512, 3 * 64 * 64)]
    assert layers(g) == ["l512b", "relu"] * 3 + ["l12288b", "tanh"]


# WGAN-GP, Gulrajani et al. 2017, appendix F, and igul222/improved_wgan_training gan_cifar_resnet.py: DIM_G = DIM_D = 128

UP = ["bn", "relu", "upsample", "c128k3s1p1b", "bn", "relu", "c128k3s1p1b", "c128k1s1p0b", "upsample"]
DOWN = ["relu", "c128k3s1p1b", "relu", "c128k3s1p1b", "avgpool2d", "avgpool2d", "c128k1s1p0b"]
PLAIN = ["relu", "c128k3s1p1b", "relu", "c128k3s1p1b"]


def test_wgan_gp_resnet() -> None:
    g = on_meta(resnet.Generator, latent_dim=128, image_size=32, channels=3)
    d = on_meta(resnet.Discriminator, image_size=32, channels=3)
    assert layers(g) == ["l2048b", *UP * 3, "bn", "relu", "c3k3s1p1b", "tanh"]
    first = DOWN[1:]  # pixels are not activated
    assert layers(d) == [*first, *DOWN, *PLAIN * 2, "relu", "adaptiveavgpool2d", "l1b"]
    assert channels(d)[:3] == [(3, 128), (128, 128), (3, 128)]


def test_wgan_gp_resnet_sizes() -> None:
    """128 x 4 x 4, 8 x 8, 16 x 16, 32 x 32 in G; 16 x 16, 8 x 8, 8 x 8, 8 x 8 in D."""
    g = on_meta(resnet.Generator, latent_dim=128, image_size=32, channels=3)
    d = on_meta(resnet.Discriminator, image_size=32, channels=3)
    shapes: list[tuple[int, ...]] = []
    for network, after in ((g, (nn.Unflatten, resnet.ResidualBlock)), (d, (resnet.FirstBlock, resnet.ResidualBlock))):
        for module in network.modules():
            if isinstance(module, after):
                module.register_forward_hook(lambda _m, _i, output: shapes.append(tuple(output.shape[1:])))
    logits = d(g(torch.empty(2, 128, device="meta")))
    assert shapes == [(128, n, n) for n in (4, 8, 16, 32, 16, 8, 8, 8)]
    assert logits.shape == (2,)


def test_wgan_gp_resnet_parameter_counts() -> None:
    conv, shortcut = 128 * 128 * 9 + 128, 128 * 128 + 128
    up = 2 * 2 * 128 + 2 * conv + shortcut  # two batch norms of 128 weights and biases
    assert size(on_meta(resnet.Generator, 128, 32, 3)) == (128 + 1) * 2048 + 3 * up + 2 * 128 + (128 * 9 + 1) * 3
    first = (3 * 9 + 1) * 128 + conv + (3 + 1) * 128
    assert size(on_meta(resnet.Discriminator, 32, 3)) == first + (2 * conv + shortcut) + 2 * (2 * conv) + 128 + 1


def test_wgan_gp_resnet_starts_as_the_code_does() -> None:
    """Uniform weights: He's gain, both fans, in blocks; Glorot's in shortcuts and at the ends; biases 0."""
    torch.manual_seed(0)
    for network in (resnet.Generator(128, 16, 3), resnet.Discriminator(16, 3)):
        for m in network.modules():
            if isinstance(m, WEIGHTED):
                area = m.kernel_size[0] ** 2 if isinstance(m, nn.Conv2d) else 1
                glorot = 2 / (sum(m.weight.shape[:2]) * area)
                gain = 2 if area == 9 and m.weight.shape[0] != 3 else 1
                bound = (3 * gain * glorot) ** 0.5
                largest = m.weight.abs().max().item()
                assert bound * (1 - 20 / m.weight.numel()) <= largest <= bound * 1.000001
                assert (m.bias == 0).all()


# pix2pix, Isola et al. 2017, section 6.1.1, errata, and phillipi/pix2pix models.lua

ENCODER = list(pairwise([3, 64, 128, 256, 512, 512, 512, 512, 512]))
DECODER = [(512, 512), (1024, 512), (1024, 512), (1024, 512), (1024, 256), (512, 128), (256, 64), (128, 3)]


def test_unet_256() -> None:
    g = on_meta(unet.Generator, image_size=256, channels=3)
    assert channels(g) == ENCODER + DECODER
    encoder = [f"c{out}k4s2p1" for _, out in ENCODER[1:-1]]
    decoder = [f"u{out}k4s2p1" for _, out in DECODER[:-1]]
    assert (
        layers(g)
        == [
            "c64k4s2p1b",  # no batch norm on the encoder's first layer
            *[word for conv in encoder for word in ("lrelu0.2", conv, "bn")],
            *["lrelu0.2", "c512k4s2p1b"],  # errata: no batch norm on the bottleneck
            *[word for conv in decoder[:3] for word in ("relu", conv, "bn", "drop0.5")],  # CD512-CD512-CD512
            *[word for conv in decoder[3:] for word in ("relu", conv, "bn")],
            *["relu", "u3k4s2p1b", "tanh"],
        ]
    )


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_unet_parameter_count(norm: str) -> None:
    """Batch norm has 2 parameters per channel, instance norm none, but then each convolution has its bias.

    54.408 M for one channel and 29.238 M at 64 x 64: junyanz/pytorch-CycleGAN-and-pix2pix #1152, where the first and the
    innermost convolution have no bias, 64 + 512 parameters fewer.
    """
    outs = [out for _, out in ENCODER[1:-1] + DECODER[:-1]]
    biases = 64 + 512 + 3
    expected = weights(ENCODER + DECODER, area=16) + biases + (2 if norm == "batch" else 1) * sum(outs)
    assert size(on_meta(unet.Generator, 256, 3, norm=norm)) == expected
    if norm == "batch":
        assert expected == 54_414_531
        counts = [size(on_meta(unet.Generator, n, 1)) - 64 - 512 for n in (256, 64)]
        assert [round(count / 1e6, 3) for count in counts] == [54.408, 29.238]


@pytest.mark.parametrize(("image_size", "depth", "drops"), [(16, 4, 3), (32, 5, 3), (256, 8, 3), (1024, 10, 3)])
def test_unet_of_other_sizes_goes_down_to_one_pixel(image_size: int, depth: int, drops: int) -> None:
    g = on_meta(unet.Generator, image_size=image_size, channels=1)
    assert len(g.encoder) == len(g.decoder) == depth
    assert sum(isinstance(m, nn.Dropout) for m in g.modules()) == drops
    seen: list[Tensor] = []
    g.encoder[-1].register_forward_hook(lambda _m, _i, output: seen.append(output))
    images = torch.empty(1, 1, image_size, image_size, device="meta")
    assert g(images).shape == images.shape and seen[0].shape == (1, 512, 1, 1)


# PatchGAN: pix2pix sections 3.2.2, 4.4 and 6.1.2; the table is in models.lua


def receptive_field(network: nn.Module) -> int:
    """Side, in pixels, of the patch behind one output of a chain of convolutions."""
    size = 1
    for layer in reversed([m for m in network.modules() if isinstance(m, nn.Conv2d)]):
        size = (size - 1) * layer.stride[0] + layer.kernel_size[0]
    return size


@pytest.mark.parametrize(("depth", "patch"), enumerate([1, 16, 34, 70, 142, 286, 574]))
def test_patchgan_receptive_field(depth: int, patch: int) -> None:
    """By the formula, and by the pixels with an effect on the middle logit, with weights of one and no activations."""
    d = patchgan.Discriminator(channels=1, layers=depth, width=1, norm="none")
    assert receptive_field(d) == patch
    if patch <= 142:
        for m in d.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.ones_(m.weight)
        images = torch.zeros(1, 1, 256, 256, requires_grad=True)
        logits = d(images)
        row = logits.shape[2] // 2
        (gradient,) = torch.autograd.grad(logits[0, 0, row, row], images)
        rows = (gradient[0, 0] != 0).any(1).nonzero()
        assert rows.max() - rows.min() + 1 == patch


def test_patchgan_70() -> None:
    d = on_meta(patchgan.Discriminator, channels=3, condition_channels=3)
    assert channels(d) == [(6, 64), (64, 128), (128, 256), (256, 512), (512, 1)]
    middle = ["c128k4s2p1", "bn", "lrelu0.2", "c256k4s2p1", "bn", "lrelu0.2", "c512k4s1p1", "bn", "lrelu0.2"]
    assert layers(d) == ["c64k4s2p1b", "lrelu0.2", *middle, "c1k4s1p1b"]
    assert d(torch.empty(1, 6, 256, 256, device="meta")).shape == (1, 1, 30, 30)
    # 2.769 M: sixteen weights per pair of channels, two biases, two parameters per normalised channel
    assert size(d) == weights(channels(d), area=16) + 64 + 1 + 2 * (128 + 256 + 512) == 2_768_705


def test_pixelgan() -> None:
    d = on_meta(patchgan.Discriminator, channels=3, condition_channels=3, layers=0)
    assert layers(d) == ["c64k1s1p0b", "lrelu0.2", "c128k1s1p0", "bn", "lrelu0.2", "c1k1s1p0b"]
    assert d(torch.empty(1, 6, 256, 256, device="meta")).shape == (1, 1, 256, 256)


# CycleGAN, Zhu et al. 2017, appendix 7.2


def test_cyclegan_generator() -> None:
    """c7s1-64, d128, d256, R256 nine times, u128, u64, c7s1-3."""
    g = on_meta(resnet_translator.Generator, image_size=256, channels=3)
    residual = ["reflect1", "c256k3s1p0b", "in", "relu", "reflect1", "c256k3s1p0b", "in"]
    assert layers(g) == [
        *["reflect3", "c64k7s1p0b", "in", "relu"],
        *["c128k3s2p1b", "in", "relu", "c256k3s2p1b", "in", "relu"],
        *residual * 9,
        *["u128k3s2p1b", "in", "relu", "u64k3s2p1b", "in", "relu"],
        *["reflect3", "c3k7s1p0b", "tanh"],
    ]
    ends, between = [(3, 64), (64, 3)], [(64, 128), (128, 256), (256, 128), (128, 64)]
    blocks = [(256, 256)] * 18
    count = weights(ends, area=49) + weights(between + blocks, area=9)
    assert size(g) == count + sum(out for _, out in ends + between + blocks) == 11_378_179  # 11.378 M
    images = torch.empty(1, 3, 256, 256, device="meta")
    assert g(images).shape == images.shape


@pytest.mark.parametrize(("image_size", "blocks"), [(128, 6), (252, 6), (256, 9), (512, 9)])
def test_cyclegan_blocks_by_image_size(image_size: int, blocks: int) -> None:
    """6 residual blocks for 128 x 128 training images, 9 for 256 x 256 or more."""
    for given, expected in ((None, blocks), (2, 2)):
        g = on_meta(resnet_translator.Generator, image_size, 3, width=2, blocks=given)
        assert sum(isinstance(m, resnet_translator.ResidualBlock) for m in g.modules()) == expected


def test_cyclegan_discriminator() -> None:
    """C64-C128-C256-C512, instance norm except on the first: 2.765 M."""
    d = on_meta(patchgan.Discriminator, channels=3, norm="instance")
    middle = ["c128k4s2p1b", "in", "lrelu0.2", "c256k4s2p1b", "in", "lrelu0.2", "c512k4s1p1b", "in", "lrelu0.2"]
    assert layers(d) == ["c64k4s2p1b", "lrelu0.2", *middle, "c1k4s1p1b"]
    assert size(d) == weights(channels(d), area=16) + 64 + 128 + 256 + 512 + 1 == 2_764_737


# A Gaussian of mean 0 and standard deviation 0.02: DCGAN section 4, pix2pix section 6.2, CycleGAN appendix 7.1


@pytest.mark.parametrize(
    "build",
    [
        lambda: unet.Generator(32, 3, width=16),
        lambda: patchgan.Discriminator(3, 3, width=16),
        lambda: resnet_translator.Generator(32, 3, width=16, blocks=2),
        lambda: dcgan.ConditionalGenerator(100, 32, 3, 10, width=16),
        lambda: dcgan.ConditionalDiscriminator(32, 3, 10, width=16),
    ],
)
def test_weights_start_from_the_papers_gaussian(build: Any) -> None:
    torch.manual_seed(0)
    network = build()
    for m in network.modules():
        if isinstance(m, nn.Conv2d | nn.ConvTranspose2d):
            error = 5 * 0.02 / m.weight.numel() ** 0.5  # five standard errors
            assert m.weight.mean().item() == pytest.approx(0, abs=error)
            assert m.weight.std().item() == pytest.approx(0.02, abs=error)
            assert m.bias is None or (m.bias == 0).all()
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all((m.bias == 0).all() for m in norms)
    if norms:
        scales = torch.cat([m.weight.detach() for m in norms])
        assert scales.mean().item() == pytest.approx(1, abs=5 * 0.02 / len(scales) ** 0.5)
        assert scales.std().item() == pytest.approx(0.02, rel=5 / (2 * len(scales)) ** 0.5)


# Training: each preset as Hydra composes it, and the players built from it


@cache
def composed(*overrides: str) -> TrainConfig:
    with initialize_config_module("gan_cli.conf", version_base="1.3"):
        return gan_cli.config.training.check(compose("train", overrides=list(overrides)))


def value(config: TrainConfig, key: str) -> Any:
    node: Any = config.as_dict()
    for part in key.split("."):
        node = node[part]
    return node


PRESETS = {
    # preset: optimizer, learning rate, betas, batch size, steps, fraction of the run after which the rate falls
    "gan_fashion_mnist": ("Adam", 2e-4, (0.9, 0.999), 100, 500 * 600, None),
    "dcgan_digits": ("Adam", 2e-4, (0.5, 0.999), 64, 2_000, None),
    "dcgan_fashion_mnist": ("Adam", 2e-4, (0.5, 0.999), 64, 10_000, None),
    "cgan_mnist": ("Adam", 2e-4, (0.5, 0.999), 100, 50 * 600, None),
    "cgan_fashion_mnist": ("Adam", 2e-4, (0.5, 0.999), 100, 50 * 600, None),
    "cdcgan_mnist": ("Adam", 2e-4, (0.5, 0.999), 64, 10_000, None),
    "cdcgan_fashion_mnist": ("Adam", 2e-4, (0.5, 0.999), 64, 10_000, None),
    "wgan_mnist": ("RMSprop", 5e-5, None, 64, 187_600 // 5, None),
    "wgan_cifar10": ("RMSprop", 5e-5, None, 64, 100_000, None),
    "wgan_gp_mnist": ("Adam", 2e-4, (0.0, 0.9), 64, 10_000, None),
    "wgan_gp_fashion_mnist": ("Adam", 2e-4, (0.0, 0.9), 64, 10_000, None),
    "wgan_gp_cifar10": ("Adam", 2e-4, (0.0, 0.9), 64, 100_000, 0.0),
    "pix2pix_facades": ("Adam", 2e-4, (0.5, 0.999), 1, 200 * 400, 0.5),
    "cyclegan_facades": ("Adam", 2e-4, (0.5, 0.999), 1, 200 * 400, 0.5),
    "cyclegan_horse2zebra": ("Adam", 2e-4, (0.5, 0.999), 1, 200 * 1334, 0.5),
}


@pytest.mark.parametrize("preset", PRESETS)
def test_optimizers_batches_and_schedules(preset: str) -> None:
    """DCGAN section 4; WGAN algorithm 1; WGAN-GP algorithm 1 and appendix F; pix2pix section 6.2; CycleGAN section 4."""
    kind, lr, betas, batch_size, steps, falls = PRESETS[preset]
    config = composed(f"experiment={preset}")
    assert (config.batch_size, config.total_steps) == (batch_size, steps)
    assert config.optimizer["_target_"] == f"gan_cli.optimizers.{kind.lower()}"
    network, schedule = nn.Linear(1, 1), build(config.schedule, "schedule")
    for side in ("generator", "discriminator"):
        optimizer = build(optimizer_node(config.optimizer, side), "optimizer", params=network.parameters())
        assert type(optimizer) is getattr(torch.optim, kind)
        for name, wanted in {"lr": lr, "weight_decay": 0.0, **({"betas": betas} if betas else {"momentum": 0.0})}.items():
            assert optimizer.defaults[name] == wanted
            given = optimizer_node(config.optimizer, side)[name]
            assert (tuple(given) if isinstance(given, list) else given) == wanted
        player = Player("generator", None, network, optimizer, schedule)
        for done in (0.0, 0.25, 0.5, 0.75, 1 - 1 / steps):
            player.follow_schedules(round(done * steps), 0)
            factor = 1.0 if falls is None or done <= falls else (1 - done) / (1 - falls)
            assert optimizer.param_groups[0]["lr"] == pytest.approx(lr * factor, rel=1e-6)


@pytest.mark.parametrize(
    ("preset", "values"),
    [
        ("gan_fashion_mnist", {"model.task.latent_dim": 64, "model.task.prior": "normal", "model.task.same_noise": True}),
        ("gan_fashion_mnist", {"dataset.image_size": 28, "model.generator.hidden": [256, 256]}),
        ("dcgan_fashion_mnist", {"model.task.latent_dim": 100, "model.task.prior": "uniform", "loss.critic_norm": "batch"}),
        ("cgan_mnist", {"model.task.latent_dim": 100, "model.task.prior": "uniform", "model.task.num_classes": 10}),
        ("wgan_mnist", {"loss.constraint.limit": 0.01, "loss.n_critic": 5, "loss.warm_up": None, "loss.penalty": None}),
        ("wgan_mnist", {"model.generator.hidden": [256, 512, 1024], "model.discriminator.hidden": [512, 256]}),
        ("wgan_cifar10", {"loss.constraint.limit": 0.01, "loss.n_critic": 5, "loss.warm_up.n_critic": 100}),
        ("wgan_gp_mnist", {"loss.penalty.weight": 10.0, "loss.n_critic": 5, "loss.constraint": None}),
        ("wgan_gp_mnist", {"model.discriminator.norm": "layer"}),
        ("wgan_gp_fashion_mnist", {"loss.penalty.weight": 10.0, "loss.n_critic": 5, "model.discriminator.norm": "layer"}),
        ("wgan_gp_cifar10", {"loss.penalty.weight": 10.0, "loss.n_critic": 5, "model.discriminator.norm": "none"}),
        ("wgan_gp_cifar10", {"model.task.latent_dim": 128, "model.task.prior": "normal", "model.generator.width": 128}),
        ("pix2pix_facades", {"model.task.l1_weight": 100.0, "loss.discriminator_weight": 0.5, "loss.n_critic": 1}),
        ("pix2pix_facades", {"model.generator.dropout": 0.5, "model.task.sample_mode": "paper", "ema.half_life": 0}),
        ("pix2pix_facades", {"dataset.load_size": 286, "dataset.image_size": 256, "dataset.flip": True}),
        ("pix2pix_facades", {"dataset.direction": "b2a", "model.discriminator.layers": 3, "model.discriminator.norm": "batch"}),
        ("cyclegan_horse2zebra", {"model.task.cycle_weight": 10.0, "model.task.identity_weight": 0.5}),
        ("cyclegan_horse2zebra", {"model.task.pool_size": 50, "loss.first": "generator", "loss.n_critic": 1}),
        ("cyclegan_horse2zebra", {"dataset.load_size": 286, "dataset.image_size": 256, "dataset.flip": True}),
        ("cyclegan_horse2zebra", {"model.generator.a2b.norm": "instance", "model.generator.b2a.norm": "instance"}),
        ("cyclegan_horse2zebra", {"model.discriminator.a.norm": "instance", "model.discriminator.b.layers": 3}),
        ("cyclegan_facades", {"model.task.cycle_weight": 10.0, "model.task.pool_size": 50, "ema.half_life": 0}),
    ],
)
def test_weights_and_sizes(preset: str, values: dict[str, Any]) -> None:
    config = composed(f"experiment={preset}")
    assert {key: value(config, key) for key in values} == values


SMALL = ("threads=1", "precision=fp32", "device=cpu", "dataset.split=test", "batch_size=4")
DCGAN = ("dataset.image_size=16", "model.generator.width=4", "model.discriminator.width=4")
MLP = ("dataset.image_size=16", "model.generator.hidden=[8]", "model.discriminator.hidden=[8]")
CGAN = ("dataset.image_size=16",)
PIX2PIX = ("dataset.image_size=16", "model.generator.width=4", "model.discriminator.width=4", "model.discriminator.layers=1")
CYCLEGAN = (
    *("dataset.image_size=16", "model.generator.a2b.width=4", "model.generator.a2b.blocks=1"),
    *("model.discriminator.a.width=4", "model.discriminator.a.layers=1"),
)


def game(*overrides: str) -> Game:
    """The players of a small run on embedded digits."""
    return build_game(composed(*SMALL, *overrides), None)


def play(
    players: Game, steps: int, look: Callable[[str, dict[str, Tensor]], None] = lambda who, batch: None
) -> tuple[str, dict[str, Tensor]]:
    """The players that moved in ``steps`` steps of the loop, and the last logs; ``look`` is called before every move."""
    moves: list[str] = []
    logs: dict[str, Tensor] = {}
    own = {"D": players.discriminator, "G": players.generator}
    for who, player in own.items():

        def watched(batch: dict[str, Tensor], *more: Any, who: str = who, loss: Any = player.plain_loss_and_gradient) -> Any:
            moves.append(who)
            look(who, batch)
            return loss(batch, *more)

        player.loss_and_gradient = watched
    train(
        players, total_steps=players.progress.step + steps, seed=0, after_step=lambda new: bool(logs.update(new)) or True,
    )  # fmt: skip
    for player in own.values():
        player.loss_and_gradient = player.plain_loss_and_gradient
    return "".join(moves), logs


@pytest.mark.parametrize(
    ("overrides", "kind", "rates", "betas"),
    [
        pytest.param(("model=mlp", *MLP), "Adam", (2e-4, 2e-4), (0.9, 0.999), id="tutorial"),
        pytest.param(("model=dcgan", *DCGAN), "Adam", (2e-4, 2e-4), (0.5, 0.999), id="DCGAN, section 4"),
        pytest.param(("model=wgan_mlp", *MLP), "RMSprop", (5e-5, 5e-5), None, id="WGAN, algorithm 1"),
        pytest.param(("experiment=wgan_gp_mnist", "dataset=digits", *DCGAN), "Adam", (2e-4, 2e-4), (0.0, 0.9), id="WGAN-GP"),
        pytest.param(("model=mlp", "optimizer=ttur", *MLP), "Adam", (1e-4, 4e-4), (0.0, 0.9), id="two time scales, SAGAN"),
        pytest.param(("model=pix2pix", *PIX2PIX), "Adam", (2e-4, 2e-4), (0.5, 0.999), id="pix2pix, section 3.3"),
        pytest.param(("model=cyclegan", *CYCLEGAN), "Adam", (2e-4, 2e-4), (0.5, 0.999), id="CycleGAN, section 4"),
    ],
)
def test_the_optimizers_of_a_run(overrides: tuple[str, ...], kind: str, rates: tuple[float, float], betas: Any) -> None:
    """All parameters of a player are in one optimizer, also those of both translators of CycleGAN."""
    players = game(*overrides)
    for player, lr in zip((players.generator, players.discriminator), rates, strict=True):
        (group,) = player.optimizer.param_groups
        assert (type(player.optimizer).__name__, group["lr"], group.get("betas")) == (kind, lr, betas)
        assert {id(p) for p in group["params"]} == {id(p) for p in player.network.parameters()}


def parameters(network: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in network.parameters()])


@pytest.mark.parametrize(
    ("overrides", "step"),
    [
        pytest.param(("model=mlp", *MLP), "DG", id="GAN, algorithm 1, k = 1"),
        pytest.param(("model=mlp", *MLP, "loss.n_critic=3"), "DDDG", id="GAN, algorithm 1, k = 3"),
        pytest.param(("model=mlp", *MLP, "loss=minimax", "loss.first=generator"), "GD", id="GAN, minimax, G first"),
        pytest.param(("model=dcgan", *DCGAN), "DG", id="DCGAN"),
        pytest.param(("model=wgan_mlp", *MLP), "DDDDDG", id="WGAN, algorithm 1"),
        pytest.param(("model=dcgan", "loss=wgan_gp", *DCGAN), "DDDDDG", id="WGAN-GP, algorithm 1"),
        pytest.param(("model=pix2pix", *PIX2PIX), "DG", id="pix2pix, section 3.3"),
        pytest.param(("model=pix2pix", *PIX2PIX, "loss.n_critic=2", "loss.first=generator"), "GDD", id="pix2pix, other order"),
        pytest.param(("model=cyclegan", *CYCLEGAN), "GD", id="CycleGAN, authors' code"),
        pytest.param(("model=cyclegan", *CYCLEGAN, "loss.first=discriminator"), "DG", id="CycleGAN, D first"),
    ],
)
def test_who_moves_when(overrides: tuple[str, ...], step: str) -> None:
    batches: list[tuple[str, int]] = []
    moves, _ = play(game(*overrides), 2, lambda who, batch: batches.append((who, id(batch))))
    assert moves == step * 2
    by_g = [k for k, (who, _) in enumerate(batches) if who == "G"]
    neighbour = 1 if step.startswith("G") else -1
    assert all(batches[k][1] == batches[k + neighbour][1] for k in by_g)  # on the batch of D's adjacent move


# GAN, Goodfellow et al. 2014


def test_gan_value_of_the_optimum() -> None:
    """Theorem 1: where D = 1/2 everywhere, the value of the game is -log 4; and it is the best D can do on equal densities."""
    undecided = torch.zeros(8, dtype=torch.float64, requires_grad=True)
    loss = NonSaturating().discriminator(undecided, undecided)
    assert loss.item() == pytest.approx(math.log(4)) == Minimax().discriminator(undecided, undecided).item()
    assert torch.autograd.grad(loss, undecided)[0].abs().max() == 0
    assert Minimax().generator(None, undecided).item() == pytest.approx(-math.log(2))
    assert NonSaturating().generator(None, undecided).item() == pytest.approx(math.log(2))


@pytest.mark.parametrize("d", [0.001, 0.1, 0.5, 0.9, 0.999])
def test_gan_minimax_saturates_where_d_is_sure(d: float) -> None:
    """Section 3: with D = sigmoid(t), d log(1 - D) / dt = -D vanishes where D rejects, d(-log D) / dt = -(1 - D) does not."""
    logit = torch.tensor([math.log(d / (1 - d))], dtype=torch.float64, requires_grad=True)
    slopes = [torch.autograd.grad(loss.generator(None, logit), logit)[0].item() for loss in (Minimax(), NonSaturating())]
    assert slopes == pytest.approx([-d, -(1 - d)])


# The tutorials' GAN: an MLP on Fashion-MNIST


def test_tutorial_players() -> None:
    """64-256-256-784 with ReLU and tanh against 784-256-256-1 with LeakyReLU 0.2."""
    config = composed("experiment=gan_fashion_mnist")
    g, d = (build(config.model[side], side) for side in ("generator", "discriminator"))
    assert units(g) == list(pairwise([64, 256, 256, 784])) and units(d) == list(pairwise([784, 256, 256, 1]))
    assert layers(g) == ["l256b", "relu"] * 2 + ["l784b", "tanh"]
    assert layers(d) == ["l256b", "lrelu0.2"] * 2 + ["l1b"]


@pytest.mark.parametrize("same", [True, False])
def test_tutorial_both_players_move_on_the_same_noise(same: bool) -> None:
    """With the same noise D and G use the images of one pass."""
    players = game("model=mlp", *MLP, f"model.task.same_noise={same}")
    seen: list[Tensor] = []
    players.generator.network.register_forward_pre_hook(lambda _m, inputs: seen.append(inputs[0].clone()))
    play(players, 2)
    assert len(seen) == (2 if same else 4) and all(z.shape == (4, 64) for z in seen)
    assert len({tuple(z.flatten().tolist()) for z in seen}) == len(seen)


# DCGAN, Radford et al. 2016


def test_dcgan_batch_statistics_of_real_and_generated_images_are_apart() -> None:
    """dcgan.torch: two passes through D, of a real and of a generated batch."""
    players = game("model=dcgan", *DCGAN)
    passes: list[int] = []
    players.discriminator.network.register_forward_hook(lambda _m, inputs, _o: passes.append(len(inputs[0])))
    play(players, 1)
    assert passes == [4, 4, 4]  # real, generated; generated again in G's move


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: mlp.Generator(5, 16, 1, hidden=[8]), (4, 5)),
        (lambda: dcgan.Generator(5, 16, 1, width=4), (4, 5)),
        (lambda: resnet.Generator(5, 16, 3, width=4), (4, 5)),
        (lambda: unet.Generator(16, 3, width=4), (4, 3, 16, 16)),
        (lambda: resnet_translator.Generator(16, 3, width=4, blocks=1), (4, 3, 16, 16)),
    ],
)
def test_generators_end_in_tanh(make: Callable[[], nn.Module], shape: tuple[int, ...]) -> None:
    """DCGAN section 3: however large the weights, pixels fill [-1, 1], the range of the data, and no more."""
    torch.manual_seed(0)
    generator = make()
    with torch.no_grad():
        [m for m in generator.modules() if isinstance(m, WEIGHTED)][-1].weight.mul_(1e6)
        pixels = generator(torch.randn(shape))
    assert pixels.min() == -1 and pixels.max() == 1


def test_data_is_in_the_range_of_tanh() -> None:
    """DCGAN section 4: images are scaled to [-1, 1]."""
    pixels = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1)
    dataset = ArrayDataset(pixels, labels=None, class_names=[], fingerprint="")
    batch = next(Batches(dataset, batch_size=2, seed=0, device=torch.device("cpu")))
    assert sorted(batch["image"].flatten().tolist()) == [-1.0, 1.0]


# cGAN, Mirza & Osindero 2014


@pytest.mark.parametrize("overrides", [("model=cgan", *CGAN), ("model=cdcgan", *DCGAN)])
def test_cgan_the_label_of_each_image_conditions_both_players(overrides: tuple[str, ...]) -> None:
    """Equation 2: D(x | y) against D(G(z | y))."""
    players = game(*overrides)
    given: dict[str, list[Tensor]] = {"generator": [], "discriminator": []}
    for side in given:
        network = getattr(players, side).network
        network.register_forward_pre_hook(lambda _m, inputs, side=side: given[side].append(inputs[1].clone()))
    labels: list[Tensor] = []
    play(players, 2, lambda who, batch: labels.append(batch["label"]))
    assert all(torch.equal(a, b) for a, b in zip(given["generator"], labels, strict=True))
    judged = torch.cat(given["discriminator"]).view(-1, 4)
    wanted = [label for pair in zip(labels[::2], labels[1::2], strict=True) for label in (pair[0], pair[0], pair[1])]
    assert torch.equal(judged, torch.stack(wanted))  # D's move: real and generated images; G's: generated


# WGAN, Arjovsky et al. 2017


def test_wgan_every_parameter_is_clamped_after_every_critic_step() -> None:
    """Algorithm 1, line 7, on all that the authors' code clamps: batch norm's weights, which start at 1, included."""
    players = game("model=wgan_dcgan", *DCGAN, "optimizer.lr=0.01")
    critic = players.discriminator.network
    assert any(isinstance(m, nn.BatchNorm2d) for m in critic.modules())
    before_clamp: list[float] = []
    after: list[float] = []
    players.discriminator.optimizer.register_step_post_hook(
        lambda *_: before_clamp.append(parameters(critic).abs().max().item())
    )
    play(players, 2, lambda who, _: after.append(parameters(critic).abs().max().item()))
    after.append(parameters(critic).abs().max().item())
    assert after[0] > 0.9, "it starts outside"
    assert len(before_clamp) == 10 and min(before_clamp) > 0.01, "each step leaves the interval"
    assert len(after) == 13 and max(after[1:]) <= 0.01 * (1 + 1e-6)
    assert parameters(players.generator.network).abs().max() > 0.9, "the generator is not clamped"


def test_wgan_five_critic_batches_for_each_generator_step_across_epochs() -> None:
    """Algorithm 1, n_critic = 5: with 12 images and batches of 5, epochs end within batches and within steps."""
    players = game("model=wgan_mlp", *MLP)
    numbers = torch.arange(12, dtype=torch.uint8).mul(20).view(12, 1, 1, 1).expand(12, 1, 16, 16).contiguous()
    dataset = ArrayDataset(numbers, labels=None, class_names=[], fingerprint="")
    players.batches = Batches(dataset, batch_size=5, seed=0, device=torch.device("cpu"))
    seen: list[int] = []

    def look(who: str, batch: dict[str, Tensor]) -> None:
        shown = ((batch["image"][:, 0, 0, 0] + 1) * 127.5 / 20).round().long().tolist()
        if who == "D":
            seen.extend(shown)
        assert seen[-5:] == shown  # G moves on the last critic batch

    moves, _ = play(players, 12, look)
    assert moves == "DDDDDG" * 12
    assert len(seen) == players.progress.images == 12 * 5 * 5
    assert all(sorted(seen[start : start + 12]) == list(range(12)) for start in range(0, 300, 12))


def test_wgan_warm_up_of_the_authors_code() -> None:
    """martinarjovsky/WassersteinGAN main.py: ``if gen_iterations < 25 or gen_iterations % 500 == 0: Diters = 100``."""
    objective = build(composed("experiment=wgan_cifar10").loss, "loss")
    many = [step for step in range(2001) if objective.turns(step) == 100]
    assert many == [*range(25), 500, 1000, 1500, 2000]
    assert {objective.turns(step) for step in range(2001)} == {5, 100}
    assert {build(composed("experiment=wgan_mnist").loss, "loss").turns(step) for step in (0, 24, 500)} == {5}
    assert Objective(Wasserstein(), n_critic=2, warm_up=WarmUp(7, 3, None)).turns(500) == 2


@pytest.mark.parametrize(("start", "turns"), [(23, [100, 100, 5, 5]), (499, [5, 100, 5])])
def test_wgan_warm_up_in_the_loop(start: int, turns: list[int]) -> None:
    players = game("model=wgan_mlp", "loss=wgan_warm_up", *MLP)
    players.progress.step = start
    moves, _ = play(players, len(turns))
    assert moves == "".join("D" * n + "G" for n in turns)


def test_wgan_losses_are_means_of_scores() -> None:
    """Algorithm 1: no sigmoid, no logarithm. The critic's estimate is E[f(x)] - E[f(g(z))], equation 2."""
    real, fake = torch.tensor([3.0, -1.0]), torch.tensor([0.5, 4.5])
    assert Wasserstein().discriminator(real, fake).item() == pytest.approx(2.5 - 1)
    assert Wasserstein().generator(None, fake).item() == pytest.approx(-2.5)
    assert Wasserstein().report(real, fake)["d/wasserstein"].item() == pytest.approx(1 - 2.5)


# WGAN-GP, Gulrajani et al. 2017


def test_wgan_gp_one_epsilon_for_each_sample() -> None:
    """Algorithm 1, lines 5 and 6: between an image of ones and one of zeros, x_hat is epsilon in every channel and pixel."""
    torch.manual_seed(0)
    seen: list[Tensor] = []

    def critic(x: Tensor) -> Tensor:
        seen.append(x.detach().clone())
        return x.flatten(1).sum(1)

    GradientPenalty()(critic, torch.ones(500, 3, 4, 4), torch.zeros(500, 3, 4, 4))
    epsilon = seen[0].flatten(1)
    assert torch.equal(epsilon, epsilon[:, :1].expand_as(epsilon))
    assert epsilon[:, 0].unique().numel() == 500
    assert 0 <= epsilon.min() < 0.02 and 0.98 < epsilon.max() <= 1 and epsilon.mean().item() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("norms", [[0.0, 0.0], [1.0, 1.0], [0.5, 3.0]])
def test_wgan_gp_penalty_in_closed_form(norms: list[float]) -> None:
    """Equation 3 on linear critics <w_i, x_i>: lambda * mean (||w_i||_2 - 1)^2, the norm over channels, rows and columns."""
    torch.manual_seed(0)
    w = torch.randn(2, 3, 4, 4)
    w = w / w.flatten(1).norm(dim=1).view(2, 1, 1, 1) * torch.tensor(norms).view(2, 1, 1, 1)
    penalty = build(composed("experiment=wgan_gp_cifar10").loss, "loss").penalty
    result = penalty(lambda x: (x * w).flatten(1).sum(1), torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4))
    assert result.item() == pytest.approx(10 * sum((norm - 1) ** 2 for norm in norms) / 2, abs=1e-5)


def turn_of(objective: Objective) -> Any:
    return objective.turn(0, 0, torch.device("cpu"))


def test_wgan_gp_critic_loss() -> None:
    """Algorithm 1, line 7: D(x~) - D(x) + lambda (||grad D(x^)|| - 1)^2, for D(x) = <w, x>."""
    torch.manual_seed(0)
    objective = build(composed("experiment=wgan_gp_mnist").loss, "loss")
    w, real, fake = torch.randn(1, 4, 4), torch.randn(5, 1, 4, 4), torch.randn(5, 1, 4, 4)
    loss, logs = objective.discriminator_loss(Critic(lambda x: (x * w).flatten(1).sum(1)), real, fake, turn_of(objective))
    difference, penalty = ((fake - real).mean(0) * w).sum(), 10 * (w.norm() - 1) ** 2
    torch.testing.assert_close(loss, difference + penalty)
    torch.testing.assert_close((logs["d/wasserstein"], logs["d/penalty"]), (-difference, penalty))


@pytest.mark.parametrize("preset", [name for name in PRESETS if name.startswith("wgan_gp")])
def test_wgan_gp_no_batch_norm_in_the_critic(preset: str) -> None:
    """Section 4: the penalty is on each sample's gradient, so samples must not be mixed."""
    config = composed(f"experiment={preset}")
    g, d = (on_meta(build, config.model[side], side) for side in ("generator", "discriminator"))
    assert not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in d.modules())
    assert any(isinstance(m, nn.BatchNorm2d) for m in g.modules())


# pix2pix, Isola et al. 2017


def pair_batch(size: int = 16, n: int = 2) -> dict[str, Tensor]:
    source, target = torch.rand(2, n, 1, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return {"source": source, "target": target}


def test_pix2pix_discriminator_sees_pairs() -> None:
    """Equation 1: D(x, y) and D(x, G(x)), input and output joined along the channels (authors' code), input first."""
    task, batch = game("model=pix2pix", *PIX2PIX).task, pair_batch()
    fakes: list[Tensor] = []
    judged: list[Tensor] = []
    task.generator.register_forward_hook(lambda _m, _i, output: fakes.append(output.detach()))
    task.discriminator.register_forward_pre_hook(lambda _m, inputs: judged.append(inputs[0]))
    loss, _ = turns(task).discriminator(batch)
    assert torch.equal(torch.cat(judged)[:, :1], batch["source"].repeat(2, 1, 1, 1))
    assert torch.equal(torch.cat(judged)[:, 1:], torch.cat([batch["target"], fakes[0]]))
    loss.backward()
    assert all(p.grad is None for p in task.generator.parameters())
    assert not batch["source"].requires_grad and not any(x.requires_grad for x in judged)


def test_pix2pix_the_discriminators_loss_is_halved() -> None:
    """Section 3.3: "we divide the objective by 2 while optimizing D"."""
    objective = build(composed("experiment=pix2pix_facades").loss, "loss")
    real, fake = torch.randn(2, 1, 30, 30), torch.randn(2, 1, 30, 30)
    loss, _ = objective.discriminator_loss(Critic(lambda x: x), real, fake, turn_of(objective))
    d_real, d_fake = torch.sigmoid(real), torch.sigmoid(fake)
    torch.testing.assert_close(loss, -(torch.log(d_real).mean() + torch.log(1 - d_fake).mean()) / 2)
    torch.testing.assert_close(
        objective.generator_loss(Critic(lambda x: x), real, fake, turn_of(objective), None, ())[0], -torch.log(d_fake).mean()
    )  # "maximize log D(x, G(x, z))", not halved


def test_pix2pix_generator_loss() -> None:
    """Equation 4: L_cGAN + 100 E||y - G(x, z)||_1, the norm as a mean over pixels."""
    task, batch = game("model=pix2pix", *PIX2PIX).task, pair_batch()
    fakes: list[Tensor] = []
    task.generator.register_forward_hook(lambda _m, _i, output: fakes.append(output.detach()))
    turns(task).discriminator(batch)
    loss, logs = turns(task).generator(batch)
    assert len(fakes) == 1, "both moves of a step are about one G(x)"
    assert set(logs) == {"g/loss", "g/adversarial", "g/l1"}
    torch.testing.assert_close(logs["g/l1"], (batch["target"] - fakes[0]).abs().sum() / fakes[0].numel())
    torch.testing.assert_close(loss.detach(), logs["g/adversarial"] + 100 * logs["g/l1"])


def test_pix2pix_dropout_is_the_noise() -> None:
    """Section 3.2: noise only in the form of dropout, at training and at test time."""
    players = game("model=pix2pix", *PIX2PIX)
    task, source = players.task, pair_batch()["source"]
    assert task.generator.training and not torch.equal(task.generator(source), task.generator(source))
    average = players.ema.average
    one, again, other = (task.translate(average, source, None, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(one, again) and not torch.equal(one, other)


def test_pix2pix_test_time_statistics_are_those_of_the_image() -> None:
    """Section 3.3: batch norm with the statistics of the test batch, which with a batch of 1 is instance normalisation."""
    players = game("model=pix2pix", *PIX2PIX)
    task, average, source = players.task, players.ema.average, pair_batch()["source"]
    norms = [m for m in average.modules() if isinstance(m, nn.BatchNorm2d)]
    with torch.no_grad():
        first = task.translate(average, source, None)
        for norm in norms:
            norm.running_mean.add_(3)
            norm.running_var.mul_(7)
        before = {k: v.clone() for k, v in average.state_dict().items()}
        outputs: list[tuple[nn.Module, Tensor]] = []
        for norm in norms:
            norm.register_forward_hook(lambda m, _i, output: outputs.append((m, output)))
        assert torch.equal(task.translate(average, source, None), first)
    assert len(outputs) == 2 * len(norms) > 0
    for norm, output in outputs:
        assert len(output) == 1
        torch.testing.assert_close(output.mean((0, 2, 3)), norm.bias, atol=1e-5, rtol=0)
    torch.testing.assert_close(average.state_dict(), before, rtol=0, atol=0)
    assert not any(m.training for m in average.modules()), "left as it was"


def test_pix2pix_the_other_sample_mode_has_neither() -> None:
    players = game("model=pix2pix", *PIX2PIX, "model.task.sample_mode=eval")
    task, average, source = players.task, players.ema.average, pair_batch()["source"]
    with torch.no_grad():
        one, other = (task.translate(average, source, None, seed=seed) for seed in (0, 1))
        torch.testing.assert_close(one, average(source), atol=1e-5, rtol=1e-5)
    assert torch.equal(one, other)


def test_pix2pix_learning_rates_of_both_players_in_the_loop() -> None:
    """Authors' PyTorch code: constant for the first half of the run, then straight down to 0."""
    players = game("model=pix2pix", *PIX2PIX, "total_steps=8")
    rates: dict[str, list[float]] = {"D": [], "G": []}
    sides = {"D": players.discriminator, "G": players.generator}
    play(players, 8, lambda who, _: rates[who].append(sides[who].optimizer.param_groups[0]["lr"]))
    for side in rates.values():
        assert side == pytest.approx([2e-4 * factor for factor in (1, 1, 1, 1, 1, 0.75, 0.5, 0.25)])


def images(n: int, channels: int, size: int) -> Tensor:
    return torch.randint(256, (n, channels, size, size), generator=torch.Generator().manual_seed(n), dtype=torch.uint8)


def translation_set(*streams: tuple[tuple[str, ...], Tensor], jitter: Jitter) -> TranslationDataset:
    arrays = [(keys, ArrayDataset(x, labels=None, class_names=[], fingerprint="")) for keys, x in streams]
    return TranslationDataset(arrays, image_size=16, channels=3, jitter=jitter, fingerprint="", held_out=None)


def test_pix2pix_jitter_is_alike_on_both_halves_of_a_pair() -> None:
    """Section 6.2: scaled up, cut and mirrored at random. A target that equals its source still does afterwards."""
    pictures = images(1, 3, 18)
    dataset = translation_set((("source", "target"), torch.cat([pictures, pictures], 1)), jitter=Jitter(18, 16, flip=True))
    stream = Batches(dataset, batch_size=1, seed=0, device=torch.device("cpu"))
    served = [next(stream) for _ in range(200)]
    assert all(torch.equal(batch["source"], batch["target"]) for batch in served)
    assert len({tuple(batch["source"].flatten().tolist()) for batch in served}) == 3 * 3 * 2  # places, mirrored or not


# CycleGAN, Zhu et al. 2017


def test_cyclegan_jitter_is_independent_in_the_domains() -> None:
    pictures = images(1, 3, 18)
    dataset = translation_set((("a",), pictures), (("b",), pictures), jitter=Jitter(18, 16, flip=True))
    stream = Batches(dataset, batch_size=1, seed=0, device=torch.device("cpu"))
    served = [next(stream) for _ in range(200)]
    alike = sum(torch.equal(batch["a"], batch["b"]) for batch in served)
    assert 1 <= alike <= 30  # one in 18


def test_cyclegan_least_squares() -> None:
    """Section 4: G minimises E[(D(G(x)) - 1)^2], D half of E[(D(y) - 1)^2] + E[D(G(x))^2] (half: authors' code)."""
    objective = build(composed("experiment=cyclegan_horse2zebra").loss, "loss")
    assert isinstance(objective.adversarial, LeastSquares)
    real, fake = torch.randn(2, 1, 30, 30), torch.randn(2, 1, 30, 30)
    loss, _ = objective.discriminator_loss(Critic(lambda x: x), real, fake, turn_of(objective))
    torch.testing.assert_close(loss, ((real - 1) ** 2).mean() / 2 + (fake**2).mean() / 2)
    loss, _, _ = objective.generator_loss(Critic(lambda x: x), real, fake, turn_of(objective), None, ())
    torch.testing.assert_close(loss, ((fake - 1) ** 2).mean())


def test_cyclegan_generator_loss() -> None:
    """Equation 3 with lambda 10, and section 5.2's identity loss with weight 0.5 lambda."""
    task = game("model=cyclegan", *CYCLEGAN).task
    a, b = pair_batch().values()
    loss, logs = turns(task).generator({"a": a, "b": b})
    assert set(logs) == {"g/loss", "g/adversarial", "g/cycle", "g/identity"}
    torch.testing.assert_close(loss.detach(), logs["g/adversarial"] + 10 * logs["g/cycle"] + 5 * logs["g/identity"])
    g, f = task.generator.a2b, task.generator.b2a  # the paper's names
    with torch.no_grad():
        cycle = (f(g(a)) - a).abs().mean() + (g(f(b)) - b).abs().mean()
        identity = (g(b) - b).abs().mean() + (f(a) - a).abs().mean()
        adversarial = ((task.discriminator.b(g(a)) - 1) ** 2).mean() + ((task.discriminator.a(f(b)) - 1) ** 2).mean()
    torch.testing.assert_close((logs["g/cycle"], logs["g/identity"], logs["g/adversarial"]), (cycle, identity, adversarial))


def test_cyclegan_both_generators_move_first_then_both_discriminators() -> None:
    """Authors' code, optimize_parameters: both G in one step, then both D in one step, on the same images."""
    players = game("model=cyclegan", *CYCLEGAN)
    task = players.task
    parts = [task.generator.a2b, task.generator.b2a, task.discriminator.a, task.discriminator.b]
    assert len({parameters(part).sum().item() for part in parts}) == 4, "each has weights of its own"
    states: list[list[Tensor]] = []
    moves, logs = play(players, 1, lambda *_: states.append([parameters(part) for part in parts]))
    states.append([parameters(part) for part in parts])
    moved = [[not torch.equal(a, b) for a, b in zip(x, y, strict=True)] for x, y in pairwise(states)]
    assert moves == "GD" and moved == [[True, True, False, False], [False, False, True, True]]
    generators = {"g/loss", "g/adversarial", "g/cycle", "g/identity"}
    updates = {f"{player}/{what}" for player in "dg" for what in ("grad_norm", "skipped")}
    assert set(logs) == updates | generators | {"d/loss", "d/loss_a", "d/loss_b", "d/real", "d/fake", "d/accuracy"}


def test_cyclegan_discriminators_look_at_a_history_of_generated_images() -> None:
    """Section 4, with a pool of 3: D sees new translations in the first three steps, and later also older ones."""
    players = game("model=cyclegan", *CYCLEGAN, "batch_size=1", "model.task.pool_size=3", "optimizer.lr=0.01")
    task, whose = players.task, ["G"]
    made: dict[str, list[Tensor]] = {"a": [], "b": []}
    shown: dict[str, list[Tensor]] = {"a": [], "b": []}
    real: dict[str, list[Tensor]] = {"a": [], "b": []}

    def look(who: str, batch: dict[str, Tensor]) -> None:
        whose[0] = who
        for key in real:
            real[key] += [batch[key]] if who == "D" else []

    def judged(key: str, x: Tensor) -> None:
        if whose[0] == "D":
            shown[key].append(x.detach().clone())
        else:
            made[key].append(x.detach().clone())

    for key in "ab":
        getattr(task.discriminator, key).register_forward_pre_hook(lambda _m, inputs, key=key: judged(key, inputs[0]))
    play(players, 16, look)
    for key in "ab":
        old = []
        assert len(shown[key]) == len(made[key]) == 16
        for step, both in enumerate(shown[key]):
            assert torch.equal(both[:1], real[key][step])
            (origin,) = [k for k, fake in enumerate(made[key][: step + 1]) if torch.equal(fake, both[1:])]
            old += [step - origin]
        assert old[:3] == [0, 0, 0] and 0 in old[3:] and max(old) > 0


def numbered(start: int, stop: int) -> Tensor:
    """Images of one pixel, their number."""
    return torch.arange(start, stop, dtype=torch.float32).view(-1, 1, 1, 1)


def test_cyclegan_pool_of_50() -> None:
    """Section 4 and util/image_pool.py: the first 50 images are returned; after that an old one with probability 1/2."""
    torch.manual_seed(0)
    pool = ImagePool(50, 1, 1)
    assert torch.equal(pool.query(numbered(0, 50)), numbered(0, 50))
    kept, places, swaps = list(range(50)), [0] * 50, 0
    for number in range(50, 2050):
        result = int(pool.query(numbered(number, number + 1)).item())
        if result != number:
            place = kept.index(result)  # an image of the pool is returned and replaced
            kept[place] = number
            places[place] += 1
            swaps += 1
    assert pool.images.flatten().tolist() == kept
    assert swaps == pytest.approx(1000, abs=4 * 500**0.5)  # four standard deviations
    assert min(places) >= 4 and max(places) <= 45  # 20 each


def test_cyclegan_pool_of_0_gives_everything_back() -> None:
    pool = ImagePool(0, 1, 1)
    for start in range(0, 200, 4):
        assert torch.equal(pool.query(numbered(start, start + 4)), numbered(start, start + 4))


def test_cyclegan_pool_survives_a_checkpoint() -> None:
    """All state is in buffers: a copy made from them continues as the original does."""
    torch.manual_seed(0)
    pool, other = ImagePool(5, 1, 1), ImagePool(5, 1, 1)
    pool.query(numbered(0, 3))
    for done in (3, 20):
        other.load_state_dict(pool.state_dict())
        results = []
        for copy in (pool, other):
            torch.manual_seed(1)
            results.append(copy.query(numbered(done, 20 + done)))
        assert torch.equal(*results)
    task = game("model=cyclegan", *CYCLEGAN).task
    assert {"pool_a.images", "pool_a.filled", "pool_b.images", "pool_b.filled"} <= set(task.state_dict())
    assert task.pool_a.images.shape == (50, 1, 16, 16)


PUBLISHED_NETWORKS = [
    ("cgan_mnist", "generator", "dropout", 0.5),
    ("cgan_mnist", "generator", "hidden_z", 200),
    ("cgan_mnist", "generator", "hidden_y", 1000),
    ("cgan_mnist", "generator", "hidden", 1200),
    ("cgan_mnist", "discriminator", "dropout", 0.5),
    ("cgan_mnist", "discriminator", "hidden_x", 240),
    ("cgan_mnist", "discriminator", "pieces_x", 5),
    ("cgan_mnist", "discriminator", "pieces", 4),
    ("pix2pix_facades", "generator", "dropout", 0.5),
    ("pix2pix_facades", "generator", "width", 64),
    ("pix2pix_facades", "generator", "norm", "batch"),
    ("pix2pix_facades", "discriminator", "layers", 3),
    ("pix2pix_facades", "discriminator", "norm", "batch"),
    ("cyclegan_horse2zebra", "generator.a2b", "norm", "instance"),
    ("cyclegan_horse2zebra", "generator.b2a", "width", 64),
    ("cyclegan_horse2zebra", "discriminator.a", "norm", "instance"),
    ("cyclegan_horse2zebra", "discriminator.b", "layers", 3),
    ("wgan_gp_cifar10", "discriminator", "norm", "none"),
    ("wgan_gp_cifar10", "generator", "width", 128),
    ("wgan_gp_fashion_mnist", "discriminator", "norm", "layer"),
    ("wgan_cifar10", "discriminator", "norm", "batch"),
]


@pytest.mark.parametrize(("preset", "network", "key", "value"), PUBLISHED_NETWORKS)
def test_a_preset_has_the_networks_of_its_paper(preset: str, network: str, key: str, value: Any) -> None:
    node: Any = composed(f"experiment={preset}").model
    for part in network.split("."):
        node = node[part]
    assert node[key] == value
