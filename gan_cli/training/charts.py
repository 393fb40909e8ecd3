"""Names of the logged scalars, and their charts in TensorBoard."""

from __future__ import annotations

from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata  # type: ignore[import-untyped]
from torch.utils.tensorboard import SummaryWriter

HEALTHY = {  # key of metrics.jsonl -> what it is, and what it looks like in a run that learns
    "d/loss": "Loss of the discriminator. Healthy: it settles above 0. Near 0, D has won and G learns little. At the optimum "
    "of minimax and non-saturating losses it is log 4 = 1.386.",
    "g/loss": "Loss of the generator. It does not measure quality: it moves against d/loss. Healthy: no steady growth.",
    "d/real": "Mean output of D for real images: D(x), a probability, or a score if the loss is not on probabilities. Healthy: "
    "above d/fake, and not at 1.",
    "d/fake": "Mean output of D for generated images: D(G(z)), a probability, or a score. Healthy: below d/real, and not at 0.",
    "d/accuracy": "Share of images that D classifies correctly. Healthy: between 0.5 and 0.95.",
    "d/wasserstein": "Estimate of the Wasserstein distance, d/real - d/fake. Healthy: it rises, then falls slowly.",
    "d/overfitting": "r_v of Karras et al. 2020: 0 if D scores held-out images like training images, 1 if like generated ones. "
    "Healthy: below 0.5.",
}


def labels(has_probabilities: bool) -> dict[str, str]:
    """Key of metrics.jsonl -> label in the progress bar and in train.log."""
    real, fake = ("D(x)", "D(G(z))") if has_probabilities else ("score(x)", "score(G(z))")
    return {"d/loss": "d/loss", "g/loss": "g/loss", "d/real": real, "d/fake": fake, "d/wasserstein": "d/wasserstein"}


def describe(writer: SummaryWriter, *, has_probabilities: bool) -> None:
    """Describe the scalars, and lay out the tab Custom Scalars: both losses in a chart, and D of real and generated images."""
    names = labels(has_probabilities)
    losses, outputs = ["d/loss", "g/loss"], ["d/real", "d/fake"]
    title = f"{names['d/real']} and {names['d/fake']}"
    writer.add_custom_scalars({"GAN": {"d/loss and g/loss": ["Multiline", losses], title: ["Multiline", outputs]}})  # type: ignore[no-untyped-call]
    for tag, text in HEALTHY.items():
        metadata = SummaryMetadata(summary_description=text, plugin_data=SummaryMetadata.PluginData(plugin_name="scalars"))
        writer._get_file_writer().add_summary(Summary(value=[Summary.Value(tag=tag, metadata=metadata)]))  # type: ignore[no-untyped-call]
