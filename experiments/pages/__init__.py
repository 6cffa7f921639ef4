"""Web pages about runs."""
