"""Comparison of runs: their differences, their results, and whether the seeds support a difference."""
