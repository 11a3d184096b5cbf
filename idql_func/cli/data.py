"""``idql data make`` and ``idql data info``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from idql_func.cli.options import parse_commands
from idql_func.training.configs.options import check_at_least
from idql_func.training.configs.sizes import check_sizes

__all__ = ["InfoOptions", "MakeOptions", "main", "parse"]


@dataclass(frozen=True)
class MakeOptions:
    """Make the built-in maze's dataset, an HDF5 file in D4RL's format.

    Attributes:
        output: The file. None: the one in the cache, which training reads.
        steps: Number of transitions.
        seed: Seed of the behaviour.
    """

    output: Path | None = None
    steps: int = 100_000
    seed: int = 0


@dataclass(frozen=True)
class InfoOptions:
    """Describe a dataset: size, episodes, returns, ranges, metadata.

    Attributes:
        source: The built-in maze, an HDF5 file in D4RL's format, the name of a D4RL dataset, the
            folder of a Minari dataset or its name after 'minari:', or the file of a saved replay
            buffer.
    """

    source: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="SOURCE")] = (
        "pointmaze-umaze-builtin"
    )


def parse(arguments: Sequence[str]) -> MakeOptions | InfoOptions:
    """Parse the options.

    Raises:
        InputError, SystemExit: as :func:`parse_options`.

    Example:
        >>> parse(["info", "data.hdf5"])
        InfoOptions(source='data.hdf5')
    """
    commands = {"make": MakeOptions, "info": InfoOptions}
    return parse_commands(commands, "idql data", "Make or describe a dataset.", arguments)


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    options = parse(arguments)
    if isinstance(options, MakeOptions):
        check_at_least(1, steps=options.steps)
        check_at_least(0, seed=options.seed)
        check_sizes(options)
        from idql_func.data.pointmaze import make_pointmaze_dataset

        print(make_pointmaze_dataset(options.output, seed=options.seed, steps=options.steps))
        return 0
    from rich.console import Console

    from idql_func.training.data_info import describe_dataset

    console = Console(highlight=False)
    for table in describe_dataset(options.source):
        console.print(table)
    return 0
