"""What gan-sample makes of a run."""
