"""Prepared data: which there is, its records, batches for training, and files of latents."""
