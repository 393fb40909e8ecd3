"""Extraction of features: bookkeeping, a user's networks, and the default features of a data set."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gan_cli.config import schema
from gan_cli.config.groups import BY_KEY
from gan_cli.metrics import features
from gan_cli.metrics.features import CLASSIFIER, INCEPTION, Custom, build_extractor, default_node, extract
from gan_cli.system.errors import ConfigError, DataError

CONF = Path(__file__).parents[2] / "conf"
CPU = torch.device("cpu")


def images(n: int = 10, channels: int = 3, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, (n, channels, 4, 4), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


class Means(nn.Module):
    """An extractor with the features mean and minimum, and optional logits."""

    def __init__(self, logits: bool = False, value_range: Any = None) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.noise = nn.Dropout(0.5)
        self.logits = logits
        self.dtypes: set[torch.dtype] = set()
        if value_range is not None:
            self.value_range = value_range

    def forward(self, x: Tensor) -> Any:
        self.dtypes.add(x.dtype)
        flat = x.flatten(1).double()
        found = self.noise(torch.stack([flat.mean(1), flat.amin(1)], 1) * self.scale)
        return (found, found[:, :1]) if self.logits else found


def expected(x: Tensor) -> Tensor:
    return torch.stack([x.flatten(1).double().mean(1), x.flatten(1).amin(1).double()], 1).float()


@pytest.mark.parametrize("n", [1, 4, 9, 10])
@pytest.mark.parametrize("logits", [False, True])
def test_the_first_n_in_order(n: int, logits: bool) -> None:
    taken = []

    def batches() -> Iterator[Tensor]:
        for batch in images().split(4):
            taken.append(len(batch))
            yield batch

    result = extract(Custom(Means(logits), {"_target_": "mine.Means"}), batches(), n, device=CPU, what="x")
    assert result.values.dtype == torch.float32 and result.values.device.type == "cpu"
    torch.testing.assert_close(result.values, expected(images())[:n])
    assert (result.logits is not None) == logits
    if result.logits is not None:
        torch.testing.assert_close(result.logits, expected(images())[:n, :1])
    assert sum(taken) < n + 4, "no further batch is drawn"
    assert not result.values.requires_grad


def test_features_that_are_not_finite_name_the_image() -> None:
    class Bad(Means):
        def forward(self, x: Tensor) -> Tensor:
            return torch.where((x[:, 0, 0, 0] == 255)[:, None], float("nan"), 1.0)

    data = images().clamp(max=254)
    data[6:, 0, 0, 0] = 255
    with pytest.raises(DataError, match=r"mine\.Bad.*6"):
        extract(Custom(Bad(), {"_target_": "mine.Bad"}), data.split(4), 10, device=CPU, what="generated images")


def test_global_random_state_is_left_alone() -> None:
    class Random(Means):
        def forward(self, x: Tensor) -> Tensor:
            return torch.rand(len(x), 2)

    torch.manual_seed(3)
    before = torch.get_rng_state()
    loader = torch.utils.data.DataLoader(list(images()), batch_size=4, shuffle=True)  # type: ignore[arg-type]
    extract(Custom(Random(), {"_target_": "mine.Random"}), loader, 10, device=CPU, what="x")
    assert torch.equal(torch.get_rng_state(), before)


def test_says_how_far_it_is(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    caplog.set_level(logging.INFO)
    clock = iter([0.0, 9.0, 12.0, 15.0, 24.0, 30.0])
    monkeypatch.setattr(features.time, "monotonic", lambda: next(clock))
    extract(Custom(Means(), {"_target_": "mine.Means"}), images().split(2), 10, device=CPU, what="real images")
    assert [r.getMessage() for r in caplog.records] == [
        "real images: 4 of 10, 0 images/s, 18 s left",
        "real images: 8 of 10, 0 images/s, 6 s left",
    ]


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    extract(Custom(Means(), {"_target_": "mine.Means"}), images().split(2), 10, device=CPU, what="real images")
    assert "real images: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("value_range", "dtype", "low", "high"),
    [(None, torch.uint8, 0, 255), ((-1, 1), torch.float32, -1, 1), ([0.0, 1.0], torch.float32, 0, 1)],
)
def test_value_range_of_a_custom_network(value_range: Any, dtype: torch.dtype, low: float, high: float) -> None:
    network = Means(value_range=value_range)
    data = torch.zeros(2, 1, 4, 4, dtype=torch.uint8)
    data[1] = 255
    values, logits = Custom(network, {"_target_": "mine.Means"})(data)
    assert network.dtypes == {dtype} and logits is None
    torch.testing.assert_close(values, torch.tensor([[low, low], [high, high]]).float())


def test_facts_of_a_custom_network() -> None:
    a, b, other = Means(), Means(), Means()
    other.scale.data += 1e-3
    hashes = [Custom(network, {"_target_": "mine.Means"}).facts["features_hash"] for network in (a, b, other)]
    assert hashes[0] == hashes[1] != hashes[2] and len(hashes[0]) == 64
    assert Custom(a, {"_target_": "mine.Others"}).facts["features_hash"] != hashes[0]
    facts = Custom(a, {"_target_": "mine.Means"}).facts
    assert facts["features"] == "mine.Means" and facts["value_range"] == [0, 255]
    assert {"resize", "comparable"} <= facts.keys()


class Returns(nn.Module):
    """A network that returns a given value."""

    def __init__(self, output: Any) -> None:
        super().__init__()
        self.output = output

    def forward(self, x: Tensor) -> Any:
        return self.output(x) if callable(self.output) else self.output


@pytest.mark.parametrize(
    "output",
    [
        *[None, "text", 3.0, (torch.ones(4, 2),), (torch.ones(4, 2), None, None), (torch.ones(4, 2), torch.ones(4))],
        *[torch.ones(4), torch.ones(4, 2, 2), torch.ones(3, 2), torch.ones(4, 0), torch.ones(4, 2) * 1j],
        *[lambda x: x @ x[0, 0, 0, :3], lambda x: x.nothing, lambda x: 1 / 0, (torch.ones(4, 2), torch.ones(3, 2))],
    ],
)
def test_every_mistake_of_a_custom_network_is_one_line(output: Any) -> None:
    with pytest.raises(ConfigError, match=r"mine\.Net .*features\._target_") as caught:
        Custom(Returns(output), {"_target_": "mine.Net"})(images(4))
    assert "\n" not in str(caught.value)


def test_a_custom_network_must_not_change_its_mind() -> None:
    custom = Custom(Returns(lambda x: torch.ones(len(x), len(x))), {"_target_": "mine.Net"})
    custom(images(4))
    assert (custom.dim, custom.num_classes) == (4, None)
    with pytest.raises(ConfigError, match="3.*4"):
        custom(images(3))


@pytest.mark.parametrize("value_range", [(0, 255), "unit", 1, (1,)])
def test_a_custom_network_with_another_range(value_range: Any) -> None:
    with pytest.raises(ConfigError, match="value_range"):
        Custom(Means(value_range=value_range), {"_target_": "mine.Means"})


def build(node: dict[str, Any], tmp_path: Path, labelled: Any = None) -> Any:
    return build_extractor(node, labelled=labelled, folder=tmp_path, device=CPU)


def test_build_a_network_of_anybodys(tmp_path: Path) -> None:
    extractor = build({"_target_": "torch.nn.Flatten", "start_dim": 1}, tmp_path)
    assert isinstance(extractor, Custom)
    values, _ = extractor(images(2))
    torch.testing.assert_close(values, images(2).flatten(1).float())


@pytest.mark.parametrize(
    "node",
    [
        {"_target_": "torch.nn.Linear", "in_features": 3},
        {"_target_": "torch.nn.Linear", "in_features": -3, "out_features": 2},
        {"_target_": "collections.OrderedDict"},
        {"_target_": "builtins.open", "file": "nowhere"},
    ],
)
def test_what_cannot_be_built_is_one_line(node: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=node["_target_"].replace(".", r"\.")):
        build(node, tmp_path)


def test_a_classifier_needs_labels(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="features=inception"):
        build({"_target_": CLASSIFIER}, tmp_path)


@pytest.mark.parametrize(
    ("dataset", "target"),
    [
        *[(name, CLASSIFIER) for name in ("digits", "mnist", "fashion_mnist", "kmnist", "digits_paired", "digits_unpaired")],
        *[(name, INCEPTION) for name in ("cifar10", "facades", "image_folder", "npz", "horse2zebra")],
    ],
)
def test_default_is_by_data_set(dataset: str, target: str) -> None:
    text = (CONF / "dataset" / f"{dataset}.yaml").read_text()
    node = default_node(next(line.split()[1] for line in text.splitlines() if line.strip().startswith("_target_:")))
    assert node["_target_"] == target
    assert schema.check(node, "features", BY_KEY["features"].injected) == node


def test_default_of_a_users_data_set() -> None:
    assert default_node("mine.pictures")["_target_"] == INCEPTION


@pytest.mark.parametrize("name", ["inception", "classifier"])
def test_config_file_has_the_arguments_and_their_defaults(name: str) -> None:
    import yaml

    node = yaml.safe_load((CONF / "features" / f"{name}.yaml").read_text())
    schema.check(node, "features", BY_KEY["features"].injected)
    known = schema.parameters(node["_target_"])
    assert known is not None and node.keys() - {"_target_"} == known.keys() - BY_KEY["features"].injected
    with pytest.raises(ConfigError):
        schema.check({**node, "folder": "here"}, "features", BY_KEY["features"].injected)


def test_auto_names_no_class() -> None:
    import yaml

    assert yaml.safe_load((CONF / "features" / "auto.yaml").read_text()) == {"_target_": None}
