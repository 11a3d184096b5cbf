"""The port's datasets, loaders, buffers and normalisers, for the torch backend."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
import torch

from idql_func.data import (
    BinaryDataset,
    D4RLDataset,
    Dataset,
    MemoryEfficientReplayBuffer,
    ReplayBuffer,
    fit_mean_std,
)
from parity import inputs
from parity.backend import Outputs, Settings


class TorchData:
    """The data half of :class:`parity.backend.Backend`; TorchBackend inherits it."""

    device: torch.device | str = "cpu"

    def dataset(self, arrays: Mapping[str, np.ndarray], seed: int | None) -> Any:
        return Dataset(dict(arrays), seed, device=self.device)

    def sample_device(self, dataset: Any, batch_size: int) -> Mapping[str, Any]:
        return dataset.sample_torch(batch_size)

    def d4rl(self, source: Any, options: Settings) -> Any:
        return D4RLDataset(source, **options)

    def binary(self, folder: Path, name: str, options: Settings) -> Any:
        env = SimpleNamespace(spec=SimpleNamespace(name=name))
        return BinaryDataset(env, data_dir=folder, **options)

    def normalised(self, fitted: Mapping[str, np.ndarray], x: Mapping[str, np.ndarray]) -> Outputs:
        out: Outputs = {}
        for name, values in x.items():
            normaliser = fit_mean_std(torch.from_numpy(fitted[name]))
            wide = normaliser.normalize(torch.from_numpy(values))
            out[f"whole/{name}"] = out[f"field/{name}"] = wide.float().numpy()
            out[f"back/{name}"] = normaliser.denormalize(wide).numpy()
        return out

    def replay(self, settings: Settings) -> Any:
        keys = settings.get("pixel_keys")
        acted = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
        space, capacity = inputs.observation_space(gymnasium.spaces, settings), settings["capacity"]
        if keys is None:
            buffer = ReplayBuffer(space, acted, capacity)
        else:
            buffer = MemoryEfficientReplayBuffer(space, acted, capacity, tuple(keys))
        buffer.seed(settings["seed"])
        return buffer

    def replay_rows(self, buffer: Any) -> np.ndarray:
        rows = getattr(buffer, "transition_rows", None)
        return np.arange(len(buffer)) if rows is None else np.sort(rows)
