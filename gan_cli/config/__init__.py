"""The config of a run: its keys, its checks, its objects."""
