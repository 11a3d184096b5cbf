"""``idql train``: every setting of a run is an option; presets and old runs give the defaults."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, get_args

import tyro

from idql_func.errors import InputError
from idql_func.training.configs.catalogue import unknown_preset
from idql_func.training.configs.offline import TrainConfig
from idql_func.training.configs.presets import DESCRIPTIONS, POINTMAZE, PRESETS, preset_for
from idql_func.training.configs.sweeps import parse_axis
from idql_func.training.seeds.config import (
    check_axes,
    combinations,
    parse_seeds,
    with_seeds,
)

__all__ = ["TrainOptions", "main", "members", "parse", "parse_options", "peek"]

LearnerClass = Literal[
    "DDPMIQLLearner", "GeneralDDPMIQLLearner", "IQLLearner", "BCLearner", "PixelBCLearner"
]
"""The learners that the command can train: those of ``OfflineLearnerConfig``."""

DESCRIPTION = (
    "Train a policy on a fixed dataset. The defaults below are those of the preset. "
    "Presets: " + "; ".join(f"{name} = {text}" for name, text in DESCRIPTIONS.items()) + ". "
    "The options of another learner are shown by --learner-class CLASS --help."
)


@dataclass(frozen=True)
class TrainOptions:
    """What the options of the command say: the settings of one run, and what is made of them.

    ``seeds`` and ``grid`` are as written; ``resume`` is the folder to continue.
    """

    config: TrainConfig
    resume: Path | None = None
    overwrite: bool = False
    seeds: str | None = None
    grid: tuple[str, ...] = ()


def parse(arguments: Sequence[str]) -> tuple[TrainConfig, Path | None, bool]:
    """Options to the settings of one run; see :func:`parse_options`.

    Returns:
        ``(config, resume, overwrite)``.

    Example:
        >>> config, _, _ = parse(["antmaze", "--learner.N", "16"])
        >>> config.batch_size, config.learner.critic_hyperparam, config.learner.N
        (512, 0.9, 16)
    """
    options = parse_options(arguments)
    return options.config, options.resume, options.overwrite


def parse_options(arguments: Sequence[str]) -> TrainOptions:
    """Options to settings.

    The preset, the learner's class and a run to resume decide which options there are and what
    their defaults are, so those three are looked for first.

    Raises:
        InputError: an unknown preset, or a preset together with ``--resume``.
        FileNotFoundError: the run to resume does not exist.
        SystemExit: help was asked for (0), or an option is unknown or has no valid value (2).

    Example:
        >>> options = parse_options(["pointmaze-iql", "--seeds", "3", "--grid", "learner.tau=0.1"])
        >>> options.seeds, options.grid
        ('3', ('learner.tau=0.1',))
    """
    arguments = list(arguments)
    preset = arguments.pop(0) if arguments and not arguments[0].startswith("-") else None
    if preset is not None and preset not in PRESETS:
        raise unknown_preset("train", preset)
    resume_from = peek(arguments, "--resume")
    class_name = peek(arguments, "--learner-class")
    if resume_from is not None:
        from idql_func.training.runs.directory import open_run_directory

        if preset is not None or class_name is not None:
            raise InputError("--resume takes its settings from the run: give no preset or class")
        default = open_run_directory(resume_from).read_config()
    elif class_name in (None, *get_args(LearnerClass)):
        default = preset_for(preset or POINTMAZE.preset, class_name)
    else:
        default = preset_for(preset or POINTMAZE.preset)  # the parser below complains

    def options(
        config: Annotated[TrainConfig, tyro.conf.arg(name="")] = default,
        learner_class: LearnerClass = default.learner.class_name,  # type: ignore[assignment]
        seeds: str | None = None,
        grid: tyro.conf.UseAppendAction[tuple[str, ...]] = (),
        resume: Path | None = None,
        overwrite: tyro.conf.FlagCreatePairsOff[bool] = False,
    ) -> TrainOptions:
        """Train.

        Args:
            config: The settings.
            learner_class: Which learner to train: IDQL as upstream exports it, its full form with
                more objectives and architectures, plain IQL, or behaviour cloning from vectors or
                images. It takes over what it knows of the preset's settings.
            seeds: Train several seeds side by side as one program: how many, counted from --seed
                on, or a list such as 0,3,7. Each gets the folder and the numbers of a run alone.
            grid: A number of the learner that differs between members of the program, and its
                values: learner.critic-hyperparam=0.7,0.9. May be given several times; every
                combination of values is trained with every seed.
            resume: A run's folder (or a checkpoint in one), or that of several members, to continue
                from, with the same bits as if it had never stopped.
            overwrite: Replace a run of the same name.
        """
        del learner_class  # it has chosen the default above
        return TrainOptions(config, resume, overwrite, seeds, grid)

    return tyro.cli(
        options,
        prog="idql train [PRESET]",
        description=DESCRIPTION,
        args=arguments,
        config=(tyro.conf.AvoidSubcommands, tyro.conf.SuppressFixed),
    )


def main(arguments: Sequence[str]) -> int:
    """Run the command; the exit status."""
    options = parse_options(arguments)
    if options.resume is not None:
        return _resume(options)
    if options.seeds is not None or options.grid:
        configs = members(arguments, options)
        from idql_func.training.seeds.loop import train_seeds

        train_seeds(configs, overwrite=options.overwrite)
        return 0
    from idql_func.training.offline import train_offline

    train_offline(options.config, overwrite=options.overwrite)
    return 0


def members(arguments: Sequence[str], options: TrainOptions) -> list[TrainConfig]:
    """The settings of each member of one program: all combinations of the grid, with all seeds.

    A value of the grid is read as the option of that name would be.

    Raises:
        InputError: the grid or the seeds cannot be read, or name what cannot differ.
        SystemExit: as :func:`parse_options`.

    Example:
        >>> line = ["pointmaze-iql", "--seeds", "2", "--grid", "learner.tau=0.1,0.2"]
        >>> [(c.seed, c.learner.tau) for c in members(line, parse_options(line))]
        [(0, 0.1), (1, 0.1), (0, 0.2), (1, 0.2)]
    """
    own = options.config
    seeds = (own.seed,) if options.seeds is None else parse_seeds(options.seeds, own.seed)
    axes = [parse_axis(text) for text in options.grid]
    check_axes(axes, own.learner.class_name)
    chosen = [parse([*arguments, *more])[0] for more in combinations(axes)]
    return with_seeds(chosen, seeds)


def _resume(options: TrainOptions) -> int:
    from idql_func.training.runs.directory import open_run_directory

    assert options.resume is not None
    if options.seeds is not None or options.grid:
        raise InputError("--resume takes its members from the run: give no --seeds or --grid")
    if open_run_directory(options.resume).members.is_file():
        from idql_func.training.seeds.loop import open_members, train_seeds

        train_seeds(open_members(options.resume, options.config), resume=options.resume)
        return 0
    from idql_func.training.offline import train_offline

    train_offline(options.config, resume=options.resume, overwrite=options.overwrite)
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
