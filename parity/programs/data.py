"""Programs of the datasets and buffers."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from parity import inputs
from parity.backend import Backend, Outputs, Settings


def sampling_arrays(size: int) -> dict[str, np.ndarray]:
    """A dataset whose observations contain their row number; an episode ends every seventh row."""
    rows = np.arange(size)
    dones = ((rows % 7 == 6) | (rows == size - 1)).astype(np.float32)
    return {
        "observations": rows[:, None].astype(np.float32),
        "actions": inputs.uniform("dataset/actions", (size, 2)).astype(np.float32),
        "rewards": inputs.uniform("dataset/rewards", (size,)).astype(np.float32),
        "masks": 1.0 - dones,
        "dones": dones,
        "next_observations": rows[:, None].astype(np.float32) + 1.0,
    }


def _rows(backend: Backend, batch: Mapping[str, Any]) -> np.ndarray:
    return np.asarray(backend.numpy(batch["observations"]))[:, 0].astype(np.int64)


def dataset(backend: Backend, settings: Settings) -> Outputs:
    """Row numbers and arrays that a dataset returns."""
    arrays = sampling_arrays(settings["size"])
    data = backend.dataset(arrays, settings["seed"])
    count, out = settings.get("count", 0), {}
    match settings["method"]:
        case "sample_device":
            for call in range(count):
                rows = _rows(backend, backend.sample_device(data, settings["batch"]))
                out[f"rows/{call}"] = rows
            out["rows/rng"] = backend.numpy(data.rng)
        case "sample":
            for call in range(count):
                out[f"rows/{call}"] = _rows(backend, data.sample(settings["batch"]))
        case "seed":
            for seed in settings["seeds"]:
                seeds = data.seed(seed)
                out[f"rows/{seed}"] = _rows(backend, data.sample(settings["batch"]))
                out[f"rows/{seed}/said"] = np.array([int(word) for word in seeds])
        case "split":
            for name, part in zip(("train", "test"), data.split(settings["ratio"]), strict=True):
                out[f"rows/{name}"] = part.dataset_dict["observations"][:, 0].astype(np.int64)
        case "filter":
            # One side filters in place, the other returns a new dataset.
            kept = data.filter(**settings["args"]) or data
            out["rows/kept"] = kept.dataset_dict["observations"][:, 0].astype(np.int64)
            out["rows/length"] = np.array(len(kept))
        case "normalize_returns":
            scaled = data.normalize_returns(**settings["args"]) or data
            out["rows/rewards"] = np.asarray(scaled.dataset_dict["rewards"])
    return out


def _transitions(settings: Settings) -> Iterator[dict[str, Any]]:
    """Endless transitions in episodes of the given lengths, which repeat.

    Rewards number the transitions. The images of an episode are windows over its frames, as from
    a frame-stacking wrapper.
    """
    space, number = settings["space"], 0
    for episode in itertools.count():
        length = settings["episodes"][episode % len(settings["episodes"])]
        frames = {}
        for name, shape in space.items():
            stack = shape[-1] if len(shape) == 4 else 1
            full = [length + stack, *(shape[:-1] if len(shape) == 4 else shape)]
            low, high = (0.0, 256.0) if len(shape) == 4 else (-2.0, 2.0)
            values = inputs.uniform(f"replay/{episode}/{name}", tuple(full), low, high)
            frames[name] = values.astype(np.uint8 if len(shape) == 4 else np.float32)

        def seen(step: int, frames: dict[str, np.ndarray] = frames) -> dict[str, np.ndarray]:
            return {
                name: np.moveaxis(frames[name][step : step + shape[-1]], 0, -1)
                if len(shape) == 4
                else frames[name][step]
                for name, shape in space.items()
            }

        for step in range(length):
            done = step == length - 1
            now, later = seen(step), seen(step + 1)
            yield {
                "observations": now["state"] if settings["flat"] else now,
                "next_observations": later["state"] if settings["flat"] else later,
                "actions": inputs.uniform(f"replay/actions/{number}", (2,)).astype(np.float32),
                "rewards": np.float32(number),
                "masks": np.float32(not done),
                "dones": done,
            }
            number += 1


def replay(backend: Backend, settings: Settings) -> Outputs:
    """Batches of a replay buffer between insertions, and the rows that may be drawn.

    ``fields`` leaves out the fields that are wrong in the original (quirk D22).
    """
    buffer = backend.replay(settings)
    transitions, out = _transitions(settings), {}
    batches = None
    if "queue_size" in settings:
        arguments = {"batch_size": settings["batch"]}
        batches = buffer.get_iterator(settings["queue_size"], arguments)
    for call in range(settings["count"]):
        for transition in itertools.islice(transitions, settings["between"]):
            buffer.insert(transition)
        if batches is not None:
            batch = next(batches)
        else:
            batch = buffer.sample(settings["batch"], **settings.get("sample", {}))
        for name, leaf in inputs.flatten(batch).items():
            if name.startswith(tuple(settings.get("fields", ("",)))):
                # Compared bit for bit: stacking frames involves no rounding.
                out[f"sample/{call}/{name}"] = np.ascontiguousarray(backend.numpy(leaf))
        out[f"rows/{call}"] = backend.replay_rows(buffer)
    return out
