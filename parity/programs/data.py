"""Programs of the data sets and buffers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from parity import inputs
from parity.backend import Backend, Outputs, Settings


def sampling_arrays(size: int) -> dict[str, np.ndarray]:
    """A dataset whose observations name their own row; an episode ends every seventh row."""
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
    """Row numbers and arrays that a dataset hands out."""
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
        case "split":
            for name, part in zip(("train", "test"), data.split(settings["ratio"]), strict=True):
                out[f"rows/{name}"] = part.dataset_dict["observations"][:, 0].astype(np.int64)
        case "filter":
            # One side filters in place, the other hands back a new dataset.
            kept = data.filter(**settings["args"]) or data
            out["rows/kept"] = kept.dataset_dict["observations"][:, 0].astype(np.int64)
        case "normalize_returns":
            scaled = data.normalize_returns(**settings["args"]) or data
            out["rows/rewards"] = np.asarray(scaled.dataset_dict["rewards"])
    return out
