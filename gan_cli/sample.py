"""``gan-sample``: draw images from a trained generator."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

from omegaconf import DictConfig

from gan_cli.app import entry
from gan_cli.config.plain import to_plain
from gan_cli.sampling.config import SampleConfig, check
from gan_cli.system.errors import ConfigError, OutputError, failing_as


def app(cfg: DictConfig) -> None:
    """Load the run, draw or translate, write."""
    config = check(to_plain(cfg))
    import torch

    from gan_cli.compute.device import default_threads
    from gan_cli.rundir.reload import chosen_direction, draw_options, load_run
    from gan_cli.sampling.noise import Source, chosen_classes, sample
    from gan_cli.sampling.translate import batch_key, held_out_images, own_images, translate

    torch.set_num_threads(config.threads or default_threads())
    run = load_run(config.run_dir, step=config.step, ema=config.ema, device=config.device, trust=config.trust)
    output = run.run_dir / "generated" / config.folder_name(run.step)
    if config.output is not None:
        output = Path(config.output).expanduser()
    options = draw_options(run.generator, truncation=config.truncation)
    with failing_as(OutputError, "cannot write", str(output), "Set output= to a folder you can write"):
        if run.translates:
            if config.label is not None:
                raise ConfigError("the run translates images and has no labels", "label", "Leave label out")
            if "gif" in (config.formats or []):
                todo = "Choose from png, grid and npz"
                raise ConfigError("gif is a walk between latents, and this run translates images", "formats", todo)
            direction = chosen_direction(run, config.direction, config.mode)
            key = batch_key(run, direction)
            if config.input is not None:
                sources = own_images(run, config.input, key, output, config.on_bad_image)
            else:
                sources = held_out_images(run, config.num_samples, key, trust=config.trust)
            translate(run, sources, config.formats or ["png", "grid"], output, direction=direction, seed=config.seed)
            return
        for key in ("input", "direction", "mode"):
            if getattr(config, key) is not None:
                todo = f"Leave {key} out; models that translate images are model=pix2pix and model=cyclegan"
                raise ConfigError("the run makes images from noise", key, todo)
        classes = chosen_classes(config.label, run.task.num_classes, run.class_names)
        source = Source(run, config.seed, config.batch_size, classes, options)
        sample(source, config.num_samples, config.formats or ["grid"], output)


def main() -> NoReturn:
    """Console script."""
    entry.run(app, "sample", "gan-sample", SampleConfig)


if __name__ == "__main__":
    main()
