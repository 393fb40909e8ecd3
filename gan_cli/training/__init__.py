"""Training: the loop, and all other parts of a run."""
