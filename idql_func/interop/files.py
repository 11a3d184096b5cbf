"""Find, read and write Flax's checkpoint files, as ``flax.training.checkpoints`` does.

A folder holds ``checkpoint_1000``, ``checkpoint_2000``, ...: each is a file in Flax's msgpack
format, or a folder written by Orbax, Flax's default since version 0.6.10. Orbax 0.2, which is used
with JAX 0.4.13, writes all arrays of such a checkpoint into one msgpack file in that folder; this
module reads it without JAX. Later versions write a database: see :mod:`idql_func.interop.orbax`.
"""

from __future__ import annotations

import operator
import os
import re
from pathlib import Path
from typing import Any, TypeVar

from idql_func.boundary import explain_module
from idql_func.files import read_bytes, write_bytes
from idql_func.interop.flax_bytes import msgpack_restore
from idql_func.interop.orbax import is_orbax, restore_orbax
from idql_func.interop.state import from_state_dict, to_bytes
from idql_func.tree import tree_leaves
from idql_func.types import InputError

__all__ = ["latest_checkpoint", "restore_checkpoint", "save_checkpoint"]

T = TypeVar("T")

_WHAT = "a checkpoint of Flax or Orbax"
_AGGREGATE = "checkpoint"
_PLACEHOLDER = "PLACEHOLDER://"


def save_checkpoint(
    ckpt_dir: str | os.PathLike[str],
    target: Any,
    step: int,
    prefix: str = "checkpoint_",
    overwrite: bool = False,
) -> Path:
    """Write ``<ckpt_dir>/<prefix><step>`` for ``flax.training.checkpoints.restore_checkpoint``.

    The write is atomic. No other checkpoint is removed: there is no counterpart of Flax's ``keep``.

    Args:
        ckpt_dir: the folder; created if it does not exist.
        target: a learner, a part of one, or parameters.
        step: the number in the file's name; the largest number is the latest checkpoint.
        prefix: the part of the name before the number.
        overwrite: whether to replace an existing file.

    Returns:
        The file's path.

    Raises:
        InputError: a checkpoint of this step exists and is a folder or ``overwrite`` is False, or
            the step is no number, or the prefix no part of a file's name.
        OSError: the disk is full or the folder cannot be written to.

    Example:
        >>> import tempfile, torch
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = save_checkpoint(folder, {"w": torch.ones(2)}, step=9)
        ...     path = save_checkpoint(folder, {"w": torch.ones(2)}, step=10)
        ...     path.name, restore_checkpoint(folder, {"w": torch.zeros(2)})
        ('checkpoint_10', {'w': tensor([1., 1.])})
    """
    path = Path(ckpt_dir) / _name_of(step, prefix)
    if path.is_dir() or (path.exists() and not overwrite):
        raise InputError(
            f"{path} already exists; use another step, or overwrite=True to replace a file."
        )
    payload = to_bytes(target)
    write_bytes(path, payload)
    return path


def restore_checkpoint(
    ckpt_dir: str | os.PathLike[str],
    target: T,
    step: int | None = None,
    prefix: str = "checkpoint_",
) -> T:
    """Return ``target`` with the leaves of a checkpoint that Flax, Orbax or this module wrote.

    Args:
        ckpt_dir: a folder of checkpoints, or one checkpoint: a file, or a folder written by Orbax.
        target: a learner of the same class and sizes (see :func:`from_state_dict`).
        step: the number of the checkpoint in the folder; default: the largest.
        prefix: the part of the names before the number.

    Raises:
        FileNotFoundError: there is no such checkpoint. (Flax returns its target unchanged.)
        InputError: the checkpoint does not match the target, is damaged, or is in Orbax's database
            format and Orbax is not installed.

    Example:
        >>> restore_checkpoint("/no/such/run", {})
        Traceback (most recent call last):
        ...
        FileNotFoundError: there is no checkpoint at /no/such/run
    """
    path = _find(Path(ckpt_dir), step, prefix)
    if path.is_file():
        return from_state_dict(target, msgpack_restore(read_bytes(path, _WHAT)))
    aggregate = path / _AGGREGATE
    if aggregate.is_file():
        state = msgpack_restore(read_bytes(aggregate, _WHAT))
        if not _has_placeholders(state):
            return from_state_dict(target, state)
    return restore_orbax(path, target)


def latest_checkpoint(ckpt_dir: str | os.PathLike[str], prefix: str = "checkpoint_") -> Path | None:
    """The checkpoint with the largest number in a folder, or None; ignores partial files.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("checkpoint_9", "checkpoint_10", "checkpoint_11.orbax-tmp"):
        ...         (Path(folder) / name).touch()
        ...     latest_checkpoint(folder).name
        'checkpoint_10'
    """
    folder = Path(ckpt_dir)
    pattern = re.compile(re.escape(prefix) + r"(-?\d+(?:\.\d+)?)")
    found = [
        (float(match[1]), path)
        for path in (folder.iterdir() if folder.is_dir() else ())
        if (match := pattern.fullmatch(path.name))
    ]
    return max(found, key=lambda entry: entry[0])[1] if found else None


def _find(path: Path, step: int | None, prefix: str) -> Path:
    if step is not None:
        path = path / _name_of(step, prefix)
    if path.is_file() or (path / _AGGREGATE).is_file() or is_orbax(path):
        return path
    found = latest_checkpoint(path, prefix) if step is None else None
    if found is None:
        what = f" (a file or folder {prefix}<number>)" if path.is_dir() else ""
        raise FileNotFoundError(f"there is no checkpoint at {path}{what}")
    return found


def _name_of(step: Any, prefix: str) -> str:
    """The name of a checkpoint's file. It cannot lead out of the folder."""
    try:
        number = step if isinstance(step, float) else operator.index(step)
    except TypeError:
        number = -1
    if not 0 <= number < float("inf"):
        raise InputError(f"step is {step!r}, but must be a number, 0 or more.")
    if not isinstance(prefix, str) or set(prefix) & set("/\\\0"):
        raise InputError(f"prefix is {prefix!r}, but must be the beginning of a file's name.")
    return f"{prefix}{number}"


def _has_placeholders(state: Any) -> bool:
    """Whether Orbax stored arrays outside the msgpack file, in separate folders."""
    leaves = tree_leaves(state)
    return any(isinstance(leaf, str) and leaf.startswith(_PLACEHOLDER) for leaf in leaves)


explain_module(__name__)
