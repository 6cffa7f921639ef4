"""Which processes made what, and what those that ended have left."""
