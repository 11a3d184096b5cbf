"""The name of these tests' environment, importable where several modules are named conftest."""

SHORT_PENDULUM = "ShortPendulum-v0"
"""Pendulum with episodes of 10 steps; ``conftest.py`` registers it."""
