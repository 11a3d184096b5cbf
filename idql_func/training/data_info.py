"""A summary of a dataset: what ``idql data info`` prints."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from rich.table import Table

from idql_func.data import Dataset
from idql_func.data.arrays import named_leaves
from idql_func.data.scores import normalized_score
from idql_func.training.configs.offline import DatasetConfig
from idql_func.training.runs.console import make_table
from idql_func.training.sources import Source, count_transitions, load_source

__all__ = ["describe_dataset", "spread"]


def describe_dataset(source: str) -> list[Table]:
    """Tables about a dataset: its episodes, its arrays, and the attributes of its file.

    Args:
        source: as ``dataset.source`` in the settings: the built-in maze, an HDF5 file in D4RL's
            format, a D4RL name, a Minari dataset, or the file of a saved replay buffer.

    Raises:
        InputError: the file is damaged or holds something else, or the name is unknown.
        FileNotFoundError: there is no such file.
    """
    loaded = load_source(DatasetConfig(source=source), progress=True)
    tables = [
        make_table(("", ""), _episodes(loaded), source),
        make_table(
            ("name", "shape", "type", "least", "mean", "greatest"),
            _arrays(loaded.dataset),
            "Arrays",
            numbers=True,
        ),
    ]
    if loaded.attributes:
        rows = [(name, str(value)) for name, value in sorted(loaded.attributes.items())]
        tables.append(make_table(("", ""), rows, "Attributes of the file"))
    return tables


def _episodes(loaded: Source) -> Iterator[tuple[str, str]]:
    dataset = loaded.dataset
    if loaded.path is not None:
        yield "file", str(loaded.path)
    yield "transitions", f"{count_transitions(dataset):,}"
    starts, ends, returns = dataset.trajectory_boundaries_and_returns()
    lengths = ends - starts[: len(ends)]
    yield "episodes", f"{len(ends):,}"
    if len(ends):
        yield "episode length", spread(lengths)
        yield "return", spread(returns)
        if loaded.score_name is not None:
            score = float(normalized_score(loaded.score_name, float(returns.mean())))
            yield "normalised score", f"{score:.1f}"


def _arrays(dataset: Dataset) -> Iterator[tuple[str, ...]]:
    for name, array in named_leaves(dataset.dataset_dict):
        # A buffer's arrays have more rows than the buffer has transitions.
        values = np.asarray(array)[: len(dataset)]
        figures = (values.min(), values.mean(dtype=np.float64), values.max())
        shape = " x ".join(f"{size:,}" for size in values.shape)
        yield name, shape, str(values.dtype), *(f"{float(figure):.4g}" for figure in figures)


def spread(values: np.ndarray) -> str:
    """The mean, the least and the greatest of some numbers as text."""
    return f"{values.mean():.1f} on average, from {values.min():.1f} to {values.max():.1f}"
