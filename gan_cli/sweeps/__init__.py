"""``gan-train -m``: grids of jobs and searches."""
