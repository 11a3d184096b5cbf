"""Options that several commands have, each with its help, and checks that they share.

This module imports neither torch nor the learners, so that the command line answers at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import tyro

from idql_func.errors import InputError

__all__ = ["Device", "Matmul", "RunsDir", "Threads", "check_at_least", "check_name"]

RunsDir: TypeAlias = Annotated[Path, tyro.conf.arg(help="Folder of all runs.")]

Device: TypeAlias = Annotated[
    str,
    tyro.conf.arg(
        help="Where to compute: 'cpu', 'cuda', 'cuda:1', ...; 'auto' takes a GPU if there is one."
    ),
]

Threads: TypeAlias = Annotated[
    int | None,
    tyro.conf.arg(
        help="CPU threads. None: as many as torch takes by itself (OMP_NUM_THREADS); 0: one for "
        "each physical core that this process may use, fewer in a container with a quota or with "
        "two hardware threads to a core."
    ),
]

Matmul: TypeAlias = Annotated[
    Literal["auto", "strict", "bf16"],
    tyro.conf.arg(
        help="Matrix products on the CPU: 'auto' takes torch's oneDNN route if a probe shows that "
        "its error stays that of float32 and that it is not clearly slower; 'strict' never does. "
        "'bf16', here and on a GPU, rounds the factors to bfloat16: about half the time on CPUs "
        "with units for it, an error of 3e-3 in place of 3e-7."
    ),
]


def check_at_least(least: int, **values: int | None) -> None:
    """Refuse a number below the least; None is no number.

    Raises:
        InputError: the sentence names the option.

    Example:
        >>> check_at_least(1, batch_size=0)
        Traceback (most recent call last):
        idql_func.errors.InputError: batch_size is 0, but must be at least 1
    """
    for name, value in values.items():
        if value is not None and value < least:
            raise InputError(f"{name} is {value}, but must be at least {least}")


def check_name(name: str | None) -> None:
    """Refuse a run's name that is no plain folder name.

    Raises:
        InputError: it is empty, a dot or two, or has a slash in it.

    Example:
        >>> check_name("a/b")
        Traceback (most recent call last):
        idql_func.errors.InputError: name is 'a/b', but must be a plain folder name
    """
    if name is not None and (name in ("", ".", "..") or "/" in name or "\\" in name):
        raise InputError(f"name is {name!r}, but must be a plain folder name")
