"""A summary of a dataset: what ``idql data info`` prints."""

from __future__ import annotations

import numpy as np
from rich import box
from rich.table import Table

from idql_func.data import Dataset
from idql_func.data.arrays import named_leaves
from idql_func.data.scores import normalized_score
from idql_func.training.configs.offline import DatasetConfig
from idql_func.training.sources import Source, count_transitions, load_source

__all__ = ["describe_dataset"]


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
    tables = [_episodes(loaded, source), _arrays(loaded.dataset)]
    if loaded.attributes:
        table = Table(
            title="Attributes of the file", title_justify="left", show_header=False, box=box.SIMPLE
        )
        table.add_column()
        table.add_column(overflow="fold")
        for name, value in sorted(loaded.attributes.items()):
            table.add_row(name, str(value))
        tables.append(table)
    return tables


def _episodes(loaded: Source, source: str) -> Table:
    dataset = loaded.dataset
    table = Table(title=source, title_justify="left", show_header=False, box=box.SIMPLE)
    table.add_column()
    table.add_column(overflow="fold")
    if loaded.path is not None:
        table.add_row("file", str(loaded.path))
    table.add_row("transitions", f"{count_transitions(dataset):,}")
    starts, ends, returns = dataset.trajectory_boundaries_and_returns()
    lengths = ends - starts[: len(ends)]
    table.add_row("episodes", f"{len(ends):,}")
    if len(ends):
        table.add_row("episode length", _spread(lengths))
        table.add_row("return", _spread(returns))
        if loaded.score_name is not None:
            score = float(normalized_score(loaded.score_name, float(returns.mean())))
            table.add_row("normalised score", f"{score:.1f}")
    return table


def _arrays(dataset: Dataset) -> Table:
    table = Table(title="Arrays", title_justify="left", header_style="bold", box=box.SIMPLE_HEAD)
    for column in ("name", "shape", "type", "least", "mean", "greatest"):
        table.add_column(column, justify="left" if column == "name" else "right")
    for name, array in named_leaves(dataset.dataset_dict):
        # A buffer's arrays have more rows than the buffer has transitions.
        values = np.asarray(array)[: len(dataset)]
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
