"""The presets against the papers' tables, as far as a table can be checked without training.

Parameter counts are written as sums over the layers of the table they belong to. Networks are built on the meta device
where only their shapes matter.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gan_cli.networks import cgan, dcgan, mlp, patchgan, resnet, resnet_translator, unet
from gan_cli.networks.layers import Maxout

NORM = nn.BatchNorm2d | nn.InstanceNorm2d | nn.GroupNorm
WEIGHTED = nn.Conv2d | nn.ConvTranspose2d | nn.Linear


def on_meta(network: Any, *args: Any, **kwargs: Any) -> nn.Module:
    """The network without memory for its weights."""
    with torch.device("meta"):
        return network(*args, **kwargs)


def layers(network: nn.Module) -> list[str]:
    """What it consists of, in order: ``c64...`` convolution, ``u64...`` transposed, ``l64`` linear; ``b``: with bias."""
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
    """Those of layers with these (in, out) channels and kernels of this many pixels, without biases."""
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
    """Only the label's own weights have a gradient."""
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
            *["lrelu0.2", "c512k4s2p1b"],  # errata: nor to the bottleneck
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


@pytest.mark.parametrize(("depth", "patch"), enumerate([1, 16, 34, 70, 142, 286, 574]))
def test_patchgan_receptive_field(depth: int, patch: int) -> None:
    """By the formula, and by what moves the middle logit: weights of one, no activation between."""
    d = patchgan.Discriminator(channels=1, layers=depth, width=1, norm="none")
    assert patchgan.receptive_field(d) == patch
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
