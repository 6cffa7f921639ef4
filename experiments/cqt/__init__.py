"""The other road: a CycleGAN on constant-Q frames, measured beside this project's own model."""
