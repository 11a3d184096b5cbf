"""``idql train``: train a policy on a fixed dataset; every setting of a run is an option."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import tyro

from idql_func.cli.options import (
    RunOptions,
    check_before_start,
    default_settings,
    option_value,
    parse_run_options,
    split_preset,
)
from idql_func.errors import InputError
from idql_func.training.configs.offline import TrainConfig
from idql_func.training.configs.presets import preset_for
from idql_func.training.configs.sweeps import combinations, option_arguments, parse_axis
from idql_func.training.seeds.config import check_axes, check_count, parse_seeds

__all__ = ["LearnerClass", "TrainOptions", "main", "members", "parse"]

LearnerClass = Literal[
    "DDPMIQLLearner",
    "GeneralDDPMIQLLearner",
    "IQLLearner",
    "BCLearner",
    "FQLLearner",
    "IFQLLearner",
    "ReBRACLearner",
    "PixelBCLearner",
]
"""The learners that the command can train: those of ``OfflineLearnerConfig``."""


@dataclass(frozen=True)
class TrainOptions(RunOptions[TrainConfig]):
    """The options of ``idql train``.

    Attributes:
        learner_class: Learner to train: IDQL as upstream exports it, its full form with more
            objectives and architectures, plain IQL, flow Q-learning and its IDQL, ReBRAC, or
            behaviour cloning from vectors or images. Settings of the preset that the learner has
            too are kept.
        seeds: Train several seeds side by side as one program: how many, counted from --seed, or a
            list such as 0,3,7. Each has the folder and the numbers of a run alone.
        grid: A numeric setting of the learner and its values, which differ between members of the
            program: learner.critic-hyperparam=0.7,0.9. May be given several times: every
            combination of values is trained with every seed.
    """

    learner_class: LearnerClass = "DDPMIQLLearner"
    seeds: str | None = None
    grid: tyro.conf.UseAppendAction[tuple[str, ...]] = ()


def parse(arguments: Sequence[str]) -> TrainOptions:
    """Parse the options.

    The preset, the learner's class and a run to resume decide which options there are and what
    their defaults are, so these three are read first.

    Raises:
        InputError: if the preset is unknown, or a preset or a class is given together with
            ``--resume``.
        FileNotFoundError: if the run to resume does not exist.
        SystemExit: help was requested (0).

    Example:
        >>> options = parse(["pointmaze-iql", "--seeds", "3", "--grid", "learner.tau=0.1"])
        >>> options.config.learner.expectile, options.seeds, options.grid
        (0.9, '3', ('learner.tau=0.1',))
    """
    preset, arguments = split_preset(arguments)
    resume = option_value(arguments, "--resume")
    class_name = option_value(arguments, "--learner-class")
    if resume is not None and class_name is not None:
        raise InputError("--resume uses the settings of the run: give no --learner-class with it")
    config = default_settings("train", preset, resume)
    if class_name in get_args(LearnerClass):  # else the parser below refuses it
        config = preset_for(config.preset, class_name)
    return parse_run_options(
        "train",
        "[PRESET]",
        arguments,
        TrainOptions(config, learner_class=config.learner.class_name),  # type: ignore[arg-type]
        "Train a policy on a fixed dataset. The defaults below are those of the preset; "
        "--learner-class CLASS --help shows the options of another learner.",
    )


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    options = parse(arguments)
    config, resume, overwrite = options.config, options.resume, options.overwrite
    check_before_start(config)
    several = options.seeds is not None or bool(options.grid)
    if resume is not None:
        from idql_func.training.runs.directory import open_run_directory

        if several:
            raise InputError("--resume uses the members of the run: give no --seeds or --grid")
        several = open_run_directory(resume).members.is_file()
    if not several:
        from idql_func.training.offline import train_offline

        train_offline(config, resume=resume, overwrite=overwrite)
        return 0
    from idql_func.training.seeds.loop import open_members, train_seeds

    configs = members(arguments, options) if resume is None else open_members(resume, config)
    train_seeds(configs, resume=resume, overwrite=overwrite and resume is None)
    return 0


def members(arguments: Sequence[str], options: TrainOptions) -> list[TrainConfig]:
    """Return the settings of each member of one program: all combinations of the grid and seeds.

    A value of the grid is read as the option of that name would be.

    Raises:
        InputError: if the grid or the seeds are malformed, or name a setting that cannot differ.
        SystemExit: as :func:`parse`.

    Example:
        >>> line = ["pointmaze-iql", "--seeds", "2", "--grid", "learner.tau=0.1,0.2"]
        >>> [(c.seed, c.learner.tau) for c in members(line, parse(line))]
        [(0, 0.1), (1, 0.1), (0, 0.2), (1, 0.2)]
    """
    config = options.config
    seeds = (config.seed,) if options.seeds is None else parse_seeds(options.seeds, config.seed)
    axes = [parse_axis(text) for text in options.grid]
    check_axes(axes, config.learner.class_name)
    check_count(math.prod(len(axis.values) for axis in axes) * len(seeds))
    chosen = [parse([*arguments, *option_arguments(own)]).config for own in combinations(axes)]
    return [dataclasses.replace(own, seed=seed) for own in chosen for seed in seeds]
