"""Cases of the data sets."""

from __future__ import annotations

from collections.abc import Iterator

from parity.cases.case import Case, Options


def dataset_cases() -> Iterator[Case]:
    """Which rows a dataset hands out."""
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
