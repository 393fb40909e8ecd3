"""Evaluations while a run trains, by the rule of ``gan-eval``, and which checkpoint is the best."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any

from gan_cli.config.metrics import SEVERAL, VALUES, Metric, is_better
from gan_cli.config.plain import Node
from gan_cli.data.dataset import ImageDataset, TranslationDataset
from gan_cli.evaluation.case import Rule, how_compared, how_made, machine, prepare
from gan_cli.evaluation.image_sets import Images, of_dataset, of_noise, of_sources
from gan_cli.evaluation.measure import Evaluation, advice
from gan_cli.metrics.cache import cache_dir
from gan_cli.rundir import checkpoint, evaluations
from gan_cli.system.errors import ConfigError, NotFoundError
from gan_cli.training.game import Game

log = logging.getLogger("gan_cli")
SEED = 0  # of the samples, as gan-eval's default
BATCH = 64
LPIPS = {"net": "alex", "weights": None, "linear": None}


class TrainingEvaluation:
    """Measures the averaged generator of a run. It draws from no random numbers of the training.

    Args:
        game: whose average is measured. node: config of the data set. The others are those of the run's config.

    Attributes:
        metric: the value that decides which checkpoint is best, ``fid`` say. values: all that are measured, that one first.
        best: its ``step``, ``metric``, ``value`` and ``protocol_id``, or None as long as there is none.

    Raises:
        GanError: a metric does not fit the run, or weights of the evaluation are missing. Nothing has been trained then.
    """

    run_dir: Path
    best: dict[str, Any] | None = None

    def __init__(
        self,
        game: Game,
        node: Node,
        *,
        num_samples: int,
        metrics: list[Metric] | None,
        features: Node,
        optimized_metric: str | None,
    ) -> None:
        self.game, self.num_samples = game, num_samples
        if not isinstance(game.dataset, TranslationDataset) and len(game.dataset.shape) != 3:
            todo = "Leave eval_every out; its distance from the data is logged anyway"
            raise ConfigError("the run makes points, not images", "eval_every", todo)
        fake, real, training, direction = self.images()
        self.split = real.what if isinstance(game.dataset, TranslationDataset) else node.get("split", "all")
        self.fake, self.direction = fake, direction  # the averaged generator as it is when they are gone through
        try:
            self.evaluation: Evaluation = prepare(
                real, fake, Rule(metrics, features, LPIPS, None, None), node=node, device=game.machine.device,
                training=training, paired=training is None and direction is None, two_domains=direction is not None,
            )  # fmt: skip
        except NotFoundError as error:
            if "lpips." not in error.todo:
                raise
            todo = f"Put it into {cache_dir(None)}, or leave lpips out of metrics="
            raise NotFoundError(error.what, error.where, todo) from error
        self.node = node
        self.rule = evaluations.protocol_id(self.protocol(fake))
        extractor = self.evaluation.extractor
        chosen = self.evaluation.metrics
        notes = advice(chosen, fake, real, extractor.dim) if extractor is not None else []
        for note in notes:
            log.info("note: %s", note)
        given = [value for metric in chosen for value in SEVERAL.get(metric, [metric])]
        if fake.again is None:
            given = [value for value in given if value != "lpips_diversity"]
        wanted = str(optimized_metric).removeprefix("metric/")
        if wanted in VALUES and wanted not in given:
            known = ", ".join(f"metric/{value}" for value in given)
            raise ConfigError(f"the evaluations give no {wanted!r}", "optimized_metric", f"They give: {known}")
        self.metric = wanted if wanted in VALUES else given[0]
        if metrics is None and self.metric == "fid" and wanted != "fid" and notes:  # too few images for it
            self.metric = "kid"
        self.values = [self.metric, *(value for value in given if value != self.metric and not value.endswith("_std"))]
        if extractor is not None:
            self.evaluation.reference()  # what takes long takes it now, not in the middle of the run

    def begin(self, run_dir: Path, best: dict[str, Any] | None) -> None:
        """Results go to ``run_dir``. ``best``: of the checkpoint that the run continues from, else None.

        Raises:
            ConfigError: there are evaluations by another rule already.
        """
        self.run_dir, self.best = run_dir, best
        if best is not None and best["protocol_id"] != self.rule:
            todo = "Set metrics, num_samples and features as before, or leave eval_every out and use gan-eval"
            what = f"the evaluations of this run follow another rule ({best['protocol_id']}, not {self.rule})"
            raise ConfigError(what, "eval_every", todo)
        if best is not None and best["metric"] != self.metric:
            log.info("note: %s decides now, so which checkpoint is best is decided anew", self.metric)
            self.best = None

    def path(self) -> Path:
        """Of the result of this step."""
        return self.run_dir / "evaluations" / f"{checkpoint.name(self.game.progress.step)}-{self.rule}.json"

    def weights_hash(self) -> str:
        """SHA-256 of the file that the averaged generator is saved to."""
        return hashlib.sha256(checkpoint.as_bytes(self.game.ema.average.state_dict(), self.game.progress.step)).hexdigest()

    def images(self) -> tuple[Images, Images, ImageDataset | None, str | None]:
        """What the averaged generator makes now, and what it is compared with."""
        game = self.game
        if isinstance(game.dataset, TranslationDataset):
            direction = next(iter(game.task.directions), None)
            fake, real = of_sources(
                game.task, game.ema.average, game.dataset, self.num_samples,
                direction=direction, seed=SEED, batch_size=BATCH, device=game.machine.device,
            )  # fmt: skip
            return fake, real, None, direction
        fake = of_noise(
            game.task, game.ema.average, self.num_samples, seed=SEED, batch_size=BATCH, device=game.machine.device
        )  # fmt: skip
        return fake, of_dataset(game.dataset, "reference"), game.dataset, None

    def protocol(self, fake: Images) -> dict[str, object]:
        """What ``gan-eval`` with the same number of samples would write."""
        game = self.game
        return {
            "protocol": "default",
            **self.evaluation.facts(fake),
            **how_compared(self.node, self.split),
            **how_made(game.task, game.ema.average, seed=SEED, ema=True, direction=self.direction),
        }

    def measure(self) -> tuple[dict[str, float], bool]:
        """Values to log, and whether they are the best so far, which ``best`` says then. Written as ``gan-eval`` does.

        Raises:
            DivergedError: the generator makes values that are not finite.
        """
        game, step = self.game, self.game.progress.step
        values = self.evaluation.measure(self.fake)
        protocol = {
            **self.protocol(self.fake),
            "step": step,
            "images": game.progress.images,
            "checkpoint_hash": self.weights_hash(),
            **machine(game.machine.device),
        }
        evaluations.write(self.path(), values, protocol, todo="Make the run directory writable")
        value, before = values[self.metric], None if self.best is None else self.best["value"]
        better = is_better(self.metric, value, before, self.evaluation.paired)
        if better:
            self.best = {"step": step, "metric": self.metric, "value": value, "protocol_id": self.rule}
        return values, better
