"""``idql online``: train a policy on the data that it collects itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from idql_func.cli.options import (
    RunOptions,
    check_before_start,
    default_settings,
    option_value,
    parse_run_options,
    split_preset,
)
from idql_func.training.configs.online import OnlineConfig

__all__ = ["OnlineOptions", "main", "parse"]


@dataclass(frozen=True)
class OnlineOptions(RunOptions[OnlineConfig]):
    """The options of ``idql online``."""


def parse(arguments: Sequence[str]) -> OnlineOptions:
    """Parse the options; the preset or the run to resume gives their defaults.

    Raises:
        InputError: if the preset is unknown, or given together with ``--resume``.
        FileNotFoundError: if the run to resume does not exist.
        SystemExit: help was requested (0).

    Example:
        >>> config = parse(["redq", "--utd-ratio", "20"]).config
        >>> config.utd_ratio, config.learner.num_qs
        (20, 10)
    """
    preset, arguments = split_preset(arguments)
    config = default_settings("online", preset, option_value(arguments, "--resume"))
    return parse_run_options(
        "online",
        "[PRESET]",
        arguments,
        OnlineOptions(config),
        "Train a policy on the data that it collects itself. The defaults below are those of the "
        "preset.",
    )


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    options = parse(arguments)
    check_before_start(options.config)
    from idql_func.training.online import train_online

    train_online(options.config, resume=options.resume, overwrite=options.overwrite)
    return 0
