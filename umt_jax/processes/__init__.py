"""Ownership of files by processes, and removal of files that ended processes left."""
