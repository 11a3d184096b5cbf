"""D4RL's registry: file, time limit and reference scores of each dataset name.

The values, in ``d4rl_names.csv``, are those of ``d4rl`` 1.1 (``d4rl/infos.py`` and the
registrations beside it) for its MuJoCo families: locomotion, antmaze, maze2d, adroit hand and
kitchen. The files of ``antmaze-eval-…`` have flags that do not follow the names, as in D4RL.
"""

from __future__ import annotations

import csv
import difflib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

__all__ = ["D4RL_NAMES", "D4RLName", "similar_names"]

_ROOT = "https://rail.eecs.berkeley.edu/datasets/offline_rl/"


class D4RLName(NamedTuple):
    """One registered D4RL dataset.

    Attributes:
        url: where D4RL publishes the HDF5 file.
        max_episode_steps: time limit of the environment.
        ref_min_score: return of a random policy; 0 on the normalised scale.
        ref_max_score: return of an expert; 100 on the normalised scale.
    """

    url: str
    max_episode_steps: int
    ref_min_score: float
    ref_max_score: float

    @property
    def file_name(self) -> str:
        """The file's name in D4RL's cache folder."""
        return self.url.rsplit("/", 1)[-1]


def _read_names() -> dict[str, D4RLName]:
    table = Path(__file__).with_name("d4rl_names.csv")
    with table.open(encoding="utf-8", newline="") as file:
        _, *rows = csv.reader(file)
    return {
        name: D4RLName(_ROOT + path, int(steps), float(low), float(high))
        for name, path, steps, low, high in rows
    }


D4RL_NAMES: Mapping[str, D4RLName] = MappingProxyType(_read_names())
"""D4RL's dataset names and the registered values of each."""


def similar_names(name: str) -> list[str]:
    """Return up to three D4RL names close to ``name``, for error messages.

    Example:
        >>> similar_names("hoper-medium-v2")[0]
        'hopper-medium-v2'
    """
    return difflib.get_close_matches(name, D4RL_NAMES, n=3, cutoff=0.5)
