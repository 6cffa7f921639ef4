"""Parts of `experiments.benchmark`."""
