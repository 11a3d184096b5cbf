"""Sizes that no machine or no run can have, refused before memory is asked for.

The estimates are lower bounds, so that no setting is refused that could run.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping
from typing import Any

from idql_func.errors import InputError
from idql_func.files import readable_size
from idql_func.training.configs.settings import flat_settings

__all__ = ["check_size", "check_sizes", "machine_memory"]

_NUMBER = 4  # bytes of a float32

_BYTES: Mapping[str, tuple[int, str]] = {
    "N": (4 * _NUMBER, "candidates"),
    "collect_N": (4 * _NUMBER, "candidates"),
    "batch_size": (8 * _NUMBER, "transitions of a batch"),
    "utd_ratio": (8 * _NUMBER, "transitions of a batch"),
    "replay_capacity": (8 * _NUMBER, "transitions of the replay buffer"),
    "pointmaze_steps": (12 * _NUMBER, "transitions"),
    "steps": (12 * _NUMBER, "transitions"),
    "episodes": (64, "episodes"),
    "interval_episodes": (64, "episodes"),
    "num_envs": (10_000, "environments"),
    "prefetch": (10_000, "batches"),
    "num_stack": (10_000, "frames"),
    "time_dim": (_NUMBER * 256, "features of the time"),
    "num_qs": (_NUMBER * 256, "networks"),
    "actor_num_blocks": (_NUMBER * 8 * 256, "blocks"),
    "latent_dim": (_NUMBER * 32, "features"),
    "max_steps": (0, "steps"),
}
"""By the last part of a setting's name: bytes of each, at least, and what they are."""

_MOST: Mapping[str, tuple[int, str]] = {
    "T": (100_000, "an action takes as many passes through the network"),
    "M": (100_000, "an action takes as many passes through the network"),
    "action_repeat": (1_000_000, "an action takes as many steps of the environment"),
    "camera_id": (1_000_000, "no environment has as many cameras"),
    "actor_delay": (2**31 - 1, "steps are counted in 32 bits"),
    "decay_steps": (2**31 - 1, "steps are counted in 32 bits"),
    "max_steps": (2**31 - 1, "steps are counted in 32 bits"),
    "seed": (2**32 - 1, "a key uses 32 bits of it"),
    "pointmaze_seed": (2**32 - 1, "a key uses 32 bits of it"),
    "image_size": (16_384, "an image would need more than 800 MB"),
    "start_training": (2**31 - 1, "steps are counted in 32 bits"),
}
"""By the last part of a setting's name: the largest value, and why there is one."""

_LAYERS = ("hidden_dims", "critic_hidden_dims", "actor_hidden_dims", "cnn_features")


def machine_memory() -> int:
    """Bytes of memory of this machine; a large number where that is not known.

    >>> machine_memory() > 10**8
    True
    """
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return 1 << 50


def check_size(name: str, value: int, unit: int, what: str) -> None:
    """Refuse a number of things that need more memory than the machine has.

    Raises:
        InputError: if they do, naming the setting, the memory needed and that of the machine.

    >>> check_size("N", 10**12, 16, "candidates")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    idql_func.errors.InputError: N is 1,000,000,000,000, but so many candidates would take at \
least 16.0 TB of memory, and this machine has ...; give a smaller number
    """
    if value * unit > machine_memory():
        raise InputError(
            f"{name} is {value:,}, but so many {what} would take at least "
            f"{readable_size(value * unit)} of memory, and this machine has "
            f"{readable_size(machine_memory())}; give a smaller number"
        )


def check_sizes(settings: Any, prefix: str = "") -> None:
    """Refuse numbers in settings that no machine could hold and no run could finish.

    Raises:
        InputError: if there is one, naming it.

    >>> from idql_func.training.configs.learners import learner_config
    >>> check_sizes(learner_config("IQLLearner"))
    """
    flat = flat_settings(settings)
    for path, value in flat.items():
        name, last = prefix + path, path.rpartition(".")[2]
        numbers = value if isinstance(value, list) else [value]
        integers = [n for n in numbers if isinstance(n, int) and not isinstance(n, bool)]
        for number in integers:
            if last in _MOST and abs(number) > _MOST[last][0]:
                most, why = _MOST[last]
                raise InputError(f"{name} is {number:,}, but must be at most {most:,}: {why}")
            if last in _BYTES:
                check_size(name, number, *_BYTES[last])
        if last in _LAYERS and len(integers) == len(numbers):
            pairs = sum(a * b for a, b in itertools.pairwise([1, *integers]))
            if pairs * 4 * _NUMBER > machine_memory():
                shown = "x".join(map(str, integers))
                raise InputError(
                    f"{name} is {shown}, but such layers would take at least "
                    f"{readable_size(pairs * 4 * _NUMBER)} of memory with the optimiser, and this "
                    f"machine has {readable_size(machine_memory())}; give smaller layers"
                )
