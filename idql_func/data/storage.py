"""Storage of a replay buffer: a TensorDict of fixed size, in memory or memory-mapped."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from idql_func.data.arrays import map_arrays, named_leaves
from idql_func.deprecation import moved_names
from idql_func.files import FileWriteError, require_space, reserve, write_json
from idql_func.files.torch_cache import ensure_cache
from idql_func.types import InputError

if TYPE_CHECKING:
    from tensordict import TensorDict

__all__ = [
    "FieldSpec",
    "allocate",
    "check_row",
    "field_spec",
    "numpy_views",
    "transition_spec",
    "write_rows",
]

_MARKER = "idql_func.json"


class FieldSpec(NamedTuple):
    """Shape and dtype of one row of one array.

    Attributes:
        shape: without the row axis.
        dtype: NumPy's.
    """

    shape: tuple[int, ...]
    dtype: np.dtype


def field_spec(space: Any, name: str = "space") -> Any:
    """Return the spec, or nested dict of specs, of an element of a space.

    Args:
        space: a Gymnasium space with a shape and a dtype (``Box``, ``Discrete``, ``MultiBinary``,
            ``MultiDiscrete``), or a ``Dict`` of them, nested to any depth.
        name: the space's name, for the error message.

    Raises:
        TypeError: if it is another space (``Text``, ``Sequence``, ...).

    Example:
        >>> from gymnasium import spaces
        >>> field_spec(spaces.Dict({"state": spaces.Box(-1, 1, (3,))}))
        {'state': FieldSpec(shape=(3,), dtype=dtype('float32'))}
    """
    parts = getattr(space, "spaces", None)
    if isinstance(parts, Mapping):
        return {key: field_spec(part, f"{name}[{key!r}]") for key, part in parts.items()}
    shape, dtype = getattr(space, "shape", None), getattr(space, "dtype", None)
    a_space = callable(getattr(space, "contains", None))  # one of the old gym package works too
    if not a_space or shape is None or dtype is None or np.dtype(dtype).kind not in "biuf":
        raise TypeError(
            f"{name} is {space!r}; a replay buffer needs spaces with a shape and a numeric dtype, "
            "such as Box, or Dicts of them."
        )
    return FieldSpec(tuple(map(int, shape)), np.dtype(dtype))


def transition_spec(observations: Any, next_observations: Any, actions: Any) -> dict[str, Any]:
    """Return the specs of a transition's fields in their order of storage.

    Example:
        >>> action = FieldSpec((2,), np.dtype(np.float32))
        >>> list(transition_spec({}, {}, action))
        ['observations', 'next_observations', 'actions', 'rewards', 'masks', 'dones']
    """
    scalar = FieldSpec((), np.dtype(np.float32))
    return {
        "observations": observations,
        "next_observations": next_observations,
        "actions": actions,
        "rewards": scalar,
        "masks": scalar,
        "dones": FieldSpec((), np.dtype(bool)),
    }


def allocate(
    spec: Mapping[str, Any], capacity: int, folder: str | os.PathLike[str] | None = None
) -> TensorDict:
    """Allocate zeros for ``capacity`` rows; rows use memory only once they are written.

    On a disk the room for all of them is reserved at once.

    Args:
        spec: nested dict of :class:`FieldSpec`.
        capacity: number of rows.
        folder: memory-map the rows from files in this folder. The files of an earlier buffer are
            replaced (a process that maps them keeps its mapping); a folder with other files is
            rejected and not changed.

    Raises:
        InputError: if memory or disk is too small, or the folder holds other files or is not
            writable.
        FileWriteError: there is no folder for torch's cache, nor for temporary files.

    Example:
        >>> allocate({"rewards": FieldSpec((), np.dtype("float32"))}, 4)["rewards"]
        tensor([0., 0., 0., 0.])
    """
    tensordict = _tensordict()
    size = sum(math.prod(f.shape) * f.dtype.itemsize for _, f in named_leaves(spec))
    if folder is None:
        try:
            tensors = map_arrays(
                spec, lambda f: torch.from_numpy(np.zeros((capacity, *f.shape), f.dtype))
            )
        except MemoryError as error:
            raise InputError(
                f"{capacity} rows need {capacity * size / 2**30:.1f} GiB, more than the available "
                "memory; give a smaller capacity, or a folder as storage."
            ) from error
        return tensordict(tensors, batch_size=[capacity])
    folder = Path(folder)
    _clear(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / _MARKER, {"what": "rows of a replay buffer"})
        # Room is reserved first: writing to a mapping of a full disk ends the process by SIGBUS.
        require_space(folder / "rows", capacity * size)
        # Expanded scalars have the right shapes and use no memory.
        templates = map_arrays(
            spec, lambda f: torch.from_numpy(np.zeros((), f.dtype)).expand(capacity, *f.shape)
        )
        rows = tensordict(templates, batch_size=[capacity])
        mapped = rows.memmap_like(str(folder / "rows"))
        for path in sorted((folder / "rows").rglob("*.memmap")):
            reserve(path)
    except FileWriteError as error:
        shutil.rmtree(folder / "rows", ignore_errors=True)
        raise error.with_advice("free some space, or give a smaller capacity") from error
    except OSError as error:
        raise InputError(
            f"The buffer's storage folder {folder} is not writable ({error.strerror}); give a "
            "folder on a disk with enough space."
        ) from error
    # A memory-mapped TensorDict is locked, but its tensors can be written to.
    return mapped


def check_row(
    fields: Mapping[str, Any], values: Any, where: str, prefix: str = ""
) -> dict[str, Any]:
    """Check the values of one row and return them as arrays or numbers; nothing is written.

    Args:
        fields: nested dict of arrays ``[capacity, ...]``.
        values: nested dict of the same keys.
        where: the caller's name, for the messages.
        prefix: the path of ``fields`` in the transition, ending in ``/``, for the messages.

    Raises:
        InputError: if keys are missing or unknown, or a shape or dtype does not match.

    Example:
        >>> check_row({"a": np.zeros((4, 2))}, {"a": [1.0, 2.0, 3.0]}, "insert")
        Traceback (most recent call last):
        ...
        idql_func.errors.InputError: insert: 'a' has shape (3,); the shape in this buffer is (2,).
    """
    what = f"{prefix[:-1]!r}" if prefix else "a transition"
    if not isinstance(values, (dict, Mapping)):  # dict first: the faster check
        raise InputError(
            f"{where}: {what} is {type(values).__name__}; it must be a dict of "
            f"{', '.join(map(repr, fields))}."
        )
    if fields.keys() != values.keys():
        parts = []
        if missing := [k for k in fields if k not in values]:
            parts.append(f"lacks {', '.join(map(repr, missing))}")
        if unknown := [k for k in values if k not in fields]:
            parts.append(f"has unknown {', '.join(map(repr, unknown))}")
        raise InputError(
            f"{where}: {what} {' and '.join(parts)}; its keys must be "
            f"{', '.join(map(repr, fields))}."
        )
    return {
        key: check_row(field, values[key], where, f"{prefix}{key}/")
        if isinstance(field, dict)
        else _check_value(field, values[key], where, prefix + key)
        for key, field in fields.items()
    }


_SAFE = 65504.0
"""The largest number that every dtype of floats can hold."""


def _check_value(field: np.ndarray, value: Any, where: str, name: str) -> Any:
    shape = field.shape[1:]
    if shape:
        if type(value) is np.ndarray and value.dtype == field.dtype and value.shape == shape:
            return value
    elif type(value) in (float, bool, int):  # the usual numbers, without an array
        kind = field.dtype.kind
        if kind == "f" and -_SAFE <= value <= _SAFE and (name != "masks" or 0 <= value <= 1):
            return value
        if kind == "b" and value in (0, 1):
            return value
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    elif isinstance(value, Mapping):
        raise InputError(f"{where}: {name!r} is a dict; it must be one array in this buffer.")
    value = np.asarray(value)
    if shape == () and value.size == 1:  # some environments return rewards of shape [1]
        value = value.reshape(())
    if value.shape != shape:
        raise InputError(
            f"{where}: {name!r} has shape {value.shape}; the shape in this buffer is {shape}."
        )
    # Same-kind casts are allowed, and numbers to bool; floats to integers are not.
    to_bool = field.dtype == np.bool_ and value.dtype.kind in "biuf"
    if to_bool and value.dtype != np.bool_ and not ((value == 0) | (value == 1)).all():
        raise InputError(f"{where}: {name!r} is {value}; it must be 0 or 1, False or True.")
    if not to_bool and not np.can_cast(value.dtype, field.dtype, "same_kind"):
        raise InputError(
            f"{where}: {name!r} has dtype {value.dtype}, which cannot be cast to {field.dtype}, "
            "its dtype in this buffer."
        )
    if shape == () and field.dtype.kind == "f":  # a reward or a mask
        with np.errstate(over="ignore"):
            finite = np.isfinite(value.astype(field.dtype))
        if not finite:
            raise InputError(f"{where}: {name!r} is {value}; it must be a finite number.")
        if name == "masks" and not 0 <= value <= 1:
            raise InputError(f"{where}: {name!r} is {value}; it must lie in [0, 1].")
    return value


def write_rows(fields: Mapping[str, Any], values: Mapping[str, Any], rows: int | slice) -> None:
    """Write values, such as those that :func:`check_row` returns, to one row or several.

    Example:
        >>> fields = {"a": np.zeros(2)}
        >>> write_rows(fields, {"a": np.float32(3)}, 1)
        >>> fields["a"]
        array([0., 3.])
    """
    for key, field in fields.items():
        if isinstance(field, dict):
            write_rows(field, values[key], rows)
        else:
            field[rows] = values[key]


def numpy_views(storage: TensorDict) -> dict[str, Any]:
    """Return the storage as a nested dict of arrays that share its memory.

    Example:
        >>> storage = allocate({"a": FieldSpec((), np.dtype("float32"))}, 2)
        >>> numpy_views(storage)["a"][1] = 5
        >>> storage["a"]
        tensor([0., 5.])
    """
    return map_arrays(storage.to_dict(convert_tensors=False), lambda t: t.numpy())


def _tensordict() -> type[TensorDict]:
    """The class of the storage; its package imports parts of torch that need torch's cache."""
    ensure_cache()
    from tensordict import TensorDict

    return TensorDict


def _clear(folder: Path) -> None:
    """Remove an earlier storage; reject a folder with other files."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise InputError(f"The buffer's storage {folder} is a file; give a folder.")
    content = sorted(p.name for p in folder.iterdir())
    if content and (_MARKER not in content or set(content) - {_MARKER, "rows"}):
        raise InputError(
            f"The buffer's storage folder {folder} holds other files ({content[0]!r}); give an "
            "empty folder."
        )
    # Unlinked, not truncated: a mapping that is still in use stays valid.
    shutil.rmtree(folder / "rows", ignore_errors=True)


__getattr__ = moved_names(__name__)
