"""Parts of the commands that play a model."""
