"""Evaluations while a run trains, by the rule of ``gan-eval``, and which checkpoint is the best."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any

from gan_cli.config.metrics import SEVERAL, VALUES, Metric, is_better
from gan_cli.config.plain import Node
from gan_cli.data.dataset import TranslationDataset
from gan_cli.evaluation.image_sets import Sampler, of_dataset
from gan_cli.evaluation.measure import Evaluation, advice
from gan_cli.evaluation.rule import Comparison, Rule, machine, prepare
from gan_cli.metrics.cache import cache_dir
from gan_cli.rundir import checkpoint, evaluations
from gan_cli.system.errors import ConfigError, NotFoundError
from gan_cli.training.game import Game

log = logging.getLogger("gan_cli")
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
        way = next(iter(game.task.directions), None) if isinstance(game.dataset, TranslationDataset) else None
        self.sampler = Sampler(game.task, game.ema.average, game.machine.device, direction=way)
        self.images = self.compared(node)  # made by the averaged generator when they are read
        fake, real = self.images.fake, self.images.real
        try:
            self.evaluation: Evaluation = prepare(self.images, Rule(metrics, features, LPIPS), game.machine.device)
        except NotFoundError as error:
            if "lpips." not in error.todo:
                raise
            todo = f"Put it into {cache_dir(None)}, or leave lpips out of metrics="
            raise NotFoundError(error.what, error.where, todo) from error
        self.rule = evaluations.protocol_id(self.protocol())
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
            self.evaluation.reference()  # before the first step, since it takes long

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
            log.info("note: optimized_metric is now %s; the best checkpoint is chosen again", self.metric)
            self.best = None

    def path(self) -> Path:
        """The file of the result of this step."""
        return self.run_dir / "evaluations" / f"{checkpoint.name(self.game.progress.step)}-{self.rule}.json"

    def weights_hash(self) -> str:
        """SHA-256 of the file that the averaged generator is saved to."""
        return hashlib.sha256(checkpoint.as_bytes(self.game.ema.average.state_dict(), self.game.progress.step)).hexdigest()

    def compared(self, node: Node) -> Comparison:
        """The samples of the averaged generator and their reference, the data set of ``node``."""
        dataset, sampler = self.game.dataset, self.sampler
        if isinstance(dataset, TranslationDataset):
            fake, real = sampler.translations(dataset, self.num_samples)
            return Comparison(fake, real, node, real.what, kind="pairs" if sampler.direction is None else "domains")
        fake, real = sampler.from_noise(self.num_samples), of_dataset(dataset, "reference")
        return Comparison(fake, real, node, node.get("split", "all"), training=lambda: dataset)

    def protocol(self) -> dict[str, object]:
        """The protocol that ``gan-eval`` with the same number of samples writes."""
        facts = self.evaluation.facts(self.images.fake)
        return {"protocol": "default", **facts, **self.images.facts(), **self.sampler.facts(ema=True)}

    def measure(self) -> tuple[dict[str, float], bool]:
        """Evaluate, update ``best`` and write the result like ``gan-eval``; return the values, and whether they are the best.

        Raises:
            DivergedError: the generator makes values that are not finite.
        """
        game, step = self.game, self.game.progress.step
        values = self.evaluation.measure(self.images.fake)
        protocol = {
            **self.protocol(),
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
