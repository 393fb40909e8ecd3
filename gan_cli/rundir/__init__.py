"""The run directory: every file in it, written and read."""
