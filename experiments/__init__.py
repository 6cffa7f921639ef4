"""Training, measuring and showing a model: the commands of this project."""
