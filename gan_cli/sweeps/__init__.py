"""Sweeps: many runs from one command, found again by the same command."""
