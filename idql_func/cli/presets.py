"""``idql presets``: all presets as a table, or every setting of one."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from idql_func.cli.options import parse_options
from idql_func.training.configs.catalogue import CatalogueEntry, catalogue, presets_called
from idql_func.training.configs.settings import flat_settings, settings_to_dict

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["PresetsOptions", "main", "parse"]


@dataclass(frozen=True)
class PresetsOptions:
    """List all presets: command, learner, data, and upstream's file with the same settings.

    With a name: every setting of that preset.

    Attributes:
        name: The preset to show.
        json: Print the settings as JSON.
    """

    name: Annotated[tyro.conf.Positional[str | None], tyro.conf.arg(metavar="[NAME]")] = None
    json: tyro.conf.FlagCreatePairsOff[bool] = False


parse = functools.partial(parse_options, PresetsOptions, "idql presets")
"""Parse the options; see :func:`parse_options`."""


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    options = parse(arguments)
    entries = catalogue() if options.name is None else presets_called(options.name)
    if options.json:
        shown = {entry.line: settings_to_dict(entry.config) for entry in entries}
        print(json.dumps(shown, indent=2))
        return 0
    from rich.console import Console

    console = Console(highlight=False)
    if options.name is None:
        console.print(_table_of_presets(entries))
        console.print("`idql presets NAME` shows every setting of one.", style="dim")
        return 0
    for entry in entries:
        console.print(_table_of_settings(entry))
    return 0


def _table_of_presets(entries: Iterable[CatalogueEntry]) -> Table:
    table = _table(None, "command", "learner, dataset or environment")
    for entry in entries:
        upstream = f"\nupstream: {entry.upstream[0].rpartition('/')[2]}" if entry.upstream else ""
        table.add_row(entry.line, f"{entry.learner}, {entry.subject}{upstream}")
    return table


def _table_of_settings(entry: CatalogueEntry) -> Table:
    origin = "".join(f"\nupstream: {file}" for file in entry.upstream)
    title = f"{entry.line}: {entry.description}{origin}"
    table = _table(title, "setting", "value", "default if different")
    defaults = flat_settings(_defaults(entry.config))
    for name, value in flat_settings(entry.config).items():
        default = "" if value == defaults[name] else json.dumps(defaults[name])
        table.add_row(name, json.dumps(value), default)
    return table


def _table(title: str | None, first: str, *columns: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(
        title=title, title_justify="left", header_style="bold", box=box.SIMPLE_HEAD, pad_edge=False
    )
    table.add_column(first, no_wrap=True)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _defaults(config: Any) -> Any:
    """The settings of the same classes, also of the learner, with the default of each field."""
    values = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
    parts = {name: _defaults(v) for name, v in values.items() if dataclasses.is_dataclass(v)}
    return type(config)(**parts)
