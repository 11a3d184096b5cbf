"""``idql online``: train on what the policy itself does; presets and old runs give the defaults."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from idql_func.cli.train import peek
from idql_func.errors import InputError
from idql_func.training.configs.catalogue import unknown_preset
from idql_func.training.configs.online import OnlineConfig
from idql_func.training.configs.online_presets import ONLINE_DESCRIPTIONS, ONLINE_PRESETS

__all__ = ["main", "parse"]

DESCRIPTION = (
    "Train a policy on what it does itself. The defaults below are those of the preset. Presets: "
    + "; ".join(f"{name} = {text}" for name, text in ONLINE_DESCRIPTIONS.items())
    + "."
)


def parse(arguments: Sequence[str]) -> tuple[OnlineConfig, Path | None, bool]:
    """Options to settings; the preset or the run to resume decides their defaults.

    Returns:
        ``(config, resume, overwrite)``.

    Raises:
        InputError: an unknown preset, or a preset together with ``--resume``.
        FileNotFoundError: the run to resume does not exist.
        SystemExit: help was asked for (0), or an option is unknown or has no valid value (2).

    Example:
        >>> config, _, _ = parse(["redq", "--utd-ratio", "20"])
        >>> config.utd_ratio, config.learner.num_qs
        (20, 10)
    """
    arguments = list(arguments)
    preset = arguments.pop(0) if arguments and not arguments[0].startswith("-") else None
    if preset is not None and preset not in ONLINE_PRESETS:
        raise unknown_preset("online", preset)
    resume_from = peek(arguments, "--resume")
    if resume_from is None:
        default = ONLINE_PRESETS[preset or next(iter(ONLINE_PRESETS))]
    elif preset is not None:
        raise InputError("--resume takes its settings from the run: give no preset")
    else:
        from idql_func.training.runs.directory import open_run_directory

        default = open_run_directory(resume_from).read_config(OnlineConfig)

    def options(
        config: Annotated[OnlineConfig, tyro.conf.arg(name="")] = default,
        resume: Path | None = None,
        overwrite: tyro.conf.FlagCreatePairsOff[bool] = False,
    ) -> tuple[OnlineConfig, Path | None, bool]:
        """Train online.

        Args:
            config: The settings.
            resume: A run's folder to continue from.
            overwrite: Replace a run of the same name.
        """
        return config, resume, overwrite

    return tyro.cli(
        options,
        prog="idql online [PRESET]",
        description=DESCRIPTION,
        args=arguments,
        config=(tyro.conf.AvoidSubcommands, tyro.conf.SuppressFixed),
    )


def main(arguments: Sequence[str]) -> int:
    """Run the command; the exit status."""
    config, resume, overwrite = parse(arguments)
    from idql_func.training.online import train_online

    train_online(config, resume=resume, overwrite=overwrite)
    return 0
