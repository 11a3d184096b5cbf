"""Run scenarios of insertions and samples on a replay buffer: upstream's, or the port's in tests.

Run in the reference environment (upstream's checkout on PYTHONPATH, its packages: jax, gym, d4rl):

    python upstream_buffers.py record FILE    check sums, for the tests that run without JAX
    python upstream_buffers.py arrays FOLDER  every array of every sample, one file a scenario

The scenarios themselves need only NumPy.
"""

from __future__ import annotations

import copy
import os
import sys
import types
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

BATCH = 8
CHUNK = 100


class Scenario(NamedTuple):
    """A buffer, and the insertions and samples made with it.

    Attributes:
        capacity: rows.
        stack: frames in an observation's last axis; 0 for the plain buffer.
        steps: insertions; each is followed by one sample.
        longest: episodes last 1 to this many steps.
        kind: which observation space.
        sample: keyword arguments of each sample.
        iterator: sample through ``get_iterator`` with the default queue.
    """

    capacity: int
    stack: int
    steps: int
    longest: int
    kind: str
    sample: Mapping[str, Any] = types.MappingProxyType({})
    iterator: bool = False


SCENARIOS = {
    "plain": Scenario(1000, 0, 10_000, 60, "flat"),
    "nested": Scenario(257, 0, 10_000, 9, "nested"),
    "keys": Scenario(3, 0, 1_000, 9, "flat", {"keys": ["rewards", "observations"]}),
    "ahead": Scenario(50, 0, 1_000, 9, "nested", iterator=True),
    "frames": Scenario(97, 3, 10_000, 25, "pixels"),
    "cameras": Scenario(500, 4, 10_000, 120, "cameras"),
    "packed": Scenario(61, 2, 3_000, 40, "cameras", {"pack_obs_and_next_obs": True}),
    "frames_ahead": Scenario(40, 3, 1_000, 12, "pixels", iterator=True),
    "short_episodes": Scenario(23, 4, 3_000, 2, "pixels"),
    "tight": Scenario(7, 3, 3_000, 6, "pixels"),
}


def observation_space(scenario: Scenario, spaces: Any) -> Any:
    """The scenario's space; ``spaces`` is gym's or gymnasium's module of that name."""
    state = spaces.Box(-np.inf, np.inf, (3,), np.float32)
    if scenario.kind == "flat":
        return state
    if scenario.kind == "nested":
        image = spaces.Box(0, 255, (2, 2), np.uint8)
        return spaces.Dict({"state": state, "deep": spaces.Dict({"image": image})})
    frames = spaces.Box(0, 255, (2, 3, 1, scenario.stack), np.uint8)
    if scenario.kind == "pixels":
        return spaces.Dict({"pixels": frames})
    depth = spaces.Box(0, 1, (2, 1, 1, scenario.stack), np.float32)
    return spaces.Dict({"left": frames, "depth": depth, "state": state})


def pixel_keys(scenario: Scenario) -> tuple[str, ...]:
    """The keys with stacked frames."""
    return {"pixels": ("pixels",), "cameras": ("left", "depth")}.get(scenario.kind, ())


def transitions(name: str) -> Iterator[dict[str, Any]]:
    """The scenario's transitions; ``rewards`` is the number of the transition."""
    scenario = SCENARIOS[name]
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    left, observation = 0, None
    for step in range(scenario.steps):
        if left == 0:
            left, observation = int(rng.integers(1, scenario.longest + 1)), None
        observation = observation or _observation(scenario, rng, None)
        following = _observation(scenario, rng, observation)
        left -= 1
        yield {
            "observations": _unwrapped(scenario, observation),
            "next_observations": _unwrapped(scenario, following),
            "actions": rng.random(2, dtype=np.float32),
            "rewards": float(step),
            "masks": float(rng.integers(2)),
            "dones": left == 0,
        }
        observation = following


def run_scenario(buffer: Any, name: str, rows: list[Any]) -> dict[str, np.ndarray]:
    """Insert and sample alternately.

    Args:
        buffer: new.
        name: the scenario.
        rows: a list to which ``buffer`` appends the rows of each sample that it draws.

    Returns:
        ``field/of/batch`` -> ``[steps, BATCH, ...]``; ``rows`` ``[steps, BATCH]``; ``state``, words
        of the generator at the end.
    """
    scenario = SCENARIOS[name]
    options = {"batch_size": BATCH, **scenario.sample}
    buffer.seed(5)
    batches: Any = buffer.get_iterator(sample_args=options) if scenario.iterator else None
    collected: list[dict[str, np.ndarray]] = []
    drawn: list[np.ndarray] = []
    rows.clear()
    for transition in transitions(name):
        buffer.insert(copy.deepcopy(transition))
        before = len(rows)
        batch = next(batches) if batches is not None else buffer.sample(**options)
        collected.append({k: np.asarray(v) for k, v in _leaves(batch)})
        drawn += [np.asarray(r) for r in rows[before:] if np.ndim(r) == 1]
    out = {k: np.stack([batch[k] for batch in collected]) for k in sorted(collected[0])}
    out["rows"] = np.stack(drawn)[: scenario.steps]
    state = buffer.np_random.bit_generator.state
    numbers = [state["state"]["state"], state["state"]["inc"]]
    out["state"] = np.array([n >> s & 0xFFFFFFFF for n in numbers for s in (0, 32, 64, 96)])
    return out


