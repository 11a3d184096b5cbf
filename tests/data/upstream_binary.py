"""Run upstream's ``BinaryDataset`` on small made-up files; save the files and its arrays.

Needs upstream's checkout on PYTHONPATH and its packages (jax, gym, d4rl).

    python upstream_binary.py FOLDER   writes pen2_sparse.npy, pen_bc_sparse4.npy (small, made up)
                                       and binary.safetensors
"""

from __future__ import annotations

import os
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np

CASES = {
    "default": {},
    "terminals": {"remove_terminals": False},
    "expert": {"include_bc_data": False, "remove_terminals": False},
    "unclipped": {"clip_to_eps": False},
    "wide_eps": {"eps": 0.25},
}


def write_files(folder: Path) -> None:
    """Write both files, in the layout of AWAC's files."""
    rng = np.random.default_rng(3)
    expert = []
    for length in (4, 1, 6, 3):
        states = rng.random((length + 1, 3))
        dicts = [{"state_observation": s, "desired": s[:1]} for s in states]
        following = [dict(d) for d in dicts[1:]]
        if length == 6:  # a jump inside an episode
            following[2] = {"state_observation": states[3] + 1e-3}
        expert.append({
            "observations": dicts[:-1],
            "next_observations": following,
            "actions": [np.clip(rng.normal(size=2), -1, 1) for _ in range(length)],
            "rewards": -rng.integers(2, size=length + 1).astype(np.float64),
            "terminals": np.arange(length) == length - 1 if length > 1 else np.zeros(length, bool),
            "env_infos": [{} for _ in range(length)],
        })  # fmt: skip
    cloned = []
    for length in (5, 2, 2):
        states = rng.random((length + 1, 3), dtype=np.float32)
        cloned.append({
            "observations": states[:-1],
            "next_observations": states[1:],
            "actions": np.clip(rng.normal(size=(length, 2)), -1, 1),
            "rewards": -rng.integers(2, size=(length, 1)).astype(np.float64),
            "terminals": np.zeros((length, 1), bool),
            "agent_infos": [{} for _ in range(length)],
            "env_infos": [{} for _ in range(length)],
        })  # fmt: skip
    for name, episodes in (("pen2_sparse", expert), ("pen_bc_sparse4", cloned)):
        array = np.empty(len(episodes), dtype=object)
        array[:] = episodes
        np.save(folder / f"{name}.npy", array, allow_pickle=True)


def upstream(folder: Path) -> dict[str, np.ndarray]:
    """Arrays of upstream's class by ``case/field``."""
    os.environ.setdefault("D4RL_SUPPRESS_IMPORT_ERROR", "1")
    sys.modules.setdefault("mjrl", types.ModuleType("mjrl"))
    from jaxrl5.data import binary_datasets  # pyright: ignore

    binary_datasets.AWAC_DATA_DIR = str(folder)
    env: Any = types.SimpleNamespace(spec=types.SimpleNamespace(name="pen-binary"))
    return {
        f"{case}/{field}": value
        for case, options in CASES.items()
        for field, value in binary_datasets.BinaryDataset(env, **options).dataset_dict.items()
    }


if __name__ == "__main__":
    from safetensors.numpy import save_file

    target = Path(sys.argv[1])
    write_files(target)
    save_file(
        {k: np.ascontiguousarray(v) for k, v in upstream(target).items()},
        target / "binary.safetensors",
        {"upstream": "philippe-eecs/IDQL 7582571"},
    )
