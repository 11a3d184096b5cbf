"""The environment of these tests; a module of its own, since every folder may have a conftest."""

SHORT_PENDULUM = "ShortPendulum-v0"
"""Pendulum with episodes of 10 steps; ``conftest.py`` registers it."""
