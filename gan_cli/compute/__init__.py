"""Device, memory layout and processes of a run."""
