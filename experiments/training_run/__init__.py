"""Parts of `experiments.train`: a run from its first step to its last."""
