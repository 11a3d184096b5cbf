"""Write and read checkpoints with upstream's learners and Flax, in the reference environment.

Needs upstream's checkout on PYTHONPATH and its packages (jax, flax, gym); nothing of this project.

    python upstream_flax.py write FOLDER [NAME ...]  checkpoints of all or of the named learners
                                                     after two updates, and their next results
    python upstream_flax.py compare FOLDER OTHER     whether Flax reads the same learner from both

``FOLDER/NAME.msgpack`` is ``flax.serialization.to_bytes`` of the learner; ``after.safetensors`` has
its actions, key and losses. ``compare`` prints JSON: for each file the number of leaves and the
paths of those that differ in any bit.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np

OBS, ACT, ROWS, FRAMES = 3, 2, 8, (8, 8, 3, 2)
SMALL = {"critic_hidden_dims": (8,), "time_dim": 2, "T": 2, "N": 4}
LAYERS = {"hidden_dims": (8,)}
VISION = {**LAYERS, "cnn_features": (4,), "cnn_filters": (3,), "cnn_strides": (2,), "latent_dim": 4}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    # with this schedule most actions of a barely trained learner are not clipped
    "ddpm_iql": (
        "DDPMIQLLearner",
        {**SMALL, "actor_num_blocks": 0, "decay_steps": 10, "beta_schedule": "linear"},
    ),
    "ddpm_iql_general": (
        "GeneralDDPMIQLLearner",
        {**SMALL, "actor_hidden_dims": (8,), "actor_objective": "soft_adv", "M": 1},
    ),
    "iql": ("IQLLearner", LAYERS),
    "bc": ("BCLearner", {**LAYERS, "weight_decay": 0.1, "entropy_bonus": 0.1}),
    "sac": ("SACLearner", {**LAYERS, "num_qs": 3, "num_min_qs": 2}),
    "td3": ("TD3Learner", {**LAYERS, "actor_delay": 1}),
    "drq": ("DrQLearner", VISION),
    "pixel_bc": ("PixelBCLearner", VISION),
}
PIXELS = ("drq", "pixel_bc")
RECORDED = tuple(name for name in CASES if name != "ddpm_iql_general")  # 290 kB


def make_batch(seed: int, pixels: bool) -> dict[str, Any]:
    """A batch of nested NumPy arrays."""
    rng = np.random.default_rng(seed)

    def draw(*shape: int) -> np.ndarray:
        return rng.uniform(-1, 1, (ROWS, *shape)).astype(np.float32)

    def observations() -> Any:
        if not pixels:
            return draw(OBS)
        return {"pixels": rng.integers(0, 256, (ROWS, *FRAMES), dtype=np.uint8)}

    return {
        "observations": observations(),
        "actions": draw(ACT),
        "rewards": draw(),
        "masks": np.ones(ROWS, np.float32),
        "next_observations": observations(),
    }


def make_learner(name: str) -> Any:
    """Upstream's learner of a case."""
    # upstream's data package imports these; its learners do not use them
    sys.modules.update({name: MagicMock() for name in ("d4rl", "mjrl") if name not in sys.modules})
    import gym  # pyright: ignore
    from jaxrl5 import agents  # pyright: ignore
    from jaxrl5.agents.ddpm_iql import ddpm_iql_learner  # pyright: ignore

    class_name, keywords = CASES[name]
    general = class_name == "GeneralDDPMIQLLearner"
    cls = ddpm_iql_learner.DDPMIQLLearner if general else getattr(agents, class_name)
    space: Any = gym.spaces.Box(-1, 1, (OBS,), np.float32)
    if name in PIXELS:
        space = gym.spaces.Dict({"pixels": gym.spaces.Box(0, 255, FRAMES, np.uint8)})
    return cls.create(0, space, gym.spaces.Box(-1, 1, (ACT,), np.float32), **keywords)


def write(folder: Path, names: Sequence[str]) -> None:
    """Checkpoints after two updates; then a few actions, the key, and the losses of a third."""
    import flax  # pyright: ignore
    import jax  # pyright: ignore
    from flax.core import FrozenDict  # pyright: ignore
    from flax.serialization import to_bytes  # pyright: ignore

    after: dict[str, np.ndarray] = {}
    for name in names or CASES:
        learner = make_learner(name)
        ratio = {"utd_ratio": 1} if hasattr(learner, "target_critic") else {}
        ratio = ratio if name in ("sac", "td3", "drq") else {}
        batches = [FrozenDict(make_batch(seed, name in PIXELS)) for seed in range(3)]
        for batch in batches[:2]:
            learner, _ = learner.update(batch, **ratio)
        (folder / f"{name}.msgpack").write_bytes(to_bytes(learner))
        _, info = learner.update(batches[2], **ratio)
        for key, value in info.items():
            after[f"{name}/info/{key}"] = np.asarray(value)
        actions = []
        for i in range(ROWS):
            one = jax.tree_util.tree_map(lambda x, i=i: x[i], batches[2]["observations"])
            result = learner.eval_actions(one)
            action, learner = result if isinstance(result, tuple) else (result, learner)  # E7
            actions.append(np.asarray(action))
        after[f"{name}/actions"] = np.stack(actions)
        after[f"{name}/rng"] = np.asarray(learner.rng).astype(np.int64)
    from safetensors.numpy import save

    metadata = {
        "jax": jax.__version__,
        "flax": flax.__version__,
        "python": platform.python_version(),
        "upstream": "philippe-eecs/IDQL 7582571",
        "command": " ".join(
            ["python tests/interop/upstream_flax.py write tests/interop/reference", *names]
        ),
    }
    (folder / "after.safetensors").write_bytes(save(after, metadata))


def compare(folder: Path, other: Path) -> dict[str, Any]:
    """For each file of both folders: its leaves as Flax reads them, and those that differ."""
    import jax  # pyright: ignore
    from flax.serialization import from_bytes, to_state_dict  # pyright: ignore

    found: dict[str, Any] = {}
    for path in sorted(other.glob("*.msgpack")):
        learner = make_learner(path.stem)
        states = [
            to_state_dict(from_bytes(learner, (directory / path.name).read_bytes()))
            for directory in (folder, other)
        ]
        one, two = (jax.tree_util.tree_flatten_with_path(state)[0] for state in states)
        assert [key for key, _ in one] == [key for key, _ in two]
        different = [
            jax.tree_util.keystr(key)
            for (key, a), (_, b) in zip(one, two, strict=True)
            if not _same(np.asarray(a), np.asarray(b))
        ]
        found[path.stem] = {"leaves": len(one), "different": different}
    return found


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    # hyper-parameters are Python numbers until the first update in JAX makes them float32
    b = b.astype(a.dtype) if a.ndim == b.ndim == 0 else b
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


if __name__ == "__main__":
    # with one thread recordings are reproducible bit for bit
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")
    command, directory, *rest = sys.argv[1:]
    if command == "write":
        write(Path(directory), rest)
    else:
        print(json.dumps(compare(Path(directory), Path(rest[0]))))
