"""``gan-eval``: measure a trained generator, or anybody's images, and say exactly how."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from omegaconf import DictConfig

from gan_cli import cli, results, schema
from gan_cli.config import check_features, to_plain
from gan_cli.errors import ConfigError, MemoryFullError, of_system
from gan_cli.metrics.names import Metric
from gan_cli.ranges import ImageSize, PositiveInt, Seed

if TYPE_CHECKING:
    from torch import Tensor

    from gan_cli.eval_sources import Case

log = logging.getLogger("gan_cli")


@dataclass(frozen=True)
class LPIPSConfig:
    """Which network, and where its weights are; None: downloaded."""

    net: Literal["alex", "vgg", "squeeze"]
    weights: str | None
    linear: str | None


@dataclass(frozen=True)
class EvalConfig:
    """Everything ``gan-eval`` reads; conf/eval.yaml says what each key means."""

    run_dir: str | None
    fake: str | None
    real: str | None
    dataset: dict[str, Any] | None
    features: dict[str, Any]
    metrics: list[Metric] | None
    num_samples: PositiveInt
    num_real: PositiveInt | None
    split: Literal["train", "test"] | None
    seed: Seed
    step: str
    ema: bool
    direction: Literal["a2b", "b2a"] | None
    mode: Literal["paper", "eval"] | None
    crop: PositiveInt | None
    image_size: ImageSize | None
    root: str | None
    lpips: dict[str, Any]
    protocol: str
    batch_size: PositiveInt
    device: Literal["auto", "cpu", "cuda", "mps"]
    threads: PositiveInt | None
    cache: str | None
    output: str | None
    trust: bool


def app(cfg: DictConfig) -> None:
    """Load or read the images, measure, print and write."""
    config = check(to_plain(cfg), *chosen_protocol())
    import torch

    from gan_cli import eval_sources
    from gan_cli.game import default_threads

    torch.set_num_threads(config.threads or default_threads())
    try:
        case = eval_sources.of_run(config) if config.run_dir is not None else eval_sources.of_files(config)
        report(config, case)
    except (RuntimeError, MemoryError) as error:
        if of_system(error, "") is None:
            raise
        raise MemoryFullError("the images do not fit in memory", config.device, "Lower num_samples or batch_size") from error


def chosen_protocol() -> tuple[str | None, list[str]]:
    """The option of the group, and the keys that the command line sets."""
    from hydra.core.hydra_config import HydraConfig

    hydra = HydraConfig.get()
    return hydra.runtime.choices.get("protocol"), [o.split("=")[0].lstrip("+~") for o in cli.task_overrides(hydra)]


def check(plain: dict[str, Any], protocol: str | None = None, overridden: Sequence[str] = ()) -> EvalConfig:
    """Types, ranges and what goes together.

    Args:
        plain: the composed config. protocol: the named protocol it follows, if any. overridden: keys set beside that.

    Raises:
        ConfigError: naming the key, the value and what is allowed.
    """
    plain.pop("total_steps", None)  # dataset=digits sets it for gan-train
    plain.setdefault("dataset", None)  # a group of which nothing is chosen is not there
    if isinstance(plain.get("metrics"), str):  # metrics=fid
        plain["metrics"] = [plain["metrics"]]
    plain["protocol"] = protocol or "default"
    fields = schema.check_fields(plain, EvalConfig)
    for key in overridden if protocol is not None else ():
        if key.split(".")[0] in ("features", "num_samples", "num_real", "split", "crop") and key != "features.weights":
            what = f"protocol={protocol} is a rule as it stands"
            raise ConfigError(what, key, f"Leave {key} out, or protocol=")
    fields["lpips"] = schema.check_fields(fields["lpips"], LPIPSConfig, "lpips.")
    fields["features"] = check_features(fields["features"])
    if fields["dataset"] is not None:
        fields["dataset"] = schema.check(fields["dataset"], "dataset")
    config = EvalConfig(**fields)
    for key in ("run_dir", "fake", "real"):
        if getattr(config, key) == "":
            raise ConfigError("a path is needed", key, f"Set {key}=PATH, or leave it out")
    if (config.run_dir is None) == (config.fake is None):
        what = "there is nothing to measure" if config.run_dir is None else "a run and other images at a time"
        raise ConfigError(what, "run_dir and fake", "Set one of them: run_dir=DIR, or fake=FOLDER_OR_NPZ")
    if config.metrics == []:
        raise ConfigError("there is nothing to measure", "metrics", "Set metrics=[fid,kid], or leave it out")
    if config.real is not None and config.dataset is not None:
        raise ConfigError("two references at a time", "real and dataset", "Leave one out")
    if config.root is not None and (config.real is not None or config.dataset is not None):
        raise ConfigError("root is of the run's own data set, and another one is the reference", "root", "Leave root out")
    if config.fake is not None:
        if config.real is None and config.dataset is None:
            todo = "Set real=FOLDER_OR_NPZ or dataset=NAME"
            raise ConfigError("there is nothing to compare the images with", "real", todo)
        for key in ("direction", "mode", "root"):
            if getattr(config, key) is not None:
                raise ConfigError("this is for runs", key, f"Leave {key} out with fake=")
    elif config.image_size is not None:
        raise ConfigError("a run has an image size of its own", "image_size", "Leave it out; it is for fake=")
    return config


def report(config: EvalConfig, case: Case) -> None:
    """Measure, print the table, write JSON, picture and TensorBoard scalars."""
    from gan_cli.evaluate import advice
    from gan_cli.images import enlarge, write_png

    evaluation, fake = case.evaluation, case.fake
    protocol = {"protocol": config.protocol, **evaluation.facts(fake), **case.protocol}
    identity = results.protocol_id(protocol)
    path = case.path.with_name(f"{case.path.name}-{identity}.json")
    picture = path.with_suffix(".png")

    pictures: list[Tensor] = []
    values = evaluation.measure(fake, pictures.append)
    extractor = evaluation.extractor
    notes = advice(evaluation.metrics, fake, evaluation.real, extractor.dim) if extractor is not None else []
    if notes:  # what can be relied on comes first
        values = {k: values[k] for k in sorted(values, key=lambda key: not key.startswith("kid"))}
    print(case.title)
    print("\n".join(results.table(values, translates=evaluation.paired)))
    if extractor is not None:
        accuracy = extractor.facts.get("classifier_accuracy")
        right = f", right on {100 * accuracy:.1f} % of the test images" if accuracy is not None else ""
        print(f"features: {extractor.facts['features']}{right}; comparable {extractor.facts['comparable']}")
    print(f"samples: {fake.n:,}; reference: {case.reference}, {evaluation.real.n:,} images")
    print(f"rule: {results.rule_id(protocol)}; numbers of anybody's images by the same rule can be put beside these")
    everything = results.write(path, values, protocol)
    for pixels in pictures:
        write_png(picture, enlarge(pixels))
    if config.run_dir is not None and config.output is None:
        to_tensorboard(Path(config.run_dir).expanduser(), f"eval_{identity}", values, protocol["step"])
    for note in [*notes, *results.others(protocol, path)]:
        print(f"note: {note}")
    if pictures:
        print(f"neighbours: {picture} (a sample, then its nearest training images)")
    kept = f" (with {len(everything) - len(values)} values measured before)" if len(everything) > len(values) else ""
    print(f"result: {path}{kept}")


def to_tensorboard(run_dir: Path, tag: str, values: dict[str, float], step: int) -> None:
    """Scalars of one protocol under one tag, so that no curve mixes two."""
    from torch.utils.tensorboard import SummaryWriter

    try:
        with SummaryWriter(str(run_dir / "tensorboard")) as writer:
            for key, value in values.items():
                writer.add_scalar(f"{tag}/{key}", value, step)
    except OSError as error:
        log.info("note: no TensorBoard scalars: %s (%s)", error.strerror, run_dir)


def main() -> NoReturn:
    """Console script."""
    cli.run(app, "eval", "gan-eval")


if __name__ == "__main__":
    main()
