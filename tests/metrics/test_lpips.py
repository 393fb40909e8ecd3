"""LPIPS with random weights, compared with torch's functions and with torchmetrics."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gan_cli.metrics.lpips import LPIPS

CHANNELS = {
    "alex": (64, 192, 384, 256, 256),
    "vgg": (64, 128, 256, 512, 512),
    "squeeze": (64, 128, 256, 384, 384, 512, 512),
}
SMALLEST = {"alex": 31, "vgg": 16, "squeeze": 17}
# Output channels, input channels and kernel size of each convolution, by its index in torchvision's ``features``.
ALEX = {0: (64, 3, 11), 3: (192, 64, 5), 6: (384, 192, 3), 8: (256, 384, 3), 10: (256, 256, 3)}
VGG_PLACES = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
VGG_SIZES = (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
VGG = {p: (c, i, 3) for p, c, i in zip(VGG_PLACES, VGG_SIZES, (3, *VGG_SIZES), strict=False)}
FIRES = {3: (64, 16, 64), 4: (128, 16, 64), 6: (128, 32, 128), 7: (256, 32, 128)}
FIRES |= {9: (256, 48, 192), 10: (384, 48, 192), 11: (384, 64, 256), 12: (512, 64, 256)}

Weights = dict[str, Tensor]


def trunk_weights(net: str) -> Weights:
    generator = torch.Generator().manual_seed(0)
    weights: Weights = {"classifier.1.weight": torch.zeros(1)}

    def convolution(name: str, out: int, into: int, size: int) -> None:
        spread = (2 / (into * size**2)) ** 0.5
        weights[f"features.{name}.weight"] = spread * torch.randn(out, into, size, size, generator=generator)
        weights[f"features.{name}.bias"] = 0.1 * torch.randn(out, generator=generator)

    if net == "squeeze":
        convolution("0", 64, 3, 3)
        for place, (into, squeezed, out) in FIRES.items():
            convolution(f"{place}.squeeze", squeezed, into, 1)
            convolution(f"{place}.expand1x1", out, squeezed, 1)
            convolution(f"{place}.expand3x3", out, squeezed, 3)
    else:
        for place, sizes in (ALEX if net == "alex" else VGG).items():
            convolution(str(place), *sizes)
    return weights


def linear_weights(net: str) -> Weights:
    generator = torch.Generator().manual_seed(1)
    return {f"lin{k}.model.1.weight": torch.rand(1, c, 1, 1, generator=generator) for k, c in enumerate(CHANNELS[net])}


def build(net: str) -> LPIPS:
    return LPIPS(trunk_weights(net), linear_weights(net), net)


def images(n: int = 3, height: int = 40, width: int = 36) -> tuple[Tensor, Tensor]:
    a, b = torch.rand(2, n, 3, height, width, generator=torch.Generator().manual_seed(2)) * 2 - 1
    return a, b


def activations(net: str, w: Weights, x: Tensor) -> list[Tensor]:
    """The compared layers, from the tables of the papers."""

    def conv(name: int | str, x: Tensor, stride: int = 1, padding: int = 0) -> Tensor:
        return F.conv2d(x, w[f"features.{name}.weight"], w[f"features.{name}.bias"], stride, padding).relu()

    def fire(place: int, x: Tensor) -> Tensor:
        x = conv(f"{place}.squeeze", x)
        return torch.cat([conv(f"{place}.expand1x1", x), conv(f"{place}.expand3x3", x, padding=1)], dim=1)

    if net == "alex":
        one = conv(0, x, 4, 2)
        two = conv(3, F.max_pool2d(one, 3, 2), padding=2)
        three = conv(6, F.max_pool2d(two, 3, 2), padding=1)
        four = conv(8, three, padding=1)
        return [one, two, three, four, conv(10, four, padding=1)]
    if net == "vgg":
        found = []
        for block in ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28)):
            x = F.max_pool2d(x, 2) if found else x
            for place in block:
                x = conv(place, x, padding=1)
            found.append(x)
        return found
    one = conv(0, x, 2)
    two = fire(4, fire(3, F.max_pool2d(one, 3, 2, ceil_mode=True)))
    three = fire(7, fire(6, F.max_pool2d(two, 3, 2, ceil_mode=True)))
    found = [one, two, three, fire(9, F.max_pool2d(three, 3, 2, ceil_mode=True))]
    for place in (10, 11, 12):
        found.append(fire(place, found[-1]))
    return found


def plain(net: str, a: Tensor, b: Tensor) -> Tensor:
    trunk, linear = trunk_weights(net), linear_weights(net)
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    x, y = (activations(net, trunk, (i - shift[:, None, None]) / scale[:, None, None]) for i in (a, b))
    total = torch.zeros(len(a))
    for k, (f, g) in enumerate(zip(x, y, strict=True)):
        f, g = (h / (h.square().sum(1, keepdim=True).sqrt() + 1e-10) for h in (f, g))
        total += F.conv2d((f - g) ** 2, linear[f"lin{k}.model.1.weight"]).mean((1, 2, 3))
    return total


@pytest.mark.parametrize("net", CHANNELS)
def test_it_is_its_definition(net: str) -> None:
    a, b = images()
    found = build(net)(a, b)
    assert found.shape == (3,)
    torch.testing.assert_close(found, plain(net, a, b), rtol=1e-5, atol=0)


@pytest.mark.parametrize("net", CHANNELS)
def test_equal_images_are_at_zero_and_the_order_of_a_pair_does_not_matter(net: str) -> None:
    lpips = build(net)
    a, b = images()
    assert lpips(a, a.clone()).tolist() == [0, 0, 0]
    torch.testing.assert_close(lpips(a, b), lpips(b, a), rtol=0, atol=0)
    a = torch.zeros_like(a)  # layers of zeros have no direction
    assert lpips(a, a).tolist() == [0, 0, 0]


@pytest.mark.parametrize("net", CHANNELS)
def test_it_agrees_with_torchmetrics(net: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal to 1e-4: torchmetrics adds 1e-8 to the squared norm of a pixel's features, the authors 1e-10 to the norm."""
    module = pytest.importorskip("torchmetrics.functional.image.lpips")
    features = module._get_tv_model_features

    def without_weights(*args) -> torch.nn.Module:
        with torch.device("meta"):
            return features(*args)

    monkeypatch.setattr(module, "_get_tv_model_features", without_weights)
    reference = module._LPIPS(pretrained=False, net=net, pnet_rand=True)
    trunk = trunk_weights(net)
    state = reference.state_dict()
    for name in state:
        if name.startswith("net."):
            place = name.split(".", 3 if "slices" in name else 2)[-1]
            state[name] = trunk[f"features.{place}"]
    for name, weight in linear_weights(net).items():
        state[name] = weight
        state["lins." + name.removeprefix("lin")] = weight
    reference.load_state_dict(state, assign=True)
    a, b = images(height=64, width=70)
    torch.testing.assert_close(build(net)(a, b), reference(a, b).flatten(), rtol=1e-4, atol=0)


