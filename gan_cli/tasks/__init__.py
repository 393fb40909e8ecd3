"""Tasks: what the two players minimise, given a batch. The engine does everything else."""
