"""``idql finetune``: from offline to online, with a policy that exists or is trained first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from idql_func.cli.options import (
    RunOptions,
    check_before_start,
    default_settings,
    option_value,
    parse_run_options,
    split_preset,
)
from idql_func.errors import InputError
from idql_func.training.configs.catalogue import presets_of
from idql_func.training.configs.finetune import FinetuneConfig

__all__ = ["FinetuneOptions", "main", "parse"]


@dataclass(frozen=True)
class FinetuneOptions(RunOptions[FinetuneConfig]):
    """The options of ``idql finetune``.

    Attributes:
        start: Run of `idql train`, or one of its checkpoints, whose policy is fine-tuned. None: a
            policy is trained first.
    """

    start: Path | None = None


def parse(arguments: Sequence[str]) -> FinetuneOptions:
    """Parse the options; the preset, the run to start from or the run to resume gives defaults.

    Raises:
        InputError: if the first argument is neither a preset nor a run, or ``--resume`` is given
            together with a preset or ``--start``.
        FileNotFoundError: if the run to resume or to start from does not exist.
        SystemExit: help was requested (0).

    Example:
        >>> config = parse(["antmaze-actor", "--seed", "3"]).config
        >>> config.train_actor, config.offline.learner.decay_steps
        (True, 4000000)
    """
    preset, arguments = split_preset(arguments)
    start, resume = option_value(arguments, "--start"), option_value(arguments, "--resume")
    if resume is not None and start is not None:
        raise InputError("--resume uses the settings of the run: give no --start with it")
    if resume is None and preset is not None and preset not in presets_of("finetune"):
        config = _settings_for_run(preset, start)
    else:
        config = default_settings("finetune", preset, resume)
        if start is not None:
            from idql_func.training.finetune import settings_for_start

            config = settings_for_start(config, start)
    return parse_run_options(
        "finetune",
        "[PRESET|RUN]",
        arguments,
        FinetuneOptions(config, start=config.start),
        "Fine-tune an offline policy in its environment. RUN is a run of `idql train`, or one of "
        "its checkpoints, whose policy is fine-tuned; with a preset alone a policy is trained "
        "first. The defaults below are those of the preset.",
    )


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    options = parse(arguments)
    check_before_start(options.config)
    from idql_func.training.finetune import finetune

    finetune(options.config, resume=options.resume, overwrite=options.overwrite)
    return 0


def _settings_for_run(run: str, start: str | None) -> FinetuneConfig:
    """The settings that fine-tune a run: ``pointmaze`` if it has that dataset, else ``antmaze``."""
    presets = presets_of("finetune")
    if not Path(run).exists():
        raise InputError(f"{run} is neither a preset nor a run; presets are {', '.join(presets)}")
    if start is not None:
        raise InputError(f"{run} and --start {start} are both runs to start from; give one")
    from idql_func.training.finetune import settings_for_start

    maze = presets["pointmaze"].config
    config = settings_for_start(maze, run)
    if config.offline.dataset.source == maze.offline.dataset.source:
        return config
    return settings_for_start(presets["antmaze"].config, run)
