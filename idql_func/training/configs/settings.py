"""Conversion to JSON and back of the frozen dataclasses that describe a run.

A class of settings may have an attribute ``command``, the command of its runs. It is written to the
JSON too, so that the settings of another command are recognised before they are read.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from idql_func.errors import InputError
from idql_func.training.configs.learners import learner_config

__all__ = [
    "Settings",
    "changed_settings",
    "flat_mapping",
    "flat_settings",
    "settings_from_dict",
    "settings_to_dict",
    "with_settings",
]

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Settings = TypeVar("Settings", bound="DataclassInstance")

_COMMAND = "command"
_DEFAULT_COMMAND = "train"  # not written to the JSON of its runs


def settings_to_dict(settings: Any) -> dict[str, Any]:
    """Convert settings to a dictionary for JSON; :func:`settings_from_dict` is the inverse.

    Paths become strings, tuples lists, and settings of a learner get its name under ``"class"``.

    Args:
        settings: a dataclass of numbers, strings, paths, tuples and further dataclasses.

    Example:
        >>> from idql_func.training.configs.learners import SACConfig
        >>> settings_to_dict(SACConfig(num_qs=10))["class"]
        'SACLearner'
    """
    cls = type(settings)
    head: dict[str, Any] = {}
    if getattr(cls, _COMMAND, _DEFAULT_COMMAND) != _DEFAULT_COMMAND:
        head[_COMMAND] = cls.command
    if hasattr(cls, "class_name"):
        head["class"] = cls.class_name
    return head | {f.name: _plain(getattr(settings, f.name)) for f in dataclasses.fields(settings)}


def settings_from_dict(cls: type[Settings], data: Any, prefix: str = "") -> Settings:
    """Rebuild settings from :func:`settings_to_dict`'s dictionary.

    Args:
        cls: the class of the settings.
        data: the dictionary. Missing settings have the class's defaults.
        prefix: what precedes a setting's name in messages, such as ``"dataset."``.

    Raises:
        InputError: if the settings are of another command, a key is unknown, or a value has the
            wrong type.

    Example:
        >>> from idql_func.training.configs.learners import SACConfig
        >>> settings_from_dict(SACConfig, {"num_qs": 10, "hidden_dims": [64]}).hidden_dims
        (64,)
    """
    if not isinstance(data, Mapping):
        raise InputError(
            f"the settings{' ' + prefix.rstrip('.') if prefix else ''} have the "
            f"type {type(data).__name__}, but must be a JSON object"
        )
    values = {str(key): value for key, value in data.items()}
    own, other = getattr(cls, _COMMAND, _DEFAULT_COMMAND), values.pop(_COMMAND, _DEFAULT_COMMAND)
    if not prefix and own != other:
        raise InputError(f"these are the settings of a run of `idql {other}`, not of `idql {own}`")
    if hasattr(cls, "class_name"):
        values.pop("class", None)
    hints = typing.get_type_hints(cls)
    names = [f.name for f in dataclasses.fields(cls)]
    for name, value in values.items():
        if name not in names:
            raise InputError(f"no setting is called {prefix + name!r} in these settings")
        values[name] = _convert(value, hints[name], prefix + name)
    return cls(**values)


def flat_settings(settings: Any) -> dict[str, Any]:
    """Return all settings by their dotted names, with values for JSON.

    Example:
        >>> from idql_func.training.configs.learners import SACConfig
        >>> flat_settings(SACConfig())["hidden_dims"]
        [256, 256]
    """
    return flat_mapping(settings_to_dict(settings))


def changed_settings(settings: Any, other: Any) -> list[str]:
    """Return the dotted names of the settings in which two configurations differ.

    Example:
        >>> from idql_func.training.configs.learners import SACConfig, TD3Config
        >>> changed_settings(SACConfig(), SACConfig(tau=0.1)), len(
        ...     changed_settings(SACConfig(), TD3Config()))
        (['tau'], 9)
    """
    left, right = flat_settings(settings), flat_settings(other)
    return sorted(k for k in left.keys() | right.keys() if left.get(k, ...) != right.get(k, ...))


def with_settings(settings: Settings, other: Any, names: Iterable[str]) -> Settings:
    """Return settings with the values of another configuration for some dotted names.

    Example:
        >>> from idql_func.training.configs.offline import TrainConfig
        >>> with_settings(TrainConfig(seed=3), TrainConfig(batch_size=8), ["batch_size"]).seed
        3
    """
    changed: Any = settings
    inner: dict[str, list[str]] = {}
    for name in names:
        head, _, rest = name.partition(".")
        if rest and type(getattr(settings, head)) is type(getattr(other, head)):
            inner.setdefault(head, []).append(rest)
        else:
            changed = dataclasses.replace(changed, **{head: getattr(other, head)})
    for head, rest in inner.items():
        part = with_settings(getattr(settings, head), getattr(other, head), rest)
        changed = dataclasses.replace(changed, **{head: part})
    return changed


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return settings_to_dict(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def flat_mapping(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the values of a nested mapping by their dotted names.

    Example:
        >>> flat_mapping({"seed": 0, "dataset": {"source": "pointmaze"}})
        {'seed': 0, 'dataset.source': 'pointmaze'}
    """
    result: dict[str, Any] = {}
    for key, value in data.items():
        name = f"{prefix}{key}"
        result |= flat_mapping(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return result


def _convert(value: Any, hint: Any, name: str) -> Any:
    """Convert a value from JSON to the type ``hint``, one of those that settings have."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(value):
        return value
    if origin is types.UnionType or origin is typing.Union:
        if value is None and type(None) in arguments:
            return None
        return _convert(value, _member(value, arguments, name), name)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return settings_from_dict(hint, value, f"{name}.")
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_convert(item, arguments[0], name) for item in value)
    if origin is Literal and value in arguments:
        return value
    if hint is Path and isinstance(value, str | Path):
        return Path(value)
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if hint in (int, str, bool) and type(value) is hint:
        return value
    raise InputError(f"the setting {name} is {value!r}, which is not of its type {hint}")


def _member(value: Any, members: tuple[Any, ...], name: str) -> Any:
    """Return the member of a union for a value; a learner's settings name their class."""
    named = {m.class_name: m for m in members if hasattr(m, "class_name")}
    if not named or not isinstance(value, Mapping):
        return next(m for m in members if m is not type(None))
    chosen = value.get("class", next(iter(named)))
    if chosen not in named:
        learner_config(str(chosen))
        raise InputError(
            f"the setting {name} is of the learner {chosen!r}; it may be of {', '.join(named)}"
        )
    return named[chosen]
