"""Which runs can be trained as one program, and their names.

Members of one program have the same networks, data and intervals. They may differ in the seed and
in the numbers that :data:`PER_MEMBER` names; for other differences ``idql sweep`` makes one run
after the other.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from idql_func.errors import InputError
from idql_func.training.configs.offline import TrainConfig
from idql_func.training.configs.settings import changed_settings, flat_settings
from idql_func.training.configs.sweeps import MOST_RUNS, Axis, axis_label

__all__ = [
    "PER_MEMBER",
    "check_axes",
    "check_count",
    "check_members",
    "group_name",
    "member_names",
    "parse_seeds",
    "varied_settings",
]

_MOST_DIGITS = 30

_CRITICS = ("actor_lr", "critic_lr", "value_lr", "discount", "tau")
_IDQL = (
    *_CRITICS,
    *("actor_tau", "critic_hyperparam", "policy_temperature", "ddpm_temperature"),
)

PER_MEMBER: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "DDPMIQLLearner": _IDQL,
        "GeneralDDPMIQLLearner": _IDQL,
        "IQLLearner": (*_CRITICS, "expectile", "temperature"),
        "BCLearner": ("actor_lr", "entropy_bonus"),
    }
)
"""The learners that can be trained several at a time, and the settings that may differ."""


def parse_seeds(text: str, first: int) -> tuple[int, ...]:
    """Parse seeds from the command line: how many, or which.

    Args:
        text: a number of seeds, counted from ``first``, or a list with commas.
        first: the first seed if ``text`` is a number.

    Raises:
        InputError: it is neither, has no seed, a negative seed, or one seed twice.

    Example:
        >>> parse_seeds("3", first=5), parse_seeds("0,7", first=5), parse_seeds("7,", first=5)
        ((5, 6, 7), (0, 7), (7,))
    """
    if not re.fullmatch(r"\s*\d+\s*(,\s*\d+\s*)*,?\s*", text, re.ASCII):
        raise InputError(
            f"seeds is {text!r}, but must be a number of seeds or a list such as 0,3,7"
        )
    parts = [part.strip() for part in text.split(",") if part.strip()]
    longest = max(parts, key=len, default="")
    numbers = [int(part) for part in parts] if len(longest) <= _MOST_DIGITS else []
    if longest and not numbers:
        raise InputError(f"seeds has a number of {len(longest)} digits; give smaller ones")
    check_count(len(numbers) if "," in text else numbers[0])
    seeds = tuple(numbers) if "," in text else tuple(range(first, first + numbers[0]))
    if not seeds:
        raise InputError("seeds is 0, but must be at least 1")
    if len(set(seeds)) < len(seeds):
        raise InputError(f"seeds is {text!r}, which has a seed twice; their runs would be the same")
    return seeds


def check_count(members: int) -> None:
    """Refuse more members than a program can have.

    Raises:
        InputError: there are more than :data:`idql_func.training.configs.sweeps.MOST_RUNS`.

    Example:
        >>> check_count(1_000_000)
        Traceback (most recent call last):
        idql_func.errors.InputError: the program would have 1,000,000 members, but at most ...
    """
    if members > MOST_RUNS:
        raise InputError(
            f"the program would have {members:,} members, but at most {MOST_RUNS:,} are trained "
            "together; give fewer seeds or values of the grid"
        )


def check_axes(axes: Iterable[Axis], class_name: str) -> None:
    """Check that a grid varies only settings in which members may differ.

    Raises:
        InputError: it varies another one, or the learner is not trained several at a time.

    Example:
        >>> check_axes([Axis("learner.expectile", ("0.7", "0.9"))], "IQLLearner")
    """
    free = _may_differ(class_name)
    for axis in axes:
        if axis.option.replace("-", "_") not in free:
            raise InputError(
                f"the grid has {axis.option!r}, but members of one program may differ "
                f"in {', '.join(free)} only; use idql sweep for other settings"
            )


def check_members(configs: Sequence[TrainConfig]) -> None:
    """Check that settings describe members of one program.

    Raises:
        InputError: there are no members, the learner is not trained several at a time, members
            differ in a setting that they must share, or two members are the same.

    Example:
        >>> check_members([TrainConfig(seed=0), TrainConfig(seed=1, batch_size=8)])
        Traceback (most recent call last):
        idql_func.errors.InputError: members of one program cannot differ in batch_size; ...
    """
    if not configs:
        raise InputError("there are no members to train; give at least one")
    check_count(len(configs))
    for config in configs:
        config.validate()
    first = configs[0]
    free = _may_differ(first.learner.class_name)
    fixed = sorted({n for c in configs for n in changed_settings(first, c)} - {*free, "name"})
    if fixed:
        raise InputError(
            f"members of one program cannot differ in {', '.join(fixed)}; they may differ in "
            f"{', '.join(free)}; use idql sweep for other settings"
        )
    for member, count in Counter(member_names(configs)).items():
        if count > 1:
            raise InputError(f"two members of the program would be the same: {member}")


def _may_differ(class_name: str) -> list[str]:
    if class_name not in PER_MEMBER:
        raise InputError(
            f"{class_name} is not trained several at a time; {', '.join(PER_MEMBER)} are, and "
            "idql sweep trains any learner one run after the other"
        )
    return ["seed", *(f"learner.{setting}" for setting in PER_MEMBER[class_name])]


def varied_settings(configs: Sequence[TrainConfig]) -> list[str]:
    """Dotted names of the settings of the learner in which the members differ.

    Example:
        >>> varied_settings([TrainConfig(seed=0), TrainConfig(seed=1)])
        []
    """
    changed = {name for config in configs for name in changed_settings(configs[0], config)}
    # In the order of the settings as JSON, in which they are declared.
    return [n for n in flat_settings(configs[0]) if n in changed and n.startswith("learner.")]


def member_names(configs: Sequence[TrainConfig]) -> list[str]:
    """A name for each member and its folder: the settings that differ, and the seed.

    Example:
        >>> from idql_func.training.configs.learners import IQLConfig
        >>> member_names([TrainConfig(seed=2, learner=IQLConfig(tau=t)) for t in (0.1, 0.2)])
        ['tau=0.1-seed2', 'tau=0.2-seed2']
    """
    varied, names = varied_settings(configs), []
    for config in configs:
        values = flat_settings(config)
        labels = [axis_label(n.replace("_", "-"), str(values[n])) for n in varied]
        names.append("-".join([*labels, f"seed{config.seed}"]))
    return names


def group_name(configs: Sequence[TrainConfig]) -> str:
    """The default name of the folder of all members.

    Example:
        >>> group_name([TrainConfig(seed=seed) for seed in range(10)])
        'pointmaze-10seeds'
    """
    seeds = len({config.seed for config in configs})
    varied = [n.rpartition(".")[2].replace("_", "-") for n in varied_settings(configs)]
    return "-".join([configs[0].preset, *varied, f"{seeds}seed{'s' if seeds > 1 else ''}"])
