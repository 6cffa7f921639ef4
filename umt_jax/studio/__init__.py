"""The studio: a page to play with, `python -m umt_jax.studio`."""
