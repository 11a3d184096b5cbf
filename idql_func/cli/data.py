"""``idql data make`` and ``idql data info``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

__all__ = ["InfoOptions", "MakeOptions", "main"]


@dataclass(frozen=True)
class MakeOptions:
    """Make the built-in maze's dataset, an HDF5 file in D4RL's format; no network needed."""

    output: Path | None = None
    """The file. None: the cache, where training finds it."""
    steps: int = 100_000
    """Number of transitions."""
    seed: int = 0
    """Seed of the behaviour."""


@dataclass(frozen=True)
class InfoOptions:
    """Describe a dataset: size, episodes, returns, ranges, and what its file says of itself."""

    source: tyro.conf.Positional[str] = "pointmaze-umaze-builtin"
    """The built-in maze, an HDF5 file in D4RL's format, the name of a D4RL dataset, the folder of a
    Minari dataset or its name after 'minari:', or the file of a saved replay buffer."""


def main(arguments: Sequence[str]) -> int:
    """Run the command; the exit status."""
    options = tyro.extras.subcommand_cli_from_dict(
        {"make": MakeOptions, "info": InfoOptions},
        prog="idql data",
        description="Make or describe a dataset.",
        args=list(arguments),
    )
    if isinstance(options, MakeOptions):
        return _make(options)
    return _info(options)


def _make(options: MakeOptions) -> int:
    from idql_func.data.pointmaze import make_pointmaze_dataset

    print(make_pointmaze_dataset(options.output, seed=options.seed, steps=options.steps))
    return 0


def _info(options: InfoOptions) -> int:
    from rich.console import Console

    from idql_func.training.data_info import describe_dataset

    console = Console(highlight=False)
    for table in describe_dataset(options.source):
        console.print(table)
    return 0
