"""Training: the loop, and everything beside it."""
