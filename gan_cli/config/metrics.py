"""The metrics of a config, their values, and which direction of each value is better."""

from __future__ import annotations

from typing import Literal

Metric = Literal["fid", "kid", "is", "prdc", "classes", "accuracy", "fid_per_class", "memorisation", "lpips", "psnr", "ssim"]
# Value -> better direction, or the value to be near. A value with a spread has a second one, ``<name>_std``.
VALUES = {
    "fid": "lower",
    "kid": "lower",
    "is": "higher",
    "precision": "higher",
    "recall": "higher",
    "density": "higher",
    "coverage": "higher",
    "classes": "higher",
    "accuracy": "higher",
    "fid_per_class": "lower",
    "memorisation": "near 0.5",
    "lpips": "lower",
    "lpips_diversity": "higher",
    "psnr": "higher",
    "ssim": "higher",
}
# Metric -> its values, for metrics with more than the value of the same name.
SEVERAL = {"prdc": ["coverage", "density", "precision", "recall"], "lpips": ["lpips", "lpips_diversity"]}
FEATURES_NEEDED = frozenset({"fid", "kid", "is", "prdc", "classes", "accuracy", "fid_per_class", "memorisation"})
LABELS_NEEDED = frozenset({"classes", "accuracy", "fid_per_class"})
TARGETS_NEEDED = frozenset({"psnr", "ssim"})


def direction(key: str, translates: bool = True) -> str:
    """``lower``, ``higher`` or ``near 0.5`` is better. ``lpips`` of samples from noise is their diversity."""
    if key == "lpips" and not translates:
        key = "lpips_diversity"
    return VALUES["fid_per_class" if key.startswith("fid/") else key]


def is_better(key: str, value: float, than: float | None, translates: bool = True) -> bool:
    """Whether ``value`` of a metric beats another one, or there is none to beat."""
    if than is None:
        return True
    way = direction(key, translates)
    if way.startswith("near"):
        goal = float(way.split()[1])
        return abs(value - goal) < abs(than - goal)
    return value > than if way == "higher" else value < than
