"""What a config may hold: every refusal names the key, the value and what is allowed."""

from __future__ import annotations

import ast
import importlib
import inspect
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

import pytest
import yaml
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra

from gan_cli.config import schema
from gan_cli.config.plain import to_plain
from gan_cli.config.training import EMAConfig, check_plain
from gan_cli.ranges import (
    Betas,
    Channels,
    Count,
    DCGANImageSize,
    Finite,
    Fraction,
    ImageSize,
    Momentum,
    NonNegative,
    Positive,
    PositiveInt,
    Seed,
)
from gan_cli.system.errors import ConfigError

CONF = Path(__file__).parent.parent / "conf"
ROOT = CONF.parent / "gan_cli"
NAN, INF = math.nan, math.inf
PARAMS = frozenset({"params"})


@pytest.fixture(scope="module")
def plain() -> dict[str, Any]:
    """What ``gan-train`` with no argument would check."""
    GlobalHydra.instance().clear()
    with initialize_config_module("gan_cli.conf", version_base="1.3"):
        return to_plain(compose("train"))


def refusal(value: Any, kind: Any) -> ConfigError:
    """What ``convert`` says to a value it must refuse."""
    with pytest.raises(ConfigError) as caught:
        schema.convert(value, kind, "group.key")
    assert caught.value.exit_code == 2
    return caught.value


@pytest.mark.parametrize(
    ("value", "kind", "allowed"),
    [
        ("abc", int, "a whole number"),
        (1.5, int, "a whole number"),
        (True, int, "a whole number"),
        (None, int, "a whole number"),
        (NAN, int, "a whole number"),
        (INF, int, "a whole number"),
        ([1], int, "a whole number"),
        ("abc", float, "a number"),
        (True, float, "a number"),
        ({"a": 1}, float, "a number"),
        (1, bool, "true or false"),
        ("yes", bool, "true or false"),
        (True, str, "text"),
        (None, str, "text"),
        (["a"], str, "text"),
        (0, Positive, "a number > 0"),
        (-1e-9, Positive, "a number > 0"),
        (NAN, Positive, "a number > 0"),
        (INF, Positive, "a number > 0"),
        ("1e-3x", Positive, "a number > 0"),
        (-0.1, NonNegative, "a number >= 0"),
        (INF, NonNegative, "a number >= 0"),
        (NAN, Finite, "a number finite"),
        (-INF, Finite, "a number finite"),
        (1.01, Fraction, "a number >= 0 and <= 1"),
        (-0.01, Fraction, "a number >= 0 and <= 1"),
        (1.0, Momentum, "a number >= 0 and < 1"),
        (NAN, Momentum, "a number >= 0 and < 1"),
        (0, PositiveInt, "a whole number >= 1"),
        (2.5, PositiveInt, "a whole number >= 1"),
        (False, PositiveInt, "a whole number >= 1"),
        (-1, Count, "a whole number >= 0"),
        (-1, Seed, "a whole number >= 0 and <= 4294967295"),
        (2**32, Seed, "a whole number >= 0 and <= 4294967295"),
        (5, Channels, "a whole number >= 1 and <= 4"),
        (4096, ImageSize, "a whole number >= 4 and <= 2048"),
        (48, DCGANImageSize, "a power of two from 16 to 256"),
        (8, DCGANImageSize, "a power of two from 16 to 256"),
        (512, DCGANImageSize, "a power of two from 16 to 256"),
        (0, PositiveInt | None, "a whole number >= 1 or null"),
        ("abc", PositiveInt | None, "a whole number >= 1 or null"),
        (0.5, Betas, "a list of 2, each a number >= 0 and < 1"),
        ([0.5], Betas, "a list of 2, each a number >= 0 and < 1"),
        ([0.5, 0.9, 0.99], Betas, "a list of 2, each a number >= 0 and < 1"),
        ("ab", list[PositiveInt], "a whole number >= 1"),
    ],
)
def test_refusals_name_key_value_and_what_is_allowed(value: Any, kind: Any, allowed: str) -> None:
    error = refusal(value, kind)
    assert error.where == "group.key"
    assert error.what == f"{value!r} is not {allowed}"
    assert error.todo == f"Set group.key to {allowed}"
    assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("value", "kind", "where"),
    [([0.5, 1.0], Betas, "group.key[1]"), ([NAN, 0.5], Betas, "group.key[0]"), ([8, 0], list[PositiveInt], "group.key[1]")],
)
def test_refusals_inside_a_list_name_the_element(value: Any, kind: Any, where: str) -> None:
    assert refusal(value, kind).where == where


