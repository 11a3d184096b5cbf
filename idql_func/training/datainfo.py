"""A dataset in a few lines: what ``idql data info`` prints."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from rich import box
from rich.table import Table

from idql_func.data import D4RLDataset
from idql_func.data.hdf5 import read_d4rl_hdf5
from idql_func.data.scores import normalized_score
from idql_func.training.config import DatasetConfig
from idql_func.training.task import resolve_source, score_name_of

__all__ = ["describe_dataset"]


def describe_dataset(source: str) -> list[Table]:
    """Tables about a dataset: its episodes, its arrays, and the attributes of its file.

    Args:
        source: the built-in maze, an HDF5 file in D4RL's format, or a D4RL name.

    Raises:
        InputError: the file is damaged or holds something else, or the name is unknown.
        FileNotFoundError: there is no such file.
    """
    resolved, path = resolve_source(DatasetConfig(source=source), progress=True)
    dataset = D4RLDataset(resolved)
    tables = [_episodes(dataset, source, path), _arrays(dataset)]
    attributes = {} if path is None else read_d4rl_hdf5(path, keys=())[1]
    if attributes:
        table = Table(
            title="Attributes of the file", title_justify="left", show_header=False, box=box.SIMPLE
        )
        table.add_column()
        table.add_column(overflow="fold")
        for name, value in sorted(attributes.items()):
            table.add_row(name, str(value))
        tables.append(table)
    return tables


def _episodes(dataset: D4RLDataset, source: str, path: Path | None) -> Table:
    table = Table(title=source, title_justify="left", show_header=False, box=box.SIMPLE)
    table.add_column()
    table.add_column(overflow="fold")
    if path is not None:
        table.add_row("file", str(path))
    table.add_row("transitions", f"{len(dataset):,}")
    starts, ends, returns = dataset.trajectory_boundaries_and_returns()
    lengths = ends - starts[: len(ends)]
    table.add_row("episodes", f"{len(ends):,}")
    if len(ends):
        table.add_row("episode length", _spread(lengths))
        table.add_row("return", _spread(returns))
        name = score_name_of(source, path)
        if name is not None:
            score = float(normalized_score(name, float(returns.mean())))
            table.add_row("normalised score", f"{score:.1f}")
    return table


def _arrays(dataset: D4RLDataset) -> Table:
    table = Table(title="Arrays", title_justify="left", header_style="bold", box=box.SIMPLE_HEAD)
    for column in ("name", "shape", "type", "least", "mean", "greatest"):
        table.add_column(column, justify="left" if column == "name" else "right")
    for name, array in dataset.dataset_dict.items():
        values = np.asarray(array)
        figures = (values.min(), values.mean(dtype=np.float64), values.max())
        table.add_row(
            name,
            " x ".join(f"{size:,}" for size in values.shape),
            str(values.dtype),
            *(f"{float(figure):.4g}" for figure in figures),
        )
    return table


def _spread(values: np.ndarray) -> str:
    return f"{values.mean():.1f} on average, from {values.min():.1f} to {values.max():.1f}"
