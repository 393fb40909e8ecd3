"""Tasks: the losses of both players for a batch."""
