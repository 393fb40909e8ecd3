"""Where a run is computed: device and processes."""
