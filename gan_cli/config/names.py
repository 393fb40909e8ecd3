"""The nearest name to a misspelt one."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

SYNONYMS = {  # keys of gan-train -> names of other tools
    "batch_size": "batch bs",
    "cuda": "gpu",
    "dataset": "data",
    "dataset.channels": "channels",
    "dataset.image_size": "image_size img_size imsize size",
    "dataset.root": "data_dir data_path dataroot datadir data_root root",
    "device": "gpu gpus cuda no_cuda",
    "epochs": "epoch num_epochs n_epochs",
    "experiment": "exp preset config",
    "formats": "format",
    "label": "class classes labels",
    "log_every": "log_interval",
    "loss.n_critic": "n_critic",
    "metrics": "metric",
    "model": "arch",
    "model.discriminator.width": "ndf",
    "model.generator.width": "ngf width",
    "model.task.latent_dim": "z_dim nz latent_dim",
    "num_samples": "n samples",
    "optimizer": "optim",
    "optimizer.betas": "beta1 beta2 betas",
    "optimizer.discriminator.lr": "lr_d d_lr",
    "optimizer.lr": "lr learning_rate lr_g g_lr",
    "precision": "amp fp16 bf16",
    "run_dir": "resume output out outdir output_dir out_dir logdir log_dir name",
    "sample_every": "sample_interval",
    "save_every": "save_interval snap",
    "schedule": "scheduler",
    "seed": "random_seed",
    "step": "checkpoint",
    "total_steps": "steps max_steps iterations iters niter kimg",
    "workers": "num_workers",
}


def nearest(word: str, words: Iterable[str]) -> str:
    """``" Did you mean: width?"``, or an empty text when no word is near.

    Case, ``-`` and ``_`` do not count. A dotted key is compared with the keys of its section, then with the last parts of
    all keys.
    """
    names = {_letters(w): w for w in reversed([w for w in words if w != word])}
    wanted = _letters(word)
    synonyms = [_letters(key) for key, others in SYNONYMS.items() if word.lower().replace("-", "_") in others.split()]
    section, _, last = wanted.rpartition(".")
    beside = {name.rpartition(".")[2]: w for name, w in names.items() if name.rpartition(".")[0] == section}
    tails = {name.rpartition(".")[2]: w for name, w in names.items() if name.startswith(section)} | {
        name.rpartition(".")[2]: w for name, w in names.items()
    }
    found = next((names[name] for name in (wanted, *synonyms) if name in names), None)
    found = found or next((beside[m] for m in difflib.get_close_matches(last, beside, n=1, cutoff=0.7)), None)
    found = found or next((tails[m] for m in difflib.get_close_matches(last, tails, n=1, cutoff=0.75)), None)
    if not found and len(last) > 2:  # pool -> model.task.pool_size
        found = next((w for name, w in tails.items() if name.startswith(last)), None)
    return f" Did you mean: {found}?" if found else ""


def _letters(word: str) -> str:
    """A name in lower case, without ``-``, ``_`` and blanks."""
    return re.sub(r"[-_ ]", "", word.lower())
