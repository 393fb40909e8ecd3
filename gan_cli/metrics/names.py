"""The metrics that can be asked for, the values each gives, and which direction is better. Must not import torch."""

from __future__ import annotations

from typing import Literal

Metric = Literal["fid", "kid", "is", "prdc", "classes", "accuracy", "fid_per_class", "memorisation", "lpips", "psnr", "ssim"]

# Value -> better direction, or what it should be near, and what it is. A name ending in _std belongs to the one before it.
VALUES: dict[str, tuple[str, str]] = {
    "fid": ("lower", "Frechet distance between Gaussians fitted to the features"),
    "kid": ("lower", "kernel distance of the features, unbiased: meaningful for few images, too"),
    "is": ("higher", "inception score"),
    "precision": ("higher", "share of samples among the real images"),
    "recall": ("higher", "share of real images among the samples"),
    "density": ("higher", "how densely real images surround the samples; may exceed 1"),
    "coverage": ("higher", "share of real images with a sample among their neighbours"),
    "classes": ("higher", "effective number of classes of the samples, as a share of all"),
    "accuracy": ("higher", "share of samples that are of the class asked for"),
    "fid_per_class": ("lower", "mean of the FIDs within each class"),
    "memorisation": ("near 0.5", "chance that a sample is nearer to the training images than a held-out image is; 1: copies"),
    "lpips": ("lower", "perceptual distance from the target"),
    "lpips_diversity": ("higher", "perceptual distance between two samples from one condition"),
    "psnr": ("higher", "peak signal-to-noise ratio to the target, dB"),
    "ssim": ("higher", "structural similarity to the target"),
}
# Metric -> its values, where it may have others than one of its own name.
SEVERAL = {"prdc": ["coverage", "density", "precision", "recall"], "lpips": ["lpips", "lpips_diversity"]}
FEATURES_NEEDED = frozenset({"fid", "kid", "is", "prdc", "classes", "accuracy", "fid_per_class", "memorisation"})
LABELS_NEEDED = frozenset({"classes", "accuracy", "fid_per_class"})
TARGETS_NEEDED = frozenset({"psnr", "ssim"})


def direction(key: str, translates: bool = True) -> str:
    """``lower``, ``higher`` or ``near 0.5`` is better. ``lpips`` of samples from noise is their diversity."""
    if key == "lpips" and not translates:
        key = "lpips_diversity"
    return VALUES["fid_per_class" if key.startswith("fid/") else key][0]


def is_better(key: str, value: float, than: float | None, translates: bool = True) -> bool:
    """Whether ``value`` of a metric beats another one, or there is none to beat."""
    if than is None:
        return True
    way = direction(key, translates)
    if way.startswith("near"):
        goal = float(way.split()[1])
        return abs(value - goal) < abs(than - goal)
    return value > than if way == "higher" else value < than
