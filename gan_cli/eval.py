"""``gan-eval``: measure a trained generator, or any images, and record exactly how."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from omegaconf import DictConfig

from gan_cli.app import entry
from gan_cli.config.plain import to_plain
from gan_cli.evaluation.config import EvalConfig, check, chosen_protocol
from gan_cli.rundir import evaluations

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from gan_cli.evaluation.case import Case
    from gan_cli.evaluation.rule import Rule

log = logging.getLogger("gan_cli")


def app(cfg: DictConfig) -> None:
    """Load or read the images, measure, print and write."""
    config = check(to_plain(cfg), *chosen_protocol())
    import torch

    from gan_cli.compute.device import choose_device, default_threads
    from gan_cli.evaluation.case import of_files, of_run, sampler_of
    from gan_cli.evaluation.references import Reference
    from gan_cli.evaluation.rule import Rule
    from gan_cli.rundir.reload import load_run

    torch.set_num_threads(config.threads or default_threads())
    reference = Reference(config.real, config.dataset, config.root, config.split, config.num_real)
    rule = Rule(config.metrics, config.features, config.lpips, config.cache, config.crop)
    if config.fake is not None:
        case, device = of_files(config.fake, config.num_samples, config.image_size, reference), choose_device(config.device)
    else:
        run = load_run(str(config.run_dir), step=config.step, ema=config.ema, device=config.device, trust=config.trust)
        total = run.config["total_steps"]
        if run.step < total and config.step == "last":
            log.info("the run is not finished: this is step %d of %d", run.step, total)
        use = config.seed, config.batch_size, config.direction, config.mode, config.truncation
        case, device = of_run(run, sampler_of(run, *use), config.num_samples, reference, trust=config.trust), run.device
    report(case, rule, device, config.protocol, config.output)


def report(case: Case, rule: Rule, device: torch.device, protocol_name: str, output: str | None) -> None:
    """Measure, print the table, write JSON, picture and TensorBoard scalars.

    ``output``: folder of the result; None for the default one.
    """
    from gan_cli.evaluation.image_sets import cropped
    from gan_cli.evaluation.measure import advice
    from gan_cli.evaluation.rule import machine, prepare
    from gan_cli.images import enlarge, write_png

    evaluation, fake = prepare(case.images, rule, device), cropped(case.images.fake, rule.crop)
    protocol = {"protocol": protocol_name, **evaluation.facts(fake), **case.images.facts(), **case.protocol, **machine(device)}
    identity = evaluations.protocol_id(protocol)
    folder = case.folder if output is None else Path(output).expanduser()
    path = folder / f"{case.owner if output is not None else ''}{case.name}-{identity}.json"
    picture = path.with_suffix(".png")

    pictures: list[Tensor] = []
    values = evaluation.measure(fake, pictures.append)
    extractor = evaluation.extractor
    notes = advice(evaluation.metrics, fake, evaluation.real, extractor.dim) if extractor is not None else []
    if notes:  # the FID of so few images is not reliable: KID comes first
        values = {k: values[k] for k in sorted(values, key=lambda key: not key.startswith("kid"))}
    lines = [case.title, *evaluations.metric_lines(values, translates=evaluation.paired)]
    if extractor is not None:
        accuracy = extractor.facts.get("classifier_accuracy")
        right = f", right on {100 * accuracy:.1f} % of the test images" if accuracy is not None else ""
        lines.append(f"features: {extractor.facts['features']}{right}; comparable {extractor.facts['comparable']}")
    lines.append(f"samples: {fake.n:,}; reference: {case.reference}, {evaluation.real.n:,} images")
    lines.append(f"rule: {evaluations.rule_id(protocol)}; results of other images by the same rule can be compared with these")
    everything = evaluations.write(path, values, protocol)
    for pixels in pictures:
        write_png(picture, enlarge(pixels))
    if "checkpoint_hash" in protocol and output is None:
        to_tensorboard(case.folder.parent, f"eval_{identity}", values, protocol["step"])
    lines += [f"note: {note}" for note in [*notes, *evaluations.others(protocol, path)]]
    if pictures:
        lines.append(f"neighbours: {picture} (a sample, then its nearest training images)")
    kept = f" (with {len(everything) - len(values)} values measured before)" if len(everything) > len(values) else ""
    lines.append(f"result: {path}{kept}")
    with contextlib.suppress(BrokenPipeError):  # gan-eval ... | head: nobody reads the rest
        print("\n".join(lines), flush=True)


def to_tensorboard(run_dir: Path, tag: str, values: dict[str, float], step: int) -> None:
    """Write scalars of one protocol under one tag, so that no curve mixes two."""
    from torch.utils.tensorboard import SummaryWriter

    try:
        with SummaryWriter(str(run_dir / "tensorboard")) as writer:
            for key, value in values.items():
                writer.add_scalar(f"{tag}/{key}", value, step)
    except OSError as error:
        log.info("note: no TensorBoard scalars: %s (%s)", error.strerror, run_dir)


def main() -> NoReturn:
    """Console script."""
    entry.run(app, "eval", "gan-eval", EvalConfig)


if __name__ == "__main__":
    main()