def is_sound(name: str, rows: np.ndarray) -> np.ndarray:
    """Whether upstream's window of a row is always correct (D22): from row ``stack`` on."""
    return rows >= SCENARIOS[name].stack


def check_sums(name: str, samples: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Running checksums of rows and contents per 100 steps; of frames, only sound rows count."""
    sound = is_sound(name, samples["rows"])
    frames = pixel_keys(SCENARIOS[name])
    rows = content = 0
    sums = []
    for start in range(0, len(sound), CHUNK):
        part = slice(start, start + CHUNK)
        rows = _add(rows, samples["rows"][part].astype(np.int64))
        for key in sorted(samples.keys() - {"rows", "state"}):
            value = samples[key][part]
            content = _add(content, value[sound[part]] if key.split("/")[-1] in frames else value)
        sums.append((rows, content))
    return {"sums": np.array(sums), "state": samples["state"]}


def _add(total: int, array: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(array).tobytes(), total)


def _observation(
    scenario: Scenario, rng: np.random.Generator, before: dict[str, Any] | None
) -> dict[str, Any]:
    """A random observation; a stack drops the oldest frame of ``before`` and adds a new one."""
    state = rng.random(3, dtype=np.float32)
    if scenario.kind == "flat":
        return {"flat": state}
    if scenario.kind == "nested":
        return {"state": state, "deep": {"image": rng.integers(256, size=(2, 2), dtype=np.uint8)}}
    observation: dict[str, Any] = {"state": state} if scenario.kind == "cameras" else {}
    for key in pixel_keys(scenario):
        if key == "depth":
            frame = rng.random((2, 1, 1, 1), dtype=np.float32)
        else:
            frame = rng.integers(256, size=(2, 3, 1, 1), dtype=np.uint8)
        older = [frame] * scenario.stack if before is None else [before[key][..., 1:], frame]
        observation[key] = np.concatenate(older, axis=-1)
    return observation


def _unwrapped(scenario: Scenario, observation: dict[str, Any]) -> Any:
    return observation["flat"] if scenario.kind == "flat" else observation


def _leaves(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if hasattr(tree, "items"):
        for key, value in tree.items():
            yield from _leaves(value, f"{prefix}/{key}" if prefix else key)
    else:
        yield prefix, tree


# --- upstream -----------------------------------------------------------------------------


def upstream(name: str) -> dict[str, np.ndarray]:
    """The samples of upstream's buffer in a scenario."""
    os.environ.setdefault("D4RL_SUPPRESS_IMPORT_ERROR", "1")
    sys.modules.setdefault("mjrl", types.ModuleType("mjrl"))
    from gym import spaces  # pyright: ignore
    from jaxrl5.data import MemoryEfficientReplayBuffer, ReplayBuffer  # pyright: ignore
    from jaxrl5.data.dataset import Dataset  # pyright: ignore

    scenario = SCENARIOS[name]
    observation, action = observation_space(scenario, spaces), spaces.Box(-1, 1, (2,), np.float32)
    if scenario.stack:
        buffer = MemoryEfficientReplayBuffer(
            observation, action, scenario.capacity, pixel_keys(scenario)
        )
    else:
        buffer = ReplayBuffer(observation, action, scenario.capacity)

    # The plain buffer draws rows in Dataset.sample; the other one passes its rows to it.
    rows: list[Any] = []
    plain_sample = Dataset.sample

    def sample(self: Any, batch_size: int, keys: Any = None, indx: Any = None) -> Any:
        if indx is None:
            indx = self.np_random.integers(len(self), size=batch_size)
        rows.append(indx)
        return plain_sample(self, batch_size, keys, indx)

    Dataset.sample = sample
    try:
        return run_scenario(buffer, name, rows)
    finally:
        Dataset.sample = plain_sample


def main(arguments: list[str]) -> None:
    from safetensors.numpy import save_file

    command, place = arguments
    samples = {name: upstream(name) for name in SCENARIOS}
    if command == "arrays":
        for name, arrays in samples.items():
            save_file(
                {k: np.ascontiguousarray(v) for k, v in arrays.items()},
                Path(place) / f"{name}.safetensors",
            )
    else:
        sums = {
            f"{name}/{k}": v
            for name, arrays in samples.items()
            for k, v in check_sums(name, arrays).items()
        }
        metadata = {
            "upstream": "philippe-eecs/IDQL 7582571",
            "command": "python tests/data/upstream_buffers.py record "
            "tests/data/reference/buffers.safetensors",
        }
        save_file(sums, place, metadata)


if __name__ == "__main__":
    main(sys.argv[1:])
