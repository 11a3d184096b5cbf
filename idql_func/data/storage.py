"""The rows of a replay buffer: a TensorDict of fixed size, in memory or mapped from files."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from tensordict import TensorDict

from idql_func.data.arrays import map_arrays, named_leaves
from idql_func.types import InputError

__all__ = ["Row", "allocate", "check_row", "numpy_views", "row_of", "write_row"]

_MARK = "idql_func.json"


class Row(NamedTuple):
    """What one row of one array looks like.

    Attributes:
        shape: without the axis of the rows.
        dtype: NumPy's.
    """

    shape: tuple[int, ...]
    dtype: np.dtype


def row_of(space: Any, name: str = "space") -> Any:
    """The row, or nested dict of rows, that holds one element of a space.

    Args:
        space: a Gymnasium space with a shape and a dtype (``Box``, ``Discrete``, ``MultiBinary``,
            ``MultiDiscrete``), or a ``Dict`` of such, nested as deep as you like.
        name: the space's name, for the error message.

    Raises:
        TypeError: another space (``Text``, ``Sequence``, ...).

    Example:
        >>> from gymnasium import spaces
        >>> row_of(spaces.Dict({"state": spaces.Box(-1, 1, (3,))}))
        {'state': Row(shape=(3,), dtype=dtype('float32'))}
    """
    parts = getattr(space, "spaces", None)
    if isinstance(parts, Mapping):
        return {key: row_of(part, f"{name}[{key!r}]") for key, part in parts.items()}
    shape, dtype = getattr(space, "shape", None), getattr(space, "dtype", None)
    if shape is None or dtype is None or np.dtype(dtype).kind not in "biuf":
        raise TypeError(
            f"{name} is {space!r}; a replay buffer takes spaces with a shape and a numeric dtype, "
            "such as Box, and Dicts of them."
        )
    return Row(tuple(map(int, shape)), np.dtype(dtype))


def allocate(
    rows: Mapping[str, Any], capacity: int, folder: str | os.PathLike[str] | None = None
) -> TensorDict:
    """Zeros for ``capacity`` rows, of which only those written to take up memory or disk.

    Args:
        rows: field -> :class:`Row`, or a nested dict of them.
        capacity: number of rows, at least 1; it never changes.
        folder: map the tensors from files in this folder, which is made; without it they lie in
            memory. An earlier storage in the folder is replaced (a process that still maps it keeps
            its own); any other content is left alone and refused.

    Raises:
        InputError: too little memory, or a folder that holds something else or is not writable.

    Example:
        >>> allocate({"rewards": Row((), np.dtype("float32"))}, 4)["rewards"]
        tensor([0., 0., 0., 0.])
    """
    if folder is None:
        try:
            tensors = map_arrays(
                rows, lambda r: torch.from_numpy(np.zeros((capacity, *r.shape), r.dtype))
            )
        except MemoryError as error:
            size = sum(math.prod(r.shape) * r.dtype.itemsize for _, r in named_leaves(rows))
            raise InputError(
                f"{capacity} rows take {capacity * size / 2**30:.1f} GiB, for which there is no "
                "memory; give a smaller capacity, or a folder as storage."
            ) from error
        return TensorDict(tensors, batch_size=[capacity])
    folder = Path(folder)
    _clear(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _MARK).write_text(json.dumps({"what": "rows of a replay buffer"}) + "\n")
        # Stand-ins of one element give the shapes without the memory.
        stand_ins = map_arrays(
            rows, lambda r: torch.from_numpy(np.zeros((), r.dtype)).expand(capacity, *r.shape)
        )
        mapped = TensorDict(stand_ins, batch_size=[capacity]).memmap_like(str(folder / "rows"))
    except OSError as error:
        raise InputError(
            f"The buffer's storage folder {folder} cannot be written to ({error.strerror}); give "
            "a folder on a disk with enough room."
        ) from error
    # A mapped TensorDict is locked; its tensors are what is written to.
    return mapped


def check_row(fields: Mapping[str, Any], values: Any, where: str) -> dict[str, Any]:
    """What one row is to hold, as arrays of the right shape; nothing is written.

    Args:
        fields: nested dict of arrays ``[capacity, ...]``.
        values: nested dict of the same keys.
        where: the caller's name, for the messages.

    Raises:
        InputError: missing or unknown keys, another shape, or a dtype that does not fit.

    Example:
        >>> check_row({"a": np.zeros((4, 2))}, {"a": [1.0, 2.0, 3.0]}, "insert")
        Traceback (most recent call last):
        ...
        idql_func.errors.InputError: insert: 'a' has shape (3,); a row of this buffer holds (2,).
    """
    return _check_row(fields, values, where, "")


def _check_row(fields: Mapping[str, Any], values: Any, where: str, prefix: str) -> dict[str, Any]:
    what = f"{prefix[:-1]!r}" if prefix else "a transition"
    if not isinstance(values, (dict, Mapping)):  # dict first, which is quick to tell
        raise InputError(
            f"{where}: {what} is {type(values).__name__}; it must be a dict of "
            f"{', '.join(map(repr, fields))}."
        )
    if fields.keys() != values.keys():
        parts = []
        if missing := [k for k in fields if k not in values]:
            parts.append(f"lacks {', '.join(map(repr, missing))}")
        if unknown := [k for k in values if k not in fields]:
            parts.append(f"has {', '.join(map(repr, unknown))}, which the buffer does not keep")
        raise InputError(
            f"{where}: {what} {' and '.join(parts)}; it must hold exactly "
            f"{', '.join(map(repr, fields))}."
        )
    return {
        key: _check_row(field, values[key], where, f"{prefix}{key}/")
        if isinstance(field, dict)
        else _check_value(field, values[key], where, prefix + key)
        for key, field in fields.items()
    }


def _check_value(field: np.ndarray, value: Any, where: str, name: str) -> np.ndarray:
    shape = field.shape[1:]
    if type(value) is np.ndarray and value.dtype == field.dtype and value.shape == shape:
        return value
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    elif isinstance(value, Mapping):
        raise InputError(f"{where}: {name!r} is a dict; this buffer holds one array there.")
    value = np.asarray(value)
    if shape == () and value.size == 1:  # rewards of some environments come as [1]
        value = value.reshape(())
    if value.shape != shape:
        raise InputError(
            f"{where}: {name!r} has shape {value.shape}; a row of this buffer holds {shape}."
        )
    # Casts of NumPy's own, but for numbers with a fraction put into integers and the like.
    to_bool = field.dtype == np.bool_ and value.dtype.kind in "biuf"
    if not to_bool and not np.can_cast(value.dtype, field.dtype, "same_kind"):
        raise InputError(
            f"{where}: {name!r} has dtype {value.dtype}; this buffer holds {field.dtype} there."
        )
    return value


def write_row(fields: Mapping[str, Any], values: Mapping[str, Any], row: int) -> None:
    """Write what :func:`check_row` returned to one row.

    Example:
        >>> fields = {"a": np.zeros(2)}
        >>> write_row(fields, {"a": np.float32(3)}, 1)
        >>> fields["a"]
        array([0., 3.])
    """
    for key, field in fields.items():
        if isinstance(field, dict):
            write_row(field, values[key], row)
        else:
            field[row] = values[key]


def numpy_views(storage: TensorDict) -> dict[str, Any]:
    """The storage as a nested dict of arrays that share its memory.

    Example:
        >>> storage = allocate({"a": Row((), np.dtype("float32"))}, 2)
        >>> numpy_views(storage)["a"][1] = 5
        >>> storage["a"]
        tensor([0., 5.])
    """
    return map_arrays(storage.to_dict(convert_tensors=False), lambda t: t.numpy())


def _clear(folder: Path) -> None:
    """Remove an earlier storage; refuse a folder with anything else in it."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise InputError(f"The buffer's storage {folder} is a file; give a folder.")
    content = sorted(p.name for p in folder.iterdir())
    if content and (_MARK not in content or set(content) - {_MARK, "rows"}):
        raise InputError(
            f"The buffer's storage folder {folder} holds other files ({content[0]!r}); give a "
            "folder of its own."
        )
    # Unlinked, not truncated: a mapping that is still in use lives on.
    shutil.rmtree(folder / "rows", ignore_errors=True)
