"""Parsing that several commands share: presets, runs to resume, and the layout of help texts."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
import shutil
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

import tyro

from idql_func.cli.refusals import parse_or_refuse
from idql_func.errors import InputError
from idql_func.training.configs.catalogue import SETTINGS, presets_of, unknown_preset
from idql_func.training.configs.settings import Settings

__all__ = [
    "RunOptions",
    "check_before_start",
    "default_settings",
    "option_value",
    "parse_commands",
    "parse_options",
    "parse_run_options",
    "split_preset",
]

_Options = TypeVar("_Options")


def check_before_start(config: Any) -> None:
    """Refuse settings that no run can have, before anything is loaded or written.

    Numbers, names and sizes are checked first, then the device, and the learner checks its own
    settings when a small one is created from them.

    Raises:
        InputError: a setting is out of range, naming it.
    """
    config.validate()
    from idql_func.training.runtime.device import choose_device

    choose_device(config.device)
    learner = getattr(config, "learner", None)
    for settings in (learner, getattr(getattr(config, "offline", None), "learner", None)):
        if settings is not None:
            _check_learner(settings)


@functools.lru_cache(maxsize=4)
def _check_learner(settings: Any) -> None:
    import numpy as np
    from gymnasium.spaces import Box, Dict

    from idql_func import agents

    observations: Any = Box(-1, 1, (3,))
    if hasattr(settings, "pixel_keys"):
        keys = (*settings.pixel_keys, *settings.depth_keys)
        observations = Dict({key: Box(0, 255, (64, 64, 3, 1), np.uint8) for key in keys})
    cls = getattr(agents, settings.class_name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the run repeats them
        cls.create(0, observations, Box(-1, 1, (2,)), **settings.keywords())


@dataclass(frozen=True)
class RunOptions(Generic[Settings]):
    """The options of a command that starts a run or continues one.

    Attributes:
        resume: Folder of the run to continue, or one of its checkpoints. The result has the same
            bits as a run that was not interrupted.
        overwrite: Replace a run of the same name.
    """

    config: Annotated[Settings, tyro.conf.arg(name="")]
    resume: Path | None = None
    overwrite: tyro.conf.FlagCreatePairsOff[bool] = False


def _number_rule(info: tyro.constructors.PrimitiveTypeInfo) -> Any:
    """Numbers as tyro parses them, with a message of our own for texts that are none."""
    words = {int: "an integer", float: "a number"}.get(info.type)
    if words is None:
        return None

    def read(texts: list[str]) -> Any:
        try:
            return info.type(texts[0])
        except ValueError:
            raise ValueError(f"{texts[0][:60]!r} is not {words}") from None

    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar=info.type.__name__.upper(),
        instance_from_str=read,
        is_instance=lambda value: isinstance(value, (int, info.type)),
        str_from_instance=lambda value: [str(value)],
    )


@functools.cache
def _registry() -> tyro.constructors.ConstructorRegistry:
    registry = tyro.constructors.ConstructorRegistry()
    registry.primitive_rule(_number_rule)
    return registry


def parse_options(
    cls: type[_Options],
    prog: str,
    arguments: Sequence[str],
    default: _Options | None = None,
    description: str | None = None,
) -> _Options:
    """Parse arguments into a dataclass of options.

    Args:
        cls: the class of the options. Its docstring, up to the first section, is the description,
            unless another one is given.
        prog: how the command is called, for the help text.
        arguments: what follows the command's name.
        default: the options for which the arguments are empty.
        description: the text above the options in the help, wrapped already.

    Raises:
        InputError: an option is unknown, or a value is missing or invalid.
        SystemExit: help was requested (0).
    """
    if description is None:
        description = _wrap(re.split(r"\n\n\w+:\n", inspect.cleandoc(cls.__doc__ or ""))[0])
    cli: Any = tyro.cli if default is None else functools.partial(tyro.cli, default=default)
    _check_switches(cls, arguments)
    return parse_or_refuse(
        lambda words: cli(
            cls,
            prog=prog,
            description=description,
            args=words,
            config=(tyro.conf.AvoidSubcommands, tyro.conf.SuppressFixed),
            registry=_registry(),
        ),
        prog,
        arguments,
    )


def parse_commands(
    commands: Mapping[str, type], prog: str, description: str, arguments: Sequence[str]
) -> Any:
    """Parse the name of a command and its options into the dataclass of that command.

    Raises:
        InputError, SystemExit: as :func:`parse_options`.
    """
    for name in arguments[:1]:
        _check_switches(commands.get(name), arguments)
    return parse_or_refuse(
        lambda words: tyro.extras.subcommand_cli_from_dict(
            dict(commands), prog=prog, description=description, args=words, registry=_registry()
        ),
        prog,
        arguments,
        tuple(commands),
    )


def _check_switches(cls: Any, arguments: Sequence[str]) -> None:
    """Refuse a switch with a value: the parser would take it for a word of its own."""
    fields = dataclasses.fields(cls) if dataclasses.is_dataclass(cls) else ()
    switches = {f"--{field.name}" for field in fields if isinstance(field.default, bool)}
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if equals and name.replace("-", "_").replace("__", "--", 1) in switches:
            raise InputError(f"{name} is a switch without a value, got {value[:60]!r}")


def parse_run_options(
    command: str, words: str, arguments: Sequence[str], default: _Options, description: str
) -> _Options:
    """Parse the options of a command that has presets, and list them in its help.

    ``words`` is what may follow the command before its options, ``default`` the options for which
    the arguments are empty, ``description`` the text above the list of presets.

    Raises:
        InputError, SystemExit: as :func:`parse_options`.
    """
    presets = presets_of(command)
    column = max(map(len, presets)) + 2
    listed = [
        _wrap(f"{name:{column}}{preset.description}", "    ", " " * (column + 4))
        for name, preset in presets.items()
    ]
    text = "\n".join([_wrap(description), "  Presets:", *listed])
    return parse_options(type(default), f"idql {command} {words}", arguments, default, text)


def _wrap(text: str, first: str = "  ", following: str = "  ") -> str:
    """Wrap paragraphs. Each line starts with a space: the parser would join the lines otherwise."""
    width = shutil.get_terminal_size().columns
    fill = functools.partial(
        textwrap.fill, width=width, initial_indent=first, subsequent_indent=following
    )
    return "\n".join(fill(part) for part in text.split("\n\n"))


def split_preset(arguments: Sequence[str]) -> tuple[str | None, list[str]]:
    """Split off the first argument if it is a word and not an option.

    Example:
        >>> split_preset(["antmaze", "--seed", "1"]), split_preset(["--seed", "1"])
        (('antmaze', ['--seed', '1']), (None, ['--seed', '1']))
    """
    if arguments and not arguments[0].startswith("-"):
        return arguments[0], list(arguments[1:])
    return None, list(arguments)


def option_value(arguments: Sequence[str], option: str) -> str | None:
    """Return the value of an option before the others are parsed; None if it is absent.

    Example:
        >>> option_value(["--learner_class=IQLLearner"], "--learner-class")
        'IQLLearner'
    """
    value = None
    for i, argument in enumerate(arguments):
        name, equals, inline = argument.partition("=")
        if name.replace("_", "-") == option:
            if equals:
                value = inline
            elif i + 1 < len(arguments) and not arguments[i + 1].startswith("--"):
                value = arguments[i + 1]
    return value


def default_settings(command: str, preset: str | None, resume: str | None) -> Any:
    """Return the settings that the options change: those of a run to resume, or of a preset.

    Without either of them they are those of the command's first preset.

    Raises:
        InputError: if there is no such preset, or a preset is given together with a run to resume.
        FileNotFoundError: if the run does not exist.
    """
    if resume is not None:
        from idql_func.training.runs.directory import open_run_directory

        if preset is not None:
            raise InputError("--resume uses the settings of the run: give no preset with it")
        return open_run_directory(resume).read_config(SETTINGS[command])
    presets = presets_of(command)
    if preset is None:
        return next(iter(presets.values())).config
    if preset not in presets:
        raise unknown_preset(command, preset)
    return presets[preset].config
