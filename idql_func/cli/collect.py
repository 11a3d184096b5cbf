"""``idql collect``: a dataset out of policies, replay buffers and recordings."""

from __future__ import annotations

from collections.abc import Sequence

import tyro

from idql_func.training.configs.collect import CollectConfig

__all__ = ["main", "parse"]


def parse(arguments: Sequence[str]) -> CollectConfig:
    """Options to settings.

    Raises:
        SystemExit: help was asked for (0), or an option is unknown or has no valid value (2).

    Example:
        >>> parse(["runs/a", "--output", "a.hdf5", "--noise", "0.1"]).noise
        0.1
    """
    return tyro.cli(CollectConfig, prog="idql collect", args=list(arguments))


def main(arguments: Sequence[str]) -> int:
    """Run the command; the exit status."""
    config = parse(arguments)
    config.validate()
    from idql_func.training.collect import collect

    collect(config)
    return 0
