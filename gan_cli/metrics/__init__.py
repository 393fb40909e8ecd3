"""Metrics of generated images: pure functions of images, features and logits."""
