"""All presets of all commands, and the files of upstream that they correspond to.

They are written in ``presets.toml``, which says how.
"""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from idql_func.errors import InputError
from idql_func.training.configs.finetune import FinetuneConfig
from idql_func.training.configs.offline import TrainConfig
from idql_func.training.configs.online import OnlineConfig
from idql_func.training.configs.settings import settings_from_dict

__all__ = [
    "SETTINGS",
    "CatalogueEntry",
    "catalogue",
    "presets_called",
    "presets_of",
    "unknown_preset",
]

SETTINGS: Mapping[str, Any] = MappingProxyType(
    {"train": TrainConfig, "online": OnlineConfig, "finetune": FinetuneConfig}
)
"""The class of the settings of each command that has presets."""

_FILE = Path(__file__).with_name("presets.toml")


@dataclass(frozen=True)
class CatalogueEntry:
    """One preset: its command, its settings and their source.

    ``description`` is one line for help texts; ``upstream`` names upstream's file with these
    settings, then the files that it imports; it is empty for our own presets.
    """

    command: str
    name: str
    description: str
    upstream: tuple[str, ...]
    config: Any

    @property
    def line(self) -> str:
        """The command line that runs it."""
        return f"idql {self.command} {self.name}"

    @property
    def offline(self) -> Any:
        """The settings of the offline run of a fine-tuning run; else its own settings."""
        return getattr(self.config, "offline", self.config)

    @property
    def learner(self) -> str:
        """The name of its learner."""
        return self.offline.learner.class_name

    @property
    def subject(self) -> str:
        """The dataset or the environment."""
        return getattr(self.config, "env", None) or self.offline.dataset.source


def catalogue() -> list[CatalogueEntry]:
    """Return every preset of every command, in the order of ``idql presets``.

    Example:
        >>> [entry.line for entry in catalogue()][:3]
        ['idql train pointmaze', 'idql train pointmaze-iql', 'idql train pointmaze-bc']
    """
    return [entry for command in SETTINGS for entry in presets_of(command).values()]


@functools.cache
def presets_of(command: str) -> Mapping[str, CatalogueEntry]:
    """Return the presets of a command by name; the first is the command's default.

    Example:
        >>> list(presets_of("finetune"))
        ['pointmaze', 'pointmaze-actor', 'antmaze', 'antmaze-actor']
    """
    entries = {}
    for name, table in _tables()[command].items():
        settings = {"command": command, **_settings(command, name)}
        config = settings_from_dict(SETTINGS[command], settings)
        upstream = tuple(table.get("upstream", ()))
        entries[name] = CatalogueEntry(command, name, table["about"], upstream, config)
    return MappingProxyType(entries)


def presets_called(name: str) -> list[CatalogueEntry]:
    """Return the presets of that name, one for each command that has one.

    Raises:
        InputError: if there is none; the message lists all presets.

    Example:
        >>> [entry.command for entry in presets_called("bc")]
        ['train']
    """
    entries = catalogue()
    found = [entry for entry in entries if entry.name == name]
    if not found:
        known = ", ".join(dict.fromkeys(entry.name for entry in entries))
        raise InputError(f"no preset is called {name!r}; there are {known}")
    return found


def unknown_preset(command: str, name: str) -> InputError:
    """Return the error for a preset that a command lacks; it names the command that has it.

    Example:
        >>> str(unknown_preset("train", "sac")).partition(";")[0]
        "no preset of `idql train` is called 'sac'"
    """
    lines = [f"`{entry.line}`" for entry in catalogue() if entry.name == name]
    known = ", ".join(presets_of(command))
    advice = f"there is {' and '.join(lines)}" if lines else f"there are {known}"
    return InputError(f"no preset of `idql {command}` is called {name!r}; {advice}")


@functools.cache
def _tables() -> Mapping[str, Mapping[str, Any]]:
    return tomllib.loads(_FILE.read_text(encoding="utf-8"))


def _settings(command: str, name: str) -> dict[str, Any]:
    """The settings of a preset and of its bases, as JSON has them."""
    table = {k: v for k, v in _tables()[command][name].items() if k not in ("about", "upstream")}
    suffix = "-finetune" if command == "finetune" else ""
    return {**_with_base(table), "preset": name + suffix}


def _with_base(table: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a table on top of those of its base; parts may have a base of their own."""
    own = {k: _with_base(v) if isinstance(v, Mapping) else v for k, v in table.items()}
    own = {k: None if v == "None" else v for k, v in own.items()}
    base = own.pop("base", None)
    return own if base is None else _merged(_settings(*base.split()), own)


def _merged(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    if "class" in own:  # another learner
        return dict(own)
    parts = {
        name: _merged(base[name], value)
        for name, value in own.items()
        if isinstance(value, Mapping) and name in base
    }
    return {**base, **own, **parts}
