"""The network of published FIDs with random weights, since the real ones are a download of 95 MB."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gan_cli.metrics import inception
from gan_cli.metrics.features import INCEPTION, build_extractor, extract
from gan_cli.metrics.weights import WeightFile
from gan_cli.system.errors import DataError, NotFoundError

CPU = torch.device("cpu")


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """torch-fidelity's network in its default memory format, and a file of its weights."""
    from torch_fidelity import feature_extractor_inceptionv3 as theirs

    path = tmp_path_factory.mktemp("weights") / inception.WEIGHTS.name
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng():
        torch.manual_seed(0)
        patch.setattr(theirs, "load_state_dict_from_url", lambda *_, **__: {})
        patch.setattr(theirs.FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
        patch.setattr(nn.Conv2d, "reset_parameters", lambda self: nn.init.kaiming_normal_(self.weight))
        network = theirs.FeatureExtractorInceptionV3("x", ["2048", "logits_unbiased"])
    torch.save(network.state_dict(), path)
    return network, path


@pytest.fixture
def weights(reference: tuple[Any, Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The weight file, with its hash as the expected one."""
    accept(reference[1], monkeypatch)
    return reference[1]


def accept(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(inception, "WEIGHTS", WeightFile(inception.WEIGHTS.name, "file:///nowhere/x.pth", found))


def images(n: int, channels: int, side: int = 20) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, channels, side, side), generator=generator, dtype=torch.uint8)


@pytest.fixture
def no_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("no_threads")
@pytest.mark.slow
def test_the_numbers_are_those_of_torch_fidelity(reference: tuple[Any, Path], weights: Path, tmp_path: Path) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    node = {"_target_": INCEPTION, "weights": str(weights)}
    extractor = build_extractor(node, labelled=None, folder=tmp_path, device=CPU)
    grey = images(2, 1)
    result = extract(extractor, [grey], 2, device=CPU, what="x")
    assert torch.equal(torch.get_rng_state(), before)
    with torch.inference_mode():
        values, logits = reference[0](grey.repeat(1, 3, 1, 1))
    assert values.shape == (2, extractor.dim) and logits.shape == (2, extractor.num_classes)
    assert (values[0] - values[1]).abs().max() > 1e-2 * values.abs().mean(), "the weights are not degenerate"
    assert result.logits is not None
    torch.testing.assert_close(result.values, values, rtol=1e-5, atol=1e-5 * values.abs().mean().item())
    torch.testing.assert_close(result.logits, logits, rtol=1e-5, atol=1e-5 * logits.abs().mean().item())
    torch.testing.assert_close(logits, values @ reference[0].fc.weight.T, rtol=1e-4, atol=1e-4)
    facts = extractor.facts
    assert facts["features_hash"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert facts["comparable"] == "with published FIDs (2015-12-05 network, TF1 resize)"
    assert {"features", "resize", "value_range"} <= facts.keys()
    assert list(tmp_path.iterdir()) == []


def test_large_batches_are_divided(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    extractor = inception.Inception(weights=str(weights), folder=tmp_path)
    seen = []

    def network(part: Tensor) -> tuple[Tensor, Tensor]:
        seen.append(len(part))
        flat = part.flatten(1).float()
        return flat[:, :5], flat[:, :2]

    monkeypatch.setattr(extractor, "_network", network)
    data = images(2 * inception.CPU_BATCH_SIZE + 1, 3)
    values, logits = extractor(data)
    assert seen == [inception.CPU_BATCH_SIZE] * 2 + [1]
    assert logits is not None and torch.equal(values, data.flatten(1).float()[:, :5]) and len(logits) == len(data)


def test_weights_of_another_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "net.pth"
    torch.save({"a": torch.ones(2)}, path)
    with pytest.raises(DataError, match="sha256.*6726825d"):
        inception.Inception(weights=str(path), folder=tmp_path)
    accept(path, monkeypatch)
    with pytest.raises(DataError, match="do not fit") as caught:
        inception.Inception(weights=str(path), folder=tmp_path)
    assert "\n" not in str(caught.value)


class Evil:
    """An object that makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        import os

        return os.mkdir, (str(self.path),)


def test_code_in_the_file_is_not_run_even_with_the_right_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "net.pth"
    torch.save({"a": Evil(tmp_path / "made")}, path)
    accept(path, monkeypatch)
    with pytest.raises(DataError, match="plain weights"):
        inception.Inception(weights=str(path), folder=tmp_path)
    assert not (tmp_path / "made").exists()


def test_without_a_network_the_error_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(inception, "WEIGHTS", WeightFile("inception.pth", "file:///nowhere/x.pth", "0"))
    with pytest.raises(NotFoundError, match=r"features\.weights=PATH.*features=classifier"):
        inception.Inception(folder=tmp_path / "cache")
