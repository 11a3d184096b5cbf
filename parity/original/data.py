"""The original's datasets, loaders, buffers and normalisers, for the JAX backend."""
# pyright: reportMissingImports=false

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np

from parity import inputs
from parity.backend import Outputs, Settings


class JaxData:
    """The data half of :class:`parity.backend.Backend`; JaxBackend inherits it."""

    gym: Any

    def dataset(self, arrays: Mapping[str, np.ndarray], seed: int | None) -> Any:
        from jaxrl5.data.dataset import Dataset

        return Dataset(dict(arrays), seed)

    def sample_device(self, dataset: Any, batch_size: int) -> Mapping[str, Any]:
        return dataset.sample_jax(batch_size)

    def d4rl(self, source: Any, options: Settings) -> Any:
        from jaxrl5.data.d4rl_datasets import D4RLDataset

        return D4RLDataset(source, **options)

    def binary(self, folder: Path, name: str, options: Settings) -> Any:
        from jaxrl5.data import binary_datasets

        env = SimpleNamespace(spec=SimpleNamespace(name=name))
        # The original has a hard-coded folder of its authors' cluster (quirk D19).
        with mock.patch.object(binary_datasets, "AWAC_DATA_DIR", str(folder)):
            return binary_datasets.BinaryDataset(env, **options)

    def normalised(self, fitted: Mapping[str, np.ndarray], x: Mapping[str, np.ndarray]) -> Outputs:
        from jaxrl5.normalization import DatasetNormalizer, GaussianNormalizer

        whole = DatasetNormalizer(dict(fitted), GaussianNormalizer)
        parts, out = whole.get_field_normalizers(), {}
        for name, values in x.items():
            out[f"whole/{name}"] = whole(values, name)
            out[f"field/{name}"] = parts[name](values)
            out[f"back/{name}"] = whole.unnormalize(out[f"whole/{name}"], name)
        return out

    def replay(self, settings: Settings) -> Any:
        from jaxrl5.data import MemoryEfficientReplayBuffer, ReplayBuffer

        keys = settings.get("pixel_keys")
        cls = ReplayBuffer if keys is None else MemoryEfficientReplayBuffer
        options = {} if keys is None else {"pixel_keys": tuple(keys)}
        acted = self.gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
        buffer = cls(
            inputs.observation_space(self.gym.spaces, settings),
            acted,
            settings["capacity"],
            **options,
        )
        buffer.seed(settings["seed"])
        return buffer

    def replay_rows(self, buffer: Any) -> np.ndarray:
        valid = getattr(buffer, "_is_correct_index", None)
        return np.arange(len(buffer)) if valid is None else np.flatnonzero(valid)
