"""``idql doctor``: versions, compilers, and which fast routes are on, and why not."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

import tyro

from idql_func.cli.refusals import parse_or_refuse

__all__ = ["main", "parse"]

_WIDTH = 80


def main(arguments: Sequence[str]) -> int:
    """Run the command; status 1 if no program can be compiled, else 0."""
    as_json = parse(arguments)
    from idql_func.compiler.routes import environment, routes

    facts, found = environment(), routes()
    compiles = next(route.on for route in found if route.name == "compiled programs")
    if as_json:
        shown = {"environment": facts, "routes": [dataclasses.asdict(route) for route in found]}
        print(json.dumps(shown, indent=2))
        return 0 if compiles else 1
    from rich.console import Console
    from rich.markup import escape

    from idql_func.training.runs.console import make_table

    console = Console(highlight=False, width=_WIDTH)
    console.print(make_table(("", ""), [(name, escape(value)) for name, value in facts.items()]))
    states = [(route.name, "on" if route.on else f"off: {route.detail}") for route in found]
    console.print(make_table(("route", "state"), [(name, escape(x)) for name, x in states]))
    return 0 if compiles else 1


def parse(arguments: Sequence[str]) -> bool:
    """Parse the options; whether to print JSON."""
    prog = "idql doctor"
    return parse_or_refuse(lambda words: tyro.cli(_options, prog=prog, args=words), prog, arguments)


def _options(json: tyro.conf.FlagCreatePairsOff[bool] = False) -> bool:
    """Show versions, compilers and which fast routes are on; for one that is off, why.

    The status is 1 if nothing can be compiled, so that every function runs eagerly.

    Args:
        json: Print JSON.
    """
    return json