def test_a_number_too_large_for_float_is_refused_and_not_a_crash() -> None:
    refusal(10**400, Positive)


@pytest.mark.parametrize(
    ("value", "kind", "result"),
    [
        (3, int, 3),
        (3.0, int, 3),
        (1e4, PositiveInt, 10000),
        (32.0, DCGANImageSize, 32),
        (2**32 - 1, Seed, 2**32 - 1),
        (1, Positive, 1.0),
        (1e-5, Positive, 1e-5),
        (0, NonNegative, 0.0),
        (1, Fraction, 1.0),
        (0, Momentum, 0.0),
        (False, bool, False),
        ("abc", str, "abc"),
        (2024, str, "2024"),
        (None, str | None, None),
        (None, PositiveInt | None, None),
        (7.0, PositiveInt | None, 7),
        ([0, 0.9], Betas, [0.0, 0.9]),
        ([64.0, 32], list[PositiveInt], [64, 32]),
        ([], list[PositiveInt], []),
        ("a", Literal["a", "b"], "a"),
        (3.0, Literal[1, 3], 3),
        (None, Literal["a", "b"] | None, None),
        (object, Any, object),
    ],
)
def test_accepted_values_come_back_in_the_declared_type(value: Any, kind: Any, result: Any) -> None:
    converted = schema.convert(value, kind, "key")
    assert converted == result
    assert type(converted) is type(result)


@pytest.mark.parametrize(
    ("value", "kind", "todo"),
    [
        ("genrator", Literal["discriminator", "generator"], "Choose one of discriminator, generator. Did you mean: generator?"),
        ("xyz", Literal["batch", "none"], "Choose one of batch, none"),
        (2, Literal[1, 3], "Choose one of 1, 3"),
        (True, Literal[1, 3], "Choose one of 1, 3"),
        (None, Literal["a"], "Choose one of a"),
        ("c", Literal["a", "b"] | None, None),
    ],
)
def test_options_are_listed(value: Any, kind: Any, todo: str | None) -> None:
    error = refusal(value, kind)
    assert error.where == "group.key" and repr(value) in error.what
    assert todo is None or error.todo == todo


def test_a_node_comes_back_checked_and_converted() -> None:
    node = {"_target_": "gan_cli.networks.dcgan.Generator", "latent_dim": 8.0, "image_size": 16, "channels": 1}
    checked = schema.check(node, "model.generator")
    assert checked == node and type(checked["latent_dim"]) is int


@pytest.mark.parametrize(
    ("changes", "where", "says"),
    [
        ({"widht": 3}, "model.generator.widht", "Did you mean: width?"),
        ({"zzz": 3}, "model.generator.zzz", "takes: latent_dim, image_size, channels, width"),
        ({"latent_dim": None}, "model.generator.latent_dim", "None is not a whole number"),
        ({"latent_dim": 0}, "model.generator.latent_dim", "0 is not a whole number >= 1"),
        ({"image_size": 28}, "model.generator.image_size", "28 is not a power of two"),
        ({"_target_": "gan_cli.networks.dcgan.Genrator"}, "model.generator._target_", "Did you mean: Generator?"),
        ({"_target_": "gan_cli.networks.nothing.Generator"}, "model.generator._target_", "gan_cli.networks.nothing.Generator"),
        ({"_target_": "gan_cli"}, "model.generator._target_", "'gan_cli'"),
        ({"_target_": "torch.nn.Linaer"}, "model.generator._target_", "torch.nn.Linaer"),
        ({"_target_": "no_such_package.Net"}, "model.generator._target_", "no_such_package"),
        ({"_target_": "Net"}, "model.generator._target_", "'Net'"),
    ],
)
def test_a_wrong_node_is_refused(changes: dict[str, Any], where: str, says: str) -> None:
    node = {"_target_": "gan_cli.networks.dcgan.Generator", "latent_dim": 8, "image_size": 16, "channels": 1}
    with pytest.raises(ConfigError) as caught:
        schema.check({**node, **changes}, "model.generator")
    assert caught.value.where == where
    assert says in str(caught.value)


def test_a_required_argument_must_be_given_unless_it_is_injected() -> None:
    node = {"_target_": "gan_cli.optimizers.adam", "lr": 1e-3}
    with pytest.raises(ConfigError, match=r"adam needs .* \(optimizer\.params\)"):
        schema.check(node, "optimizer")
    assert schema.check(node, "optimizer", PARAMS) == node


