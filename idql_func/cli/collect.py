"""``idql collect``: a dataset from policies, replay buffers and recordings."""

from __future__ import annotations

from collections.abc import Sequence

from idql_func.cli.options import parse_options
from idql_func.training.configs.collect import CollectConfig

__all__ = ["main", "parse"]


def parse(arguments: Sequence[str]) -> CollectConfig:
    """Parse the options.

    Raises:
        SystemExit: if help was requested (0), or an option is unknown or has an invalid value (2).

    Example:
        >>> parse(["runs/a", "--output", "a.hdf5", "--noise", "0.1"]).noise
        0.1
    """
    return parse_options(CollectConfig, "idql collect", arguments)


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    config = parse(arguments)
    config.validate()
    from idql_func.training.collect import collect

    collect(config)
    return 0
