"""D4RL's registry: file, time limit and reference scores of each dataset name.

The values are those of ``d4rl`` 1.1 (``d4rl/infos.py`` and the registrations beside it) for its
MuJoCo families: locomotion, antmaze, maze2d, adroit hand and kitchen.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

__all__ = ["D4RL_NAMES", "D4RLName", "similar_names"]

_ROOT = "http://rail.eecs.berkeley.edu/datasets/offline_rl/"


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


_Entry = tuple[str, D4RLName]


def _entry(name: str, file: str, steps: int, scores: tuple[float, float]) -> _Entry:
    return name, D4RLName(f"{_ROOT}{file}.hdf5", steps, *scores)


def _locomotion() -> Iterator[_Entry]:
    scores = {
        "halfcheetah": (-280.178953, 12135.0),
        "hopper": (-20.272305, 3234.3),
        "walker2d": (1.629008, 4592.3),
        "ant": (-325.6, 3879.7),
    }
    kinds = ("random", "medium", "expert", "medium-replay", "medium-expert", "full-replay")
    for robot, range_ in scores.items():
        for kind in kinds[:-1]:  # full-replay exists since v1
            file = f"{robot}_{kind.replace('-', '_')}"
            if kind == "medium-replay":
                file = f"{'walker' if robot == 'walker2d' else robot}_mixed"
            yield _entry(f"{robot}-{kind}-v0", f"gym_mujoco/{file}", 1000, range_)
        for version in ("v1", "v2"):
            for kind in kinds:
                file = f"gym_mujoco_{version}/{robot}_{kind.replace('-', '_')}-{version}"
                yield _entry(f"{robot}-{kind}-{version}", file, 1000, range_)
    yield _entry("ant-random-expert-v0", "gym_mujoco/ant_random_expert", 1000, scores["ant"])


def _antmaze() -> Iterator[_Entry]:
    # name -> (maze in v0 and v2, maze in v1, many starts, many goals, steps)
    mazes = {
        "umaze": ("u-maze", "umaze", False, False, 700),
        "umaze-diverse": ("u-maze", "umaze", True, True, 700),
        "medium-play": ("big-maze", "medium", True, False, 1000),
        "medium-diverse": ("big-maze", "medium", True, True, 1000),
        "large-play": ("hardest-maze", "large", True, False, 1000),
        "large-diverse": ("hardest-maze", "large", True, True, 1000),
    }
    for name, (maze, maze_v1, starts, goals, steps) in mazes.items():
        how = f"noisy_multistart_{starts}_multigoal_{goals}_sparse"
        for version, file in (
            ("v0", f"ant_maze_new/Ant_maze_{maze}_{how}"),
            ("v1", f"ant_maze_v1/Ant_maze_{maze_v1}_{how}"),
            ("v2", f"ant_maze_v2/Ant_maze_{maze}_{how}_fixed"),
        ):
            yield _entry(f"antmaze-{name}-{version}", file, steps, (0.0, 1.0))
    # The evaluation mazes' flags do not follow their names; these are D4RL's.
    evaluation = {
        "umaze": ("umaze", False, 700),
        "umaze-diverse": ("umaze", True, 700),
        "medium-play": ("medium", True, 1000),
        "medium-diverse": ("medium", False, 1000),
        "large-play": ("large", True, 1000),
        "large-diverse": ("large", False, 1000),
    }
    for name, (maze, goals, steps) in evaluation.items():
        file = f"ant_maze_new/Ant_maze_{maze}_eval_noisy_multistart_True_multigoal_{goals}_sparse"
        yield _entry(f"antmaze-eval-{name}-v0", file, steps, (0.0, 1.0))


def _maze2d() -> Iterator[_Entry]:
    # (maze, version) -> (steps, scores with the sparse reward, scores with the dense reward)
    mazes = {
        ("open", "v0"): (150, (0.01, 20.66), (11.17817, 27.166538620695782)),
        ("umaze", "v0"): (150, (0.94, 62.6), (23.249793, 81.78995240126592)),
        ("medium", "v0"): (250, (5.77, 85.14), (19.47762, 96.03474232952358)),
        ("large", "v0"): (600, (4.83, 191.99), (27.38831, 215.09965671563742)),
        ("umaze", "v1"): (300, (23.85, 161.86), (68.537689, 193.66285642381482)),
        ("medium", "v1"): (600, (13.13, 277.39), (44.264742, 297.4552547777125)),
        ("large", "v1"): (800, (6.7, 273.99), (30.569041, 303.4857382709002)),
        ("eval-umaze", "v1"): (300, (36.63, 141.4), (56.95455, 178.21373133248397)),
        ("eval-medium", "v1"): (600, (13.07, 204.93), (42.28578, 235.5658957482388)),
        ("eval-large", "v1"): (800, (16.4, 302.22), (56.95455, 326.09647655082637)),
    }
    for (maze, version), (steps, sparse, dense) in mazes.items():
        suffix = "" if version == "v0" else f"-{version}"
        stem = f"maze2d/maze2d-{maze}"
        yield _entry(f"maze2d-{maze}-{version}", f"{stem}-sparse{suffix}", steps, sparse)
        yield _entry(f"maze2d-{maze}-dense-{version}", f"{stem}-dense{suffix}", steps, dense)


def _adroit() -> Iterator[_Entry]:
    # task -> (steps, steps of the long-horizon variant, scores)
    tasks = {
        "pen": (100, 200, (96.262799, 3076.8331017826877)),
        "hammer": (200, 600, (-274.856578, 12794.134825156867)),
        "relocate": (200, 500, (-6.425911, 4233.877797728884)),
        "door": (200, 300, (-56.512833, 2880.5693087298737)),
    }
    for task, (steps, long_steps, scores) in tasks.items():
        v0 = {
            "human": f"{task}-v0_demos_clipped",
            "cloned": f"{task}-demos-v0-bc-combined",
            "expert": f"{task}-v0_expert_clipped",
        }
        for kind, file_v0 in v0.items():
            for version, file in (
                ("v0", f"hand_dapg/{file_v0}"),
                ("v1", f"hand_dapg_v1/{task}-{kind}-v1"),
            ):
                yield _entry(f"{task}-{kind}-{version}", file, steps, scores)
                if kind == "human":
                    name = f"{task}-human-longhorizon-{version}"
                    yield _entry(name, file, long_steps, scores)


def _kitchen() -> Iterator[_Entry]:
    files = {
        "complete": "mini_kitchen_microwave_kettle_light_slider-v0",
        "partial": "kitchen_microwave_kettle_light_slider-v0",
        "mixed": "kitchen_microwave_kettle_bottomburner_light-v0",
    }
    for kind, file in files.items():
        yield _entry(f"kitchen-{kind}-v0", f"kitchen/{file}", 280, (0.0, 4.0))


D4RL_NAMES: Mapping[str, D4RLName] = MappingProxyType(
    dict(
        entry
        for family in (_locomotion, _antmaze, _maze2d, _adroit, _kitchen)
        for entry in family()
    )
)
"""D4RL's dataset names and the registered values of each."""


def similar_names(name: str) -> list[str]:
    """Return up to three D4RL names close to ``name``, for error messages.

    Example:
        >>> similar_names("hoper-medium-v2")[0]
        'hopper-medium-v2'
    """
    return difflib.get_close_matches(name, D4RL_NAMES, n=3, cutoff=0.5)
