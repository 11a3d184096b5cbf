"""``idql presets``: all presets as a table, or every setting of one."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import tyro

from idql_func.cli.options import parse_options
from idql_func.training.configs.catalogue import CatalogueEntry, catalogue, presets_called
from idql_func.training.configs.settings import flat_settings, settings_to_dict

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

    from idql_func.training.runs.console import make_table

    console = Console(highlight=False)
    if options.name is None:
        rows = [(entry.line, _summary(entry)) for entry in entries]
        console.print(make_table(("command", "learner, dataset or environment"), rows))
        console.print("`idql presets NAME` shows every setting of one.", style="dim")
        return 0
    for entry in entries:
        origin = "".join(f"\nupstream: {file}" for file in entry.upstream)
        title = f"{entry.line}: {entry.description}{origin}"
        columns = ("setting", "value", "default if different")
        console.print(make_table(columns, _settings(entry), title))
    return 0


def _summary(entry: CatalogueEntry) -> str:
    upstream = f"\nupstream: {entry.upstream[0].rpartition('/')[2]}" if entry.upstream else ""
    return f"{entry.learner}, {entry.subject}{upstream}"


def _settings(entry: CatalogueEntry) -> Iterator[tuple[str, str, str]]:
    defaults = flat_settings(_defaults(entry.config))
    for name, value in flat_settings(entry.config).items():
        default = "" if value == defaults[name] else json.dumps(defaults[name])
        yield name, json.dumps(value), default


def _defaults(config: Any) -> Any:
    """The settings of the same classes, also of the learner, with the default of each field."""
    values = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
    parts = {name: _defaults(v) for name, v in values.items() if dataclasses.is_dataclass(v)}
    return type(config)(**parts)
