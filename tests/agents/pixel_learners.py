"""Create the learners of ``pixel_cases.py`` and compare them with upstream's record.

``reference/pixels.safetensors`` is written by ``upstream_pixels.py``.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from pixel_cases import ACT, CASES, SEED, UPDATES, is_image, make_batch, make_observations
from safetensors.torch import load_file
from torch import Tensor

from idql_func import agents, tree_map
from idql_func.tree import flatten_params

FILE = Path(__file__).parent / "reference" / "pixels.safetensors"
ACTIONS = gym.spaces.Box(-1, 1, (ACT,))


def space(shapes: dict[str, tuple[int, ...]]) -> gym.spaces.Dict:
    boxes: dict[str, gym.Space[Any]] = {
        name: gym.spaces.Box(0, 255, shape, np.uint8)
        if is_image(shape)
        else gym.spaces.Box(-1, 1, shape, np.float32)
        for name, shape in shapes.items()
    }
    return gym.spaces.Dict(boxes)


def create(name: str, seed: int = SEED, **changes: Any) -> Any:
    """The learner of a case with some keywords changed."""
    cls, shapes, keywords, _ = CASES[name]
    return getattr(agents, cls).create(seed, space(shapes), ACTIONS, **{**keywords, **changes})


def batch_of(name: str, seed: int = 0, **options: Any) -> dict[str, Any]:
    """A batch of tensors for a case's learner."""
    _, shapes, _, run = CASES[name]
    options = {"packed": run.get("packed", False), **options}
    return tree_map(torch.from_numpy, make_batch(shapes, seed, **options))


@functools.cache
def recorded() -> dict[str, Tensor]:
    return load_file(FILE)


def check_case(name: str) -> None:
    """Five updates equal upstream's: losses within 1e-5, the actor, its actions and its key."""
    saved = recorded()
    _, shapes, _, run = CASES[name]
    learner, ratio = create(name), [run["utd_ratio"]] if "utd_ratio" in run else []
    for step in range(UPDATES):
        learner, info = learner.update(batch_of(name, step), *ratio)
        names = {k.rpartition("/")[2] for k in saved if k.startswith(f"{name}/info/{step}/")}
        assert set(info) == names
        for key, value in info.items():
            expected = saved[f"{name}/info/{step}/{key}"]
            torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)
    for path, value in flatten_params(learner.actor.params).items():
        expected = saved[f"{name}/actor/{path.replace('.', '/')}"]
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-6)

    actions, same = learner.eval_actions(make_observations(shapes, 99))
    np.testing.assert_allclose(actions, saved[f"{name}/mode"], atol=1e-5)
    assert torch.equal(same.rng, learner.rng)
    actions, learner = learner.sample_actions(make_observations(shapes, 98))
    np.testing.assert_allclose(actions, saved[f"{name}/draw"], atol=1e-5)
    actions, learner = learner.sample_actions(make_observations(shapes, 97, (3,)))
    np.testing.assert_allclose(actions, saved[f"{name}/draws"], atol=1e-5)
    assert torch.equal(learner.rng, saved[f"{name}/rng"].to(torch.int64))
