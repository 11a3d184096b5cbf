"""All presets of all commands, and the file of upstream that each one corresponds to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from idql_func.errors import InputError
from idql_func.training.configs.online_presets import (
    FINETUNE_DESCRIPTIONS,
    FINETUNE_PRESETS,
    ONLINE_DESCRIPTIONS,
    ONLINE_PRESETS,
)
from idql_func.training.configs.presets import DESCRIPTIONS, PRESETS

__all__ = ["UPSTREAM_FILES", "CatalogueEntry", "catalogue", "presets_called", "unknown_preset"]

_STATES, _PIXELS = "examples/states/configs", "examples/pixels/configs"
_TD, _SAC = f"{_STATES}/td_config.py", f"{_STATES}/sac_config.py"
_PIXEL = f"{_PIXELS}/pixel_config.py"

UPSTREAM_FILES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "train locomotion": ("launcher/examples/train_ddpm_iql_offline.py",),
        "train antmaze": ("launcher/examples/train_ddpm_iql_offline.py",),
        "train iql-mujoco": (
            f"{_STATES}/iql_mujoco_config.py",
            f"{_STATES}/iql_antmaze_config.py",
        ),
        "train iql-antmaze": (f"{_STATES}/iql_antmaze_config.py",),
        "train iql-oneparam": ("launcher/iql/train_iql_oneparam.py",),
        "train iql-oneparam-antmaze": ("launcher/iql/train_iql_oneparam.py",),
        "train bc": (f"{_STATES}/bc_config.py",),
        "train pixel-bc": (f"{_PIXELS}/pixel_bc_config.py", _PIXEL),
        "online sac": (_SAC, _TD),
        "online td3": (f"{_STATES}/td3_config.py", _TD),
        "online redq": (f"{_STATES}/redq_config.py", _SAC, _TD),
        "online droq": (f"{_STATES}/droq_config.py", _SAC, _TD),
        "online drq": (f"{_PIXELS}/drq_config.py", _PIXEL),
        "finetune antmaze": ("launcher/examples/train_ddpm_iql_finetune.py",),
        "finetune antmaze-actor": ("launcher/examples/train_ddpm_iql_finetune.py",),
    }
)
"""For ``<command> <preset>`` upstream's file with these settings, then the files it imports."""


@dataclass(frozen=True)
class CatalogueEntry:
    """One preset: its command, its settings and their source.

    ``subject`` is the dataset or the environment; ``upstream`` is empty for our own presets.
    """

    command: str
    name: str
    description: str
    learner: str
    subject: str
    upstream: tuple[str, ...]
    config: Any

    @property
    def line(self) -> str:
        """The command line that runs it."""
        return f"idql {self.command} {self.name}"


def catalogue() -> list[CatalogueEntry]:
    """Return every preset of every command, in the order of ``idql presets``.

    Example:
        >>> [entry.line for entry in catalogue()][:3]
        ['idql train pointmaze', 'idql train pointmaze-iql', 'idql train pointmaze-bc']
    """
    commands: tuple[tuple[str, Mapping[str, Any], Mapping[str, str]], ...] = (
        ("train", PRESETS, DESCRIPTIONS),
        ("online", ONLINE_PRESETS, ONLINE_DESCRIPTIONS),
        ("finetune", FINETUNE_PRESETS, FINETUNE_DESCRIPTIONS),
    )
    return [
        _entry(command, name, config, descriptions[name])
        for command, presets, descriptions in commands
        for name, config in presets.items()
    ]


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
    entries = catalogue()
    lines = [f"`{entry.line}`" for entry in entries if entry.name == name]
    known = ", ".join(entry.name for entry in entries if entry.command == command)
    advice = f"there is {' and '.join(lines)}" if lines else f"there are {known}"
    return InputError(f"no preset of `idql {command}` is called {name!r}; {advice}")


def _entry(command: str, name: str, config: Any, description: str) -> CatalogueEntry:
    # The settings of a fine-tuning run include those of its offline run.
    offline = getattr(config, "offline", config)
    subject = config.env if hasattr(config, "env") else offline.dataset.source
    return CatalogueEntry(
        command=command,
        name=name,
        description=description,
        learner=offline.learner.class_name,
        subject=str(subject),
        upstream=UPSTREAM_FILES.get(f"{command} {name}", ()),
        config=config,
    )
