"""Generating sound: samples, streams, chunks side by side, mixtures."""
