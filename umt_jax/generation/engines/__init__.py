"""Engines: what computes the codes, on each kind of machine."""
