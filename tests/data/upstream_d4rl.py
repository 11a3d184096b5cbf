"""Run upstream's data classes in the reference environment and save their outputs.

Needs upstream's checkout on PYTHONPATH and its packages (jax, gym, d4rl); nothing of this project.

    python upstream_d4rl.py record FOLDER        small reference files for the tests
    python upstream_d4rl.py datasets CASES OUT   D4RLDataset over the files that CASES (JSON) lists

A case is ``{"name", "path", "max_episode_steps", "clip_to_eps", "eps"}``; OUT is a safetensors file
with ``<name>/<field>``.
"""

from __future__ import annotations

import builtins
import json
import os
import platform
import sys
import tempfile
import types
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np


def record(folder: Path) -> None:
    """Write ``d4rl.safetensors``, ``streams.safetensors`` and ``scores.json``."""
    versions = {name: _version(name) for name in ("jax", "numpy", "gym", "d4rl")}
    metadata = {
        **versions,
        "python": platform.python_version(),
        "upstream": "philippe-eecs/IDQL 7582571",
        "command": "python tests/data/upstream_d4rl.py record tests/data/reference",
    }
    _save(folder / "d4rl.safetensors", _datasets_with_inputs(), metadata)
    _save(folder / "streams.safetensors", {**_streams(), **_returns()}, metadata)
    (folder / "scores.json").write_text(json.dumps(_scores(), indent=0, sort_keys=True) + "\n")


