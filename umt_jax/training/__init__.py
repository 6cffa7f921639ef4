"""A training step: losses, state, optimizers, and the devices that share it."""
