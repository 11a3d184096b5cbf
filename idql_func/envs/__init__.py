"""Environments: Gymnasium wrappers, names to environments, and the built-in point maze."""
