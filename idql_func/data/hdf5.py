"""HDF5 files in D4RL's format: read them in full, write them atomically.

The format is one HDF5 dataset per array (``observations``, ``actions``, ``rewards``, ``terminals``
and, in newer files, ``timeouts``; optional groups such as ``infos/qpos``) and free attributes at
the root. It is what ``d4rl.offline_env.OfflineEnv.get_dataset`` reads.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from idql_func.data.arrays import named_leaves
from idql_func.data.hdf5_file import create_hdf5, open_hdf5
from idql_func.deprecation import moved_names
from idql_func.types import InputError

__all__ = ["check_hdf5", "read_d4rl_hdf5", "write_d4rl_hdf5"]


def write_d4rl_hdf5(
    path: str | os.PathLike[str],
    arrays: Mapping[str, Any],
    attributes: Mapping[str, Any] | None = None,
) -> Path:
    """Write arrays and root attributes to an HDF5 file atomically.

    The bytes depend only on the content and the library versions (no time stamps, no compression),
    so the same arrays give the same file.

    Args:
        path: destination; an existing file is replaced.
        arrays: name -> array of any shape, numeric or bool; ``"infos/qpos"`` or a nested mapping
            creates a group.
        attributes: name -> str, bool, number or numeric array.

    Returns:
        The path written.

    Raises:
        InputError: if there is nothing to write, or an array or attribute has another type.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = write_d4rl_hdf5(f"{folder}/d.hdf5", {"rewards": np.ones(2)}, {"seed": 3})
        ...     read_d4rl_hdf5(path)
        ({'rewards': array([1., 1.])}, {'seed': 3})
    """
    flat = {name: np.asarray(value) for name, value in named_leaves(arrays)}
    if not flat:
        raise InputError(f"There is no array to write to {path}; give at least one.")
    for name, array in flat.items():
        if array.dtype.kind not in "biufc":
            raise InputError(
                f"Array {name!r} for {path} has dtype {array.dtype}; D4RL's format holds only "
                "numbers and booleans."
            )
    with create_hdf5(path, sum(array.nbytes for array in flat.values())) as file:
        for name, array in flat.items():
            file.create_dataset(name, data=array, track_times=False)
        for name, value in (attributes or {}).items():
            try:
                file.attrs[name] = value
            except TypeError as error:
                raise InputError(
                    f"Attribute {name!r} for {path} is a {type(value).__name__}; it must be a "
                    "string, boolean, number or numeric array."
                ) from error
    return Path(path)


def read_d4rl_hdf5(
    path: str | os.PathLike[str], keys: Iterable[str] | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read the arrays and the root attributes of an HDF5 file.

    Args:
        path: an HDF5 file.
        keys: names to read; missing ones are skipped. Default: all.

    Returns:
        ``(arrays, attributes)``: name -> array (``"infos/qpos"`` for an array in a group; a scalar
        stays a scalar), and name -> Python value or array.

    Raises:
        InputError: as :func:`check_hdf5`, or if an array is damaged.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = write_d4rl_hdf5(f"{folder}/d.hdf5", {"a": np.ones(2), "infos/b": [0.0]})
        ...     arrays, attributes = read_d4rl_hdf5(path)
        ...     sorted(arrays), attributes, read_d4rl_hdf5(path, keys=["a", "x"])[0]
        (['a', 'infos/b'], {}, {'a': array([1., 1.])})
    """
    with open_hdf5(path) as file:
        columns = file.columns(None if keys is None else list(keys))
        return {name: column[()] for name, column in columns.items()}, file.attributes()


def check_hdf5(path: str | os.PathLike[str]) -> None:
    """Raise unless ``path`` is an HDF5 file of full length.

    HDF5 writes the file's length into the header, so a truncated file is found without reading the
    arrays. The digest of a file that this package wrote is checked, but for its large arrays.

    Raises:
        InputError: if the file does not exist, is a folder, is not readable, is not HDF5, or is
            truncated.

    Example:
        >>> check_hdf5("no/such.hdf5")
        Traceback (most recent call last):
        ...
        idql_func.files.FileReadError: There is no file no/such.hdf5; give the path of an HDF5 \
file in D4RL's format.
    """
    with open_hdf5(path):
        pass


def first_line(error: BaseException) -> str:
    """The first line of an error's message without its full stop, or the error's type.

    Example:
        >>> first_line(OSError("disk full."))
        'disk full'
    """
    return (str(error).splitlines() or [type(error).__name__])[0].strip().rstrip(".")


__getattr__ = moved_names(__name__)
