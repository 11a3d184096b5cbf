"""Learners from pixels so small that an update takes milliseconds, and batches for them.

Imports only NumPy, since upstream's script, which runs in another environment, uses it too.
"""

from __future__ import annotations

from typing import Any

import numpy as np

ACT, ROWS, SEED, UPDATES = 2, 4, 3, 5
FRAMES, DEPTH = (12, 11, 3, 2), (12, 11, 1, 2)

ONE: dict[str, tuple[int, ...]] = {"pixels": FRAMES}
# one is called "pixels", without which upstream crashes (quirk A11)
SEVERAL = {"pixels": FRAMES, "wrist": FRAMES, "near": DEPTH, "far": DEPTH, "state": (4,)}
CAMERAS: dict[str, Any] = {"pixel_keys": ("pixels", "wrist"), "depth_keys": ("near", "far")}
SMALL: dict[str, Any] = {
    "cnn_features": (4, 4),
    "cnn_filters": (3, 3),
    "cnn_strides": (2, 1),
    "latent_dim": 5,
    "hidden_dims": (8, 8),
}

# name -> learner, observation's shapes, keywords of create, settings of the run
CASES: dict[str, tuple[str, dict[str, tuple[int, ...]], dict[str, Any], dict[str, Any]]] = {
    "drq": ("DrQLearner", ONE, SMALL, {"utd_ratio": 1}),
    "drq-packed": ("DrQLearner", ONE, SMALL, {"utd_ratio": 1, "packed": True}),
    "drq-cameras": (
        "DrQLearner",
        SEVERAL,
        {**SMALL, **CAMERAS, "critic_dropout_rate": 0.1, "critic_layer_norm": True, "num_qs": 3},
        {"utd_ratio": 2},
    ),
    "bc": (
        "PixelBCLearner",
        ONE,
        {**SMALL, "dropout_rate": 0.1, "use_layer_norm": True, "entropy_bonus": 0.05},
        {},
    ),
    "bc-cameras": ("PixelBCLearner", SEVERAL, {**SMALL, **CAMERAS}, {}),
}


def is_image(shape: tuple[int, ...]) -> bool:
    return len(shape) == 4 and shape[2] == 3


def make_observations(
    shapes: dict[str, tuple[int, ...]], seed: int, rows: tuple[int, ...] = (), packed: bool = False
) -> dict[str, np.ndarray]:
    draws = np.random.RandomState(seed)
    result = {}
    for name, shape in sorted(shapes.items()):
        size = (*rows, *shape[:-1], shape[-1] + 1) if packed else (*rows, *shape)
        image = is_image(shape)
        values = draws.randint(0, 256, size) if image else draws.uniform(-1, 1, size)
        result[name] = values.astype(np.uint8 if image else np.float32)
    return result


def make_batch(
    shapes: dict[str, tuple[int, ...]], seed: int, packed: bool = False, rows: int = ROWS
) -> dict[str, Any]:
    """A batch; if packed, its images include the next frame and it has no next observations."""
    draws = np.random.RandomState(1000 + seed)
    return {
        "observations": make_observations(shapes, seed, (rows,), packed),
        "next_observations": {} if packed else make_observations(shapes, 500 + seed, (rows,)),
        "actions": draws.uniform(-0.95, 0.95, (rows, ACT)).astype(np.float32),
        "rewards": draws.uniform(-1, 1, rows).astype(np.float32),
        "masks": (draws.rand(rows) > 0.2).astype(np.float32),
    }
