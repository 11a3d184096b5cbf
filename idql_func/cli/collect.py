"""``idql collect``: a dataset from policies, replay buffers and recordings."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from idql_func.cli.options import parse_options
from idql_func.training.configs.collect import CollectConfig

__all__ = ["main", "parse"]


parse = functools.partial(parse_options, CollectConfig, "idql collect")
"""Parse the options; see :func:`parse_options`."""


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    config = parse(arguments)
    config.validate()
    from idql_func.training.collect import collect

    collect(config)
    return 0
