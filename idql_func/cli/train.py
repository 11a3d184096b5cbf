"""``idql train``: every setting of a run is an option; presets and old runs give the defaults."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro

from idql_func.training.catalogue import unknown_preset
from idql_func.training.config import TrainConfig
from idql_func.training.presets import DESCRIPTIONS, POINTMAZE, PRESETS, preset_for
from idql_func.types import InputError

__all__ = ["main", "parse", "peek"]

LearnerClass = Literal[
    "DDPMIQLLearner", "GeneralDDPMIQLLearner", "IQLLearner", "BCLearner", "PixelBCLearner"
]
"""The learners that the command can train: those of ``OfflineLearnerConfig``."""

DESCRIPTION = (
    "Train a policy on a fixed dataset. The defaults below are those of the preset. "
    "Presets: " + "; ".join(f"{name} = {text}" for name, text in DESCRIPTIONS.items()) + ". "
    "The options of another learner are shown by --learner-class CLASS --help."
)


def parse(arguments: Sequence[str]) -> tuple[TrainConfig, Path | None, bool]:
    """Options to settings.

    The preset, the learner's class and a run to resume decide which options there are and what
    their defaults are, so those three are looked for first.

    Returns:
        ``(config, resume, overwrite)``.

    Raises:
        InputError: an unknown preset, or a preset together with ``--resume``.
        FileNotFoundError: the run to resume does not exist.
        SystemExit: help was asked for (0), or an option is unknown or has no valid value (2).

    Example:
        >>> config, _, _ = parse(["antmaze", "--learner.N", "16"])
        >>> config.batch_size, config.learner.critic_hyperparam, config.learner.N
        (512, 0.9, 16)
    """
    arguments = list(arguments)
    preset = arguments.pop(0) if arguments and not arguments[0].startswith("-") else None
    if preset is not None and preset not in PRESETS:
        raise unknown_preset("train", preset)
    resume_from = peek(arguments, "--resume")
    class_name = peek(arguments, "--learner-class")
    if resume_from is not None:
        from idql_func.training.rundir import open_run_directory

        if preset is not None or class_name is not None:
            raise InputError("--resume takes its settings from the run: give no preset or class")
        default = open_run_directory(resume_from).read_config()
    elif class_name in (None, *LearnerClass.__args__):  # type: ignore[attr-defined]
        default = preset_for(preset or POINTMAZE.preset, class_name)
    else:
        default = preset_for(preset or POINTMAZE.preset)  # the parser below complains

    def options(
        config: Annotated[TrainConfig, tyro.conf.arg(name="")] = default,
        learner_class: LearnerClass = default.learner.class_name,  # type: ignore[assignment]
        resume: Path | None = None,
        overwrite: tyro.conf.FlagCreatePairsOff[bool] = False,
    ) -> tuple[TrainConfig, Path | None, bool]:
        """Train.

        Args:
            config: The settings.
            learner_class: Which learner to train: IDQL as upstream exports it, its full form with
                more objectives and architectures, plain IQL, or behaviour cloning from vectors or
                images. It takes over what it knows of the preset's settings.
            resume: A run's folder (or a checkpoint in one) to continue from, with the same bits as
                if it had never stopped.
            overwrite: Replace a run of the same name.
        """
        del learner_class  # it has chosen the default above
        return config, resume, overwrite

    return tyro.cli(
        options,
        prog="idql train [PRESET]",
        description=DESCRIPTION,
        args=arguments,
        config=(tyro.conf.AvoidSubcommands, tyro.conf.SuppressFixed),
    )


def main(arguments: Sequence[str]) -> int:
    """Run the command; the exit status."""
    config, resume, overwrite = parse(arguments)
    from idql_func.training.offline import train_offline

    train_offline(config, resume=resume, overwrite=overwrite)
    return 0


def peek(arguments: Sequence[str], option: str) -> str | None:
    """The value that an option will get, found before all options are known."""
    value = None
    for i, argument in enumerate(arguments):
        name, equals, inline = argument.partition("=")
        if name.replace("_", "-") == option:
            if equals:
                value = inline
            elif i + 1 < len(arguments):
                value = arguments[i + 1]
    return value
