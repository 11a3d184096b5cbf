"""Cases of the datasets and replay buffers."""

from __future__ import annotations

from collections.abc import Iterator

from parity.cases.case import Case, Options


def dataset_cases() -> Iterator[Case]:
    """Which rows a dataset samples."""
    kinds = {"rows": "bits"}
    variants: dict[str, Options] = {
        "device-unseeded": {"method": "sample_device", "seed": None, "batch": 32, "count": 5},
        "device-seed7": {"method": "sample_device", "seed": 7, "batch": 9, "count": 5},
        "device-large": {
            "method": "sample_device",
            "seed": 3,
            "batch": 256,
            "count": 3,
            "size": 100_003,
        },
        "numpy-seed7": {"method": "sample", "seed": 7, "batch": 32, "count": 5},
        "numpy-seed0": {"method": "sample", "seed": 0, "batch": 9, "count": 3},
        "seed": {"method": "seed", "seed": None, "batch": 9, "seeds": [0, 7, 123456789]},
        "split": {"method": "split", "seed": 3, "ratio": 0.95},
        "filter-top": {"method": "filter", "seed": 3, "args": {"take_top": 30.0}},
        "filter-threshold": {"method": "filter", "seed": 3, "args": {"threshold": 0.25}},
        "normalize_returns": {
            "method": "normalize_returns",
            "seed": 3,
            "args": {"scaling": 1000},
        },
    }
    for name, options in variants.items():
        settings = {"size": 999, **options}
        yield Case("dataset", name, "dataset", settings, kinds)


def replay_cases() -> Iterator[Case]:
    """Replay buffers: partly filled, wrapped around, nested, with stacked frames, prefetched."""
    images = {"pixels": [3, 2, 1, 3], "state": [2]}
    flat: Options = {
        "space": {"state": [3]},
        "obs_dim": 3,
        "flat": True,
        "capacity": 20,
        "episodes": [7, 3],
        "seed": 7,
        "batch": 9,
        "between": 8,
        "count": 5,
    }
    stacked: Options = {**flat, "space": images, "flat": False, "pixel_keys": ["pixels"]}
    variants: dict[str, Options] = {
        "flat": flat,
        "flat-keys": {**flat, "seed": 0, "sample": {"keys": ["rewards", "actions"]}},
        "flat-prefetch": {**flat, "queue_size": 2},
        "flat-prefetch-3": {**flat, "queue_size": 3},
        "nested": {**flat, "space": images, "flat": False},
        # Episodes of 5 with 3 rows of padding fill 40 rows without one that straddles the end.
        "stacked": {**stacked, "capacity": 40, "episodes": [5]},
        "stacked-packed": {
            **stacked,
            "capacity": 40,
            "episodes": [5],
            "sample": {"pack_obs_and_next_obs": True},
        },
        "stacked-keys": {
            **stacked,
            "capacity": 40,
            "episodes": [5],
            "sample": {"keys": ["observations", "rewards"]},
        },
        "stacked-cameras": {
            **stacked,
            "capacity": 40,
            "episodes": [5],
            "space": {**images, "wrist": [2, 2, 3, 3]},
            "pixel_keys": ["pixels", "wrist"],
        },
        # One episode that continues beyond the end of the ring, several times.
        "stacked-long": {**stacked, "capacity": 25, "episodes": [1000], "count": 10},
        # Padding across the end of the ring: the original then shows other frames (quirk D22).
        "stacked-straddling": {
            **stacked,
            "capacity": 22,
            "episodes": [5, 2, 9],
            "count": 12,
            "fields": ["actions", "rewards", "masks", "dones", "next_observations/state"],
        },
    }
    for name, settings in variants.items():
        yield Case("buffers", name, "replay", settings, {"sample": "bits", "rows": "bits"})
