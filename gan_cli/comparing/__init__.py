"""Runs beside each other: what differs, what came out, and whether the seeds support it."""