def datasets(cases: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """Upstream's ``D4RLDataset`` over each case's file, read by d4rl's own ``get_dataset``."""
    _upstream()
    from jaxrl5.data.d4rl_datasets import D4RLDataset  # pyright: ignore

    out = {}
    for case in cases:
        env = _file_env(case["path"], case["max_episode_steps"])
        dataset = D4RLDataset(env, clip_to_eps=case["clip_to_eps"], eps=case["eps"])
        for field, value in dataset.dataset_dict.items():
            out[f"{case['name']}/{field}"] = value
    return out


def _datasets_with_inputs() -> dict[str, np.ndarray]:
    """Five small recordings with edge cases of ``qlearning_dataset``, and upstream's arrays."""
    import h5py

    settings = {  # name -> (timeouts, columns, float64, max_episode_steps, clip_to_eps, eps)
        "timeouts": (True, False, False, None, True, 1e-5),
        "counted": (False, False, False, 17, True, 1e-5),
        "columns": (False, True, True, 5, True, 1e-2),
        "short": (False, False, False, 2, False, 1e-5),
        "unclipped": (True, True, True, None, False, 1e-5),
    }
    tensors: dict[str, np.ndarray] = {}
    cases = []
    with tempfile.TemporaryDirectory() as folder:
        for seed, (name, (timeouts, columns, wide, steps, clip, eps)) in enumerate(
            settings.items()
        ):
            arrays = _recording(np.random.default_rng(seed), 160, timeouts, columns, wide)
            path = os.path.join(folder, f"{name}.hdf5")
            with h5py.File(path, "w") as file:
                for key, value in arrays.items():
                    file[key] = value
                    tensors[f"{name}/in/{key}"] = value
            tensors[f"{name}/steps"] = np.array([steps or 0])
            tensors[f"{name}/eps"] = np.array([eps if clip else -1.0])
            cases.append(
                {
                    "name": f"{name}/out",
                    "path": path,
                    "max_episode_steps": steps,
                    "clip_to_eps": clip,
                    "eps": eps,
                }
            )
        return {**tensors, **datasets(cases)}


def _recording(
    rng: np.random.Generator, length: int, timeouts: bool, columns: bool, wide: bool
) -> dict[str, np.ndarray]:
    dtype = np.float64 if wide else np.float32
    observations = rng.normal(size=(length, 3)).astype(dtype)
    # Repeated observations, and moves around the 1e-6 that separates episodes.
    for row in range(20, length, 9):
        observations[row] = observations[row - 1] + dtype(rng.choice([0, 5e-7, 1e-6, 2e-6]))
    actions = np.clip(rng.normal(size=(length, 2)), -1, 1).astype(dtype)
    arrays = {
        "observations": observations,
        "actions": actions,
        "rewards": rng.normal(size=length).astype(dtype),
        "terminals": rng.random(length) < 0.06,
    }
    if timeouts:
        arrays["timeouts"] = rng.random(length) < 0.05
    if columns:
        arrays["rewards"] = arrays["rewards"][:, None]
        arrays["terminals"] = arrays["terminals"][:, None].astype(np.uint8)
    return arrays


def _streams() -> dict[str, np.ndarray]:
    """Indices drawn by ``sample`` and ``sample_jax``, and the shuffle of ``split``."""
    _upstream()
    import jax  # pyright: ignore
    from jaxrl5.data.dataset import Dataset  # pyright: ignore

    out: dict[str, np.ndarray] = {}
    for mode in ("x32", "partitionable", "x64"):
        jax.config.update("jax_threefry_partitionable", mode == "partitionable")
        jax.config.update("jax_enable_x64", mode == "x64")
        for length in (1, 10, 1000, 65537, 999_999):
            for batch_size in (1, 7, 256):
                for seed in (None, 3):
                    dataset = Dataset({"row": np.arange(length, dtype=np.int32)}, seed)
                    rows = [np.asarray(dataset.sample_jax(batch_size)["row"]) for _ in range(3)]
                    name = f"{mode}/{length}/{batch_size}/{42 if seed is None else seed}"
                    out[f"jax/{name}/rows"] = np.stack(rows).astype(np.int32)
                    out[f"jax/{name}/rng"] = np.asarray(dataset.rng).astype(np.int64)
    for length, batch_size, seed in ((10, 5, 0), (1000, 7, 3), (65537, 256, 123456789)):
        dataset = Dataset({"row": np.arange(length, dtype=np.int32)}, seed)
        rows = [dataset.sample(batch_size)["row"] for _ in range(3)]
        first, second = dataset.split(0.9)
        halves = [first.dataset_dict["row"], second.dataset_dict["row"]]
        name = f"numpy/{length}/{batch_size}/{seed}"
        out[f"{name}/rows"] = np.stack(rows)
        out[f"{name}/split"] = np.concatenate(halves)[:500]
        out[f"{name}/after"] = dataset.sample(batch_size)["row"]
    return out


def _returns() -> dict[str, np.ndarray]:
    """Trajectories, ``filter`` and ``normalize_returns`` (under NumPy 1.24: quirk D10)."""
    from jaxrl5.data.dataset import Dataset  # pyright: ignore

    rng = np.random.default_rng(7)
    arrays = {
        "rewards": rng.normal(size=300).astype(np.float32),
        "dones": rng.random(300) < 0.05,
    }
    out = {f"returns/in/{k}": v for k, v in arrays.items()}

    def fresh() -> Any:
        return Dataset({k: v.copy() for k, v in arrays.items()})

    starts, ends, returns = fresh()._trajectory_boundaries_and_returns()
    out["returns/starts"], out["returns/ends"] = np.array(starts), np.array(ends)
    out["returns/returns"] = np.array(returns, dtype=np.float64)
    for name, options in {"top": {"take_top": 30}, "threshold": {"threshold": 0.5}}.items():
        dataset = fresh()
        dataset.filter(**options)
        out[f"returns/{name}"] = dataset.dataset_dict["rewards"]
    for scaling in (1000, 1):
        dataset = fresh()
        dataset.normalize_returns(scaling)
        out[f"returns/normalized_{scaling}"] = dataset.dataset_dict["rewards"]
    return out


def _scores() -> dict[str, Any]:
    """Reference scores and files of ``d4rl.infos``, and what each family registers with Gym."""
    _upstream()
    from d4rl import infos  # pyright: ignore

    return {
        "ref_min_score": infos.REF_MIN_SCORE,
        "ref_max_score": infos.REF_MAX_SCORE,
        "urls": infos.DATASET_URLS,
        "registered": _registrations(infos),
    }


def _registrations(infos: Any) -> dict[str, list[Any]]:
    """name -> [steps, url, min, max], by running the registering files without their simulators."""
    registered: dict[str, list[Any]] = {}

    def register(id: str, max_episode_steps: int, kwargs: Any = None, **_: Any) -> None:
        if kwargs and kwargs.get("dataset_url"):
            scores = [kwargs["ref_min_score"], kwargs["ref_max_score"]]
            registered[id] = [max_episode_steps, kwargs["dataset_url"], *scores]

    class Names(dict):
        def __missing__(self, name: str) -> Any:
            # names that the removed imports would define: mazes, which only simulators use
            return getattr(builtins, name, MagicMock())

    for family in ("gym_mujoco", "locomotion", "pointmaze", "hand_manipulation_suite", "kitchen"):
        source = (Path(infos.__file__).parent / family / "__init__.py").read_text()
        lines = [s for s in source.splitlines() if not s.startswith(("import ", "from "))]
        exec("\n".join(lines), {}, Names(register=register, infos=infos))
    return registered


def _file_env(path: str, max_episode_steps: int | None) -> Any:
    """A d4rl environment that has only its file, spaces and episode length."""
    import gym  # pyright: ignore
    import h5py
    from d4rl.offline_env import OfflineEnv  # pyright: ignore

    class FileEnv(OfflineEnv):
        def get_dataset(self, h5path: str | None = None) -> dict[str, np.ndarray]:
            return super().get_dataset(h5path or path)

    env: Any = FileEnv()
    env._max_episode_steps = max_episode_steps
    with h5py.File(path, "r") as file:
        for name in ("observation", "action"):
            shape = file[f"{name}s"].shape[1:]  # pyright: ignore
            setattr(env, f"{name}_space", gym.spaces.Box(-np.inf, np.inf, shape))
    return env


def _upstream() -> None:
    """Make upstream's unconditional imports succeed without their simulators (quirk D13)."""
    os.environ.setdefault("D4RL_SUPPRESS_IMPORT_ERROR", "1")
    sys.modules.setdefault("mjrl", types.ModuleType("mjrl"))


def _version(name: str) -> str:
    from importlib.metadata import version

    return version(name)


def _save(path: Path, tensors: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    from safetensors.numpy import save_file

    save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, path, metadata)


def main(arguments: list[str]) -> None:
    if arguments[:1] == ["record"]:
        record(Path(arguments[1]))
    else:
        cases, out = arguments[1:]
        _save(Path(out), datasets(json.loads(Path(cases).read_text())), {})


if __name__ == "__main__":
    main(sys.argv[1:])
