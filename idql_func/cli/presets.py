"""``idql presets``: all presets as a table, or every setting of one."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import tyro

__all__ = ["main"]


def main(arguments: Sequence[str]) -> int:
    """Run the command; the exit status."""
    name, as_json = tyro.cli(_options, prog="idql presets", args=list(arguments))
    from idql_func.training.configs.catalogue import catalogue, presets_called
    from idql_func.training.configs.settings import settings_to_dict

    entries = catalogue() if name is None else presets_called(name)
    if as_json:
        shown = {entry.line: settings_to_dict(entry.config) for entry in entries}
        print(json.dumps(shown, indent=2))
        return 0
    from rich.console import Console

    console = Console(highlight=False)
    if name is None:
        console.print(_listing(entries))
        console.print("`idql presets NAME` shows every setting of one.", style="dim")
        return 0
    for entry in entries:
        console.print(_settings(entry))
    return 0


def _options(
    name: tyro.conf.Positional[str | None] = None,
    json: tyro.conf.FlagCreatePairsOff[bool] = False,
) -> tuple[str | None, bool]:
    """List all presets: what runs each, its learner, its data, and upstream's file of the same
    content. With a name: every setting of that preset.

    Args:
        name: The preset to show.
        json: Print the settings as JSON.
    """
    return name, json


def _listing(entries: Sequence[Any]) -> Any:
    from rich import box
    from rich.table import Table

    table = Table(header_style="bold", box=box.SIMPLE_HEAD)
    table.add_column("command", no_wrap=True)
    table.add_column("learner", no_wrap=True)
    table.add_column("dataset or environment", overflow="fold")
    table.add_column("upstream's file", overflow="fold")
    for entry in entries:
        upstream = entry.upstream[0].rpartition("/")[2] if entry.upstream else ""
        table.add_row(entry.line, entry.learner, entry.subject, upstream)
    return table


def _settings(entry: Any) -> Any:
    from rich import box
    from rich.table import Table

    from idql_func.training.configs.settings import flat_settings

    origin = f"\nupstream: {', '.join(entry.upstream)}" if entry.upstream else ""
    table = Table(
        title=f"{entry.line}: {entry.description}{origin}",
        title_justify="left",
        header_style="bold",
        box=box.SIMPLE_HEAD,
    )
    table.add_column("setting", no_wrap=True)
    table.add_column("value", overflow="fold")
    table.add_column("default, if another", overflow="fold", style="dim")
    usual = flat_settings(_defaults(entry.config))
    for name, value in flat_settings(entry.config).items():
        other = "" if value == usual[name] else json.dumps(usual[name])
        table.add_row(name, json.dumps(value), other)
    return table


def _defaults(config: Any) -> Any:
    """Settings of the same classes, the learner's too, without any of the preset's choices."""
    values = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
    parts = {name: _defaults(v) for name, v in values.items() if dataclasses.is_dataclass(v)}
    return type(config)(**parts)
