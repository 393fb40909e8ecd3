"""The command line: Hydra, errors as lines and exit codes."""
