"""Checkpoints: saved, restored, checked, imported; and the one that ships."""
