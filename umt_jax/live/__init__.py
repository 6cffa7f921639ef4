"""Plays a sound card's input as another instrument, while it comes."""