@pytest.mark.parametrize("hidden", [[256, 0], [256, -3], [256, "x"], "256", None])
def test_hidden_widths_are_checked(hidden: Any) -> None:
    node = {"_target_": "gan_cli.networks.mlp.Discriminator", "image_size": 8, "channels": 1, "hidden": hidden}
    with pytest.raises(ConfigError) as caught:
        schema.check(node, "model.discriminator")
    assert caught.value.where.startswith("model.discriminator.hidden")


def test_nested_nodes_are_checked_under_their_own_key() -> None:
    def loss(**penalty: Any) -> dict[str, Any]:
        return {
            "_target_": "gan_cli.objective.Objective",
            "adversarial": {"_target_": "gan_cli.losses.Wasserstein"},
            "penalty": {"_target_": "gan_cli.penalties.GradientPenalty", **penalty},
            "n_critic": 5.0,
        }

    assert schema.check(loss(weight=10), "loss")["n_critic"] == 5
    with pytest.raises(ConfigError) as caught:
        schema.check(loss(weight=-1), "loss")
    assert caught.value.where == "loss.penalty.weight" and "-1 is not a number > 0" in caught.value.what
    with pytest.raises(ConfigError, match="Did you mean: weight") as caught:
        schema.check(loss(wieght=10), "loss")
    assert caught.value.where == "loss.penalty.wieght"


OWN_CLASS = """
from __future__ import annotations
from typing import Literal
from gan_cli.ranges import Positive

class Net:
    def __init__(self, depth: int, slope: Positive = 0.2, kind: Literal["a", "b"] = "a", extra: Unheard | None = None):
        pass

class Anything:
    def __init__(self, **options):
        pass
"""


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    (tmp_path / "own_networks.py").write_text(OWN_CLASS)
    monkeypatch.syspath_prepend(tmp_path)
    schema.parameters.cache_clear()
    yield "own_networks"
    sys.modules.pop("own_networks", None)
    schema.parameters.cache_clear()


def test_a_class_of_the_users_own_is_inspected(own_module: str) -> None:
    target = f"{own_module}.Net"
    assert list(schema.parameters(target) or {}) == ["depth", "slope", "kind", "extra"]
    checked = schema.check({"_target_": target, "depth": 2.0, "slope": 1, "extra": "?"}, "model.generator")
    assert checked == {"_target_": target, "depth": 2, "slope": 1.0, "extra": "?"}
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"depth": 1, "slpoe": 1}, "slpoe"),
        ({"depth": "x"}, "depth"),
        ({"slope": 1}, "depth"),
        ({"depth": 1, "slope": NAN}, "slope"),
        ({"depth": 1, "kind": "c"}, "kind"),
    ]
    for arguments, key in wrong:
        with pytest.raises(ConfigError) as caught:
            schema.check({"_target_": target, **arguments}, "model.generator")
        assert caught.value.where == f"model.generator.{key}"
    anything = {"_target_": f"{own_module}.Anything", "whatever": 1}
    assert schema.check(anything, "x") == anything


