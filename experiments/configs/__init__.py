"""Flagfiles: one recipe each, for `python -m experiments.train --flagfile=...`."""