@pytest.mark.parametrize("net", CHANNELS)
def test_the_smallest_image(net: str) -> None:
    lpips = build(net)
    assert lpips.smallest_image == SMALLEST[net]
    side = lpips.smallest_image
    assert (lpips(*images(2, side, side)) > 0).all()
    with pytest.raises(AssertionError):
        lpips(*images(2, side, side - 1))
    with pytest.raises(RuntimeError):  # the reason for the assertion
        lpips.trunk(images(2, side, side - 1)[0])


def test_it_is_a_frozen_module_that_lets_gradients_through_to_the_images() -> None:
    lpips = build("alex").train()
    assert not any(p.requires_grad for p in lpips.parameters())
    a, b = images()
    lpips(a.requires_grad_(), b).sum().backward()
    assert a.grad is not None and a.grad.abs().sum() > 0


def test_weights_in_half_precision_and_with_gradients_are_taken() -> None:
    trunk = {name: weight.half().requires_grad_() for name, weight in trunk_weights("alex").items()}
    lpips = LPIPS(trunk, linear_weights("alex"))
    a, b = images()
    assert lpips(a, b).dtype == torch.float32
    torch.testing.assert_close(lpips(a, b), plain("alex", a, b), rtol=1e-2, atol=0)


def test_what_is_missing_or_misshapen_is_named() -> None:
    trunk, linear = trunk_weights("alex"), linear_weights("alex")
    with pytest.raises(ValueError, match=r"features\.3\.weight.*features\.3\.bias$"):
        LPIPS({name: weight for name, weight in trunk.items() if ".3." not in name}, linear)
    with pytest.raises(ValueError, match=r"lin4\.model\.1\.weight$"):
        LPIPS(trunk, {name: weight for name, weight in linear.items() if "lin4" not in name})
    with pytest.raises(ValueError, match=r"lin1\..*1.*128.*1.*1.*1.*192.*1.*1"):
        LPIPS(trunk, linear_weights("vgg"))
    with pytest.raises(ValueError, match=r"features\.0\.weight.*64.*3.*11.*11"):
        LPIPS({**trunk_weights("vgg"), **trunk, "features.0.weight": trunk["features.3.weight"]}, linear)
    with pytest.raises(ValueError, match="vgg16.s weights"):
        LPIPS(trunk, linear_weights("vgg"), "vgg")