@pytest.mark.parametrize(
    ("section", "where", "says"),
    [
        ({"half_lfe": 1, "ramp_up": 0.1}, "ema.half_lfe", "Did you mean: half_life?"),
        ({"half_life": 1}, "ema.ramp_up", "missing"),
        ({"half_life": -1, "ramp_up": 0.1}, "ema.half_life", "-1 is not a number >= 0"),
        ({"half_life": 1, "ramp_up": 2}, "ema.ramp_up", "2 is not a number >= 0 and <= 1"),
    ],
)
def test_a_wrong_section_is_refused(section: Any, where: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        schema.check_fields(section, EMAConfig, "ema.")
    assert caught.value.where == where
    assert says in str(caught.value)


@pytest.mark.parametrize("value", [3, None, "off", [1]])
@pytest.mark.parametrize("section", ["ema", "model", "loss", "optimizer", "schedule"])
def test_a_value_in_place_of_a_section_is_refused(plain: dict[str, Any], section: str, value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        check_plain({**plain, section: value})
    assert caught.value.where == section


@pytest.mark.parametrize("part", ["adversarial", "penalty", "constraint"])
def test_a_word_in_place_of_a_node_is_refused(plain: dict[str, Any], part: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_plain({**plain, "loss": {**plain["loss"], part: "hinge"}})
    assert caught.value.where == f"loss.{part}"


def targets(node: Any) -> Iterator[str]:
    """Every ``_target_`` at any depth."""
    if isinstance(node, dict):
        if node.get("_target_") is not None:
            yield node["_target_"]
        for child in node.values():
            yield from targets(child)
    elif isinstance(node, list):
        for child in node:
            yield from targets(child)


FILES = sorted(path for path in CONF.rglob("*.yaml") if "hydra" not in path.relative_to(CONF).parts)
TARGETS = sorted({t for file in FILES for t in targets(yaml.safe_load(file.read_text()))})


def test_there_are_targets_to_compare() -> None:
    assert len(FILES) > 15
    assert len(TARGETS) > 15


@pytest.mark.parametrize("target", TARGETS)
def test_source_and_import_agree(target: str) -> None:
    module, _, name = target.rpartition(".")
    found = getattr(importlib.import_module(module), name)
    expected: list[tuple[str, bool]] = []
    for p in inspect.signature(found).parameters.values():
        if p.kind is p.VAR_KEYWORD:  # **options: Unpack[Options]
            (options,) = get_args(get_type_hints(found)[p.name])
            expected += [(key, False) for key in get_type_hints(options)]
        else:
            expected.append((p.name, p.default is p.empty))
    known = schema.parameters(target)
    assert known is not None
    assert [(n, p.required) for n, p in known.items()] == expected


PLUGINS = [ROOT / name for name in ("losses.py", "penalties.py", "objective.py", "optimizers.py", "schedules.py")] + [
    path for folder in ("networks", "tasks", "data", "metrics") for path in sorted((ROOT / folder).glob("*.py"))
]


@pytest.mark.parametrize("path", PLUGINS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_annotation_is_resolved(path: Path) -> None:
    """A name that is not resolved raises here, not in a user's command."""
    module = ".".join(["gan_cli", *path.relative_to(ROOT).with_suffix("").parts]).removesuffix(".__init__")
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            schema.parameters(f"{module}.{node.name}")


SEAM = """
from __future__ import annotations
from collections.abc import Sequence
from typing import Literal
from torch import nn
from gan_cli.ranges import Fit, Positive
from gan_cli.schedules import Constant
Side = Literal["d", "g"]

class Penalty:
    def __init__(self, weight: Positive | Constant, side: Side, fit: Fit, parts: dict[str, nn.Module], lr: Positive = 1.0):
        pass

class Wrong:
    def __init__(self, weight: Nowhere):
        pass
"""


@pytest.fixture
def seam(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A module inside a package of ours, as the schema reads it."""
    (tmp_path / "seam.py").write_text(SEAM)
    (tmp_path / "schedules.py").write_text("class Constant:\n    pass\n")
    monkeypatch.setattr(schema, "PACKAGE", tmp_path)
    caches = (schema.parameters, schema._Source.of)
    for cache in caches:
        cache.cache_clear()
    yield "gan_cli.seam"
    for cache in caches:
        cache.cache_clear()


def test_a_number_or_a_node(seam: str) -> None:
    schedule = {"_target_": "gan_cli.schedules.Constant"}
    node = {"_target_": f"{seam}.Penalty", "weight": 2, "side": "d", "fit": "pad", "parts": {}}
    assert schema.check(node, "loss")["weight"] == 2.0
    assert schema.check({**node, "weight": schedule, "parts": {"a": schedule}}, "loss")["weight"] == schedule
    wrong: list[tuple[str, dict[str, Any]]] = [
        ("weight", {"weight": -1}),
        ("weight", {"weight": {"value": 1}}),
        ("side", {"side": "x"}),
        ("fit", {"fit": "squeeze"}),
        ("lr", {"lr": schedule}),
        ("parts.a", {"parts": {"a": 3}}),
        ("weight.typo", {"weight": {**schedule, "typo": 1}}),
    ]
    for key, arguments in wrong:
        with pytest.raises(ConfigError) as caught:
            schema.check({**node, **arguments}, "loss")
        assert caught.value.where == f"loss.{key}"


def test_a_name_that_is_nowhere(seam: str) -> None:
    with pytest.raises(NameError):
        schema.parameters(f"{seam}.Wrong")


def test_checking_a_config_does_not_load_torch() -> None:
    code = "import sys, gan_cli.config.training, gan_cli.app.entry, gan_cli.train; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=CONF.parent)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("target", ["", "Generator", "gan_cli", ".x", "x.", "a..b", "gan_cli.", "."])
def test_a_target_is_a_dotted_name(target: str) -> None:
    with pytest.raises(ConfigError, match="is not the dotted name of a class"):
        schema.parameters(target)


def test_a_long_value_is_shortened() -> None:
    error = refusal("x" * 100_000, PositiveInt)
    assert "(100,002 characters) is not a whole number" in str(error) and len(str(error)) < 400
