"""``gan-eval``: measure a trained generator, or anybody's images, and say exactly how."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from omegaconf import DictConfig

from gan_cli.app import entry
from gan_cli.config.plain import to_plain
from gan_cli.evaluation.config import EvalConfig, check, chosen_protocol
from gan_cli.rundir import evaluations
from gan_cli.system.errors import MemoryFullError, of_system

if TYPE_CHECKING:
    from torch import Tensor

    from gan_cli.evaluation.case import Case

log = logging.getLogger("gan_cli")


def app(cfg: DictConfig) -> None:
    """Load or read the images, measure, print and write."""
    config = check(to_plain(cfg), *chosen_protocol())
    import torch

    from gan_cli.compute.device import default_threads
    from gan_cli.evaluation.case import of_files, of_run

    torch.set_num_threads(config.threads or default_threads())
    try:
        case = of_run(config) if config.run_dir is not None else of_files(config)
        report(config, case)
    except (RuntimeError, MemoryError) as error:
        if of_system(error, "") is None:
            raise
        raise MemoryFullError("the images do not fit in memory", config.device, "Lower num_samples or batch_size") from error


def report(config: EvalConfig, case: Case) -> None:
    """Measure, print the table, write JSON, picture and TensorBoard scalars."""
    from gan_cli.evaluation.measure import advice
    from gan_cli.images import enlarge, write_png

    evaluation, fake = case.evaluation, case.fake
    protocol = {"protocol": config.protocol, **evaluation.facts(fake), **case.protocol}
    identity = evaluations.protocol_id(protocol)
    path = case.path.with_name(f"{case.path.name}-{identity}.json")
    picture = path.with_suffix(".png")

    pictures: list[Tensor] = []
    values = evaluation.measure(fake, pictures.append)
    extractor = evaluation.extractor
    notes = advice(evaluation.metrics, fake, evaluation.real, extractor.dim) if extractor is not None else []
    if notes:  # what can be relied on comes first
        values = {k: values[k] for k in sorted(values, key=lambda key: not key.startswith("kid"))}
    print(case.title)
    print("\n".join(evaluations.table(values, translates=evaluation.paired)))
    if extractor is not None:
        accuracy = extractor.facts.get("classifier_accuracy")
        right = f", right on {100 * accuracy:.1f} % of the test images" if accuracy is not None else ""
        print(f"features: {extractor.facts['features']}{right}; comparable {extractor.facts['comparable']}")
    print(f"samples: {fake.n:,}; reference: {case.reference}, {evaluation.real.n:,} images")
    print(f"rule: {evaluations.rule_id(protocol)}; numbers of anybody's images by the same rule can be put beside these")
    everything = evaluations.write(path, values, protocol)
    for pixels in pictures:
        write_png(picture, enlarge(pixels))
    if config.run_dir is not None and config.output is None:
        to_tensorboard(Path(config.run_dir).expanduser(), f"eval_{identity}", values, protocol["step"])
    for note in [*notes, *evaluations.others(protocol, path)]:
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
    entry.run(app, "eval", "gan-eval")


if __name__ == "__main__":
    main()
