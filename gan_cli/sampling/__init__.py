"""Samples and translations of a run, and their files."""
