"""Run upstream's DrQ, pixel BC and random crops on the cases, and save their outputs.

Needs upstream's checkout on PYTHONPATH and its packages (jax, flax, gym, TFP); nothing of this
project but ``pixel_cases.py`` beside it.

    python upstream_pixels.py FILE
"""
# pyright: reportMissingImports=false, reportPrivateImportUsage=false

from __future__ import annotations

import sys
from typing import Any

import flax
import gym
import jax
import numpy as np
from jaxrl5.agents.drq.augmentations import batched_random_crop
from jaxrl5.agents.drq.drq_learner import DrQLearner
from jaxrl5.agents.pixel_bc.pixel_bc_learner import PixelBCLearner
from pixel_cases import ACT, CASES, SEED, UPDATES, is_image, make_batch, make_observations
from safetensors.numpy import save_file

TENSORS: dict[str, np.ndarray] = {}


def put(prefix: str, tree: Any) -> None:
    if hasattr(tree, "items"):
        for name, value in tree.items():
            put(f"{prefix}/{name}", value)
    else:
        TENSORS[prefix] = np.array(tree, order="C")


def space(shapes: dict[str, tuple[int, ...]]) -> Any:
    image = {True: (0, 255, np.uint8), False: (-1, 1, np.float32)}
    boxes = {}
    for name, shape in shapes.items():
        low, high, dtype = image[is_image(shape)]
        boxes[name] = gym.spaces.Box(low, high, shape, dtype)
    return gym.spaces.Dict(boxes)


def learners() -> None:
    for name, (cls, shapes, keywords, run) in CASES.items():
        learner = {"DrQLearner": DrQLearner, "PixelBCLearner": PixelBCLearner}[cls].create(
            SEED, space(shapes), gym.spaces.Box(-1, 1, (ACT,), np.float32), **keywords
        )
        ratio = [run["utd_ratio"]] if "utd_ratio" in run else []
        for step in range(UPDATES):
            batch = make_batch(shapes, step, run.get("packed", False))
            learner, info = learner.update(flax.core.freeze(batch), *ratio)
            put(f"{name}/info/{step}", info)
        put(f"{name}/actor", learner.actor.params)
        put(f"{name}/mode", learner.eval_actions(make_observations(shapes, 99))[0])
        actions, learner = learner.sample_actions(make_observations(shapes, 98))
        put(f"{name}/draw", actions)
        actions, learner = learner.sample_actions(make_observations(shapes, 97, (3,)))
        put(f"{name}/draws", actions)
        put(f"{name}/rng", learner.rng)


def crops() -> None:
    for padding in (1, 4):
        seen = make_observations({"pixels": (6, 5, 3, 2), "depth": (6, 5, 1, 2)}, padding, (7,))
        key, observations = jax.random.PRNGKey(padding), flax.core.freeze(seen)
        for name in seen:
            observations = batched_random_crop(key, observations, name, padding)
        put(f"crop-{padding}", observations)


def main() -> None:
    crops()
    learners()
    metadata = {"upstream": "philippe-eecs/IDQL 7582571", "jax": jax.__version__}
    save_file(TENSORS, sys.argv[1], metadata)


if __name__ == "__main__":
    main()
