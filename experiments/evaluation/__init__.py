"""Parts of `experiments.evaluate`."""
