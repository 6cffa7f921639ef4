"""Training, measuring and showing a model: the commands of this project."""

from umt_jax import own_packages

own_packages.check("data_prep")  # Before a folder of this name elsewhere is imported for it.
