"""Orbax checkpoints, where the package ``orbax-checkpoint`` (and with it JAX) is installed.

On disk such a checkpoint is a folder: ``_METADATA`` (JSON: path and kind of each leaf),
``_sharding``, ``manifest.ocdbt`` and ``d/`` (a B-tree of Zarr arrays, compressed with zstd), for
upstream's learner some hundred leaves such as ``score_model.opt_state.0.mu.MLP_0.Dense_0.kernel``.
That database, OCDBT, is specified by its one implementation, the TensorStore library, and Orbax's
own metadata change from version to version; to read them without Orbax would be a second
implementation of both, so this module needs the package. The way without JAX is Flax's msgpack
(:mod:`idql_func.interop.files`).

Seen to work: Orbax 0.2.7 beside JAX 0.4.13 and Flax 0.6.11, and Orbax 0.12.8 beside JAX 0.10.2 and
Flax 0.12.8. Orbax 0.5.16, which pip picks beside JAX 0.4.13, fails there (``jax.tree`` is missing).
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from idql_func.atomic import atomic_folder
from idql_func.interop.state import from_state_dict, to_state_dict
from idql_func.types import InputError

__all__ = ["is_orbax", "restore_orbax", "save_orbax"]

T = TypeVar("T")

_MARKS = ("_METADATA", "manifest.ocdbt")
_ITEM = "default"  # where Orbax's CheckpointManager puts a step's one item


def save_orbax(path: str | os.PathLike[str], target: Any, overwrite: bool = False) -> Path:
    """Write the folder that Orbax, given upstream's learner as its item, restores.

    Args:
        path: the folder to make, such as ``run/checkpoint_1000``; it appears whole or not at all.
        target: a learner, a part of one, or parameters.
        overwrite: replace what is there.

    Returns:
        The folder.

    Raises:
        InputError: Orbax is not installed, or the folder is there already.
        OSError: the disk is full or the place cannot be written to.

    Example:
        >>> import tempfile, torch
        >>> with tempfile.TemporaryDirectory() as folder:  # doctest: +SKIP
        ...     path = save_orbax(f"{folder}/checkpoint_1", {"w": torch.ones(2)})
        ...     restore_orbax(path, {"w": torch.zeros(2)})
        {'w': tensor([1., 1.])}
    """
    ocp = _orbax("to write an Orbax checkpoint")
    path = Path(path).absolute()
    if path.exists() and not overwrite:
        raise InputError(f"{path} is there already; take another, or overwrite=True to replace it.")
    # Orbax too writes beside the place and renames, but removes an old folder before it begins
    with atomic_folder(path) as temporary:
        ocp.PyTreeCheckpointer().save(temporary, _as_orbax(to_state_dict(target)))
    return path


def restore_orbax(path: str | os.PathLike[str], target: T) -> T:
    """``target`` with the leaves of an Orbax checkpoint.

    Args:
        path: its folder, or that of a step of Orbax's ``CheckpointManager``.
        target: a learner of the same class and sizes (see :func:`from_state_dict`).

    Raises:
        FileNotFoundError: there is nothing of Orbax's.
        InputError: Orbax is not installed, or the checkpoint does not fit the target.

    Example:
        >>> restore_orbax("/no/such/run", {})
        Traceback (most recent call last):
        ...
        FileNotFoundError: there is no Orbax checkpoint at /no/such/run
    """
    path = Path(path).absolute()
    folder = path / _ITEM if is_orbax(path / _ITEM) else path
    if not (is_orbax(folder) or (folder / "checkpoint").is_file()):
        raise FileNotFoundError(f"there is no Orbax checkpoint at {path}")
    ocp = _orbax(f"to read the Orbax checkpoint {path}")
    return from_state_dict(target, _restore(ocp, folder))


def is_orbax(path: str | os.PathLike[str]) -> bool:
    """Whether a folder looks like one that Orbax wrote, itself or in ``default/``.

    >>> is_orbax("/no/such/folder")
    False
    """
    folder = Path(path)
    return any((place / mark).is_file() for place in (folder, folder / _ITEM) for mark in _MARKS)


def _orbax(purpose: str) -> Any:
    try:
        return importlib.import_module("orbax.checkpoint")
    except ImportError as error:
        raise InputError(
            f"{purpose}, install orbax-checkpoint, which needs JAX ({error}); a checkpoint that "
            "flax.serialization.to_bytes wrote is read without either."
        ) from None


def _restore(ocp: Any, folder: Path) -> Any:
    """The raw tree as NumPy arrays, on the devices of whatever machine it was saved on."""
    checkpointer = ocp.PyTreeCheckpointer()
    if not hasattr(checkpointer, "metadata"):  # Orbax 0.2 gives NumPy arrays of itself
        return _as_numpy(checkpointer.restore(folder))
    import jax  # pyright: ignore[reportMissingImports]

    metadata = checkpointer.metadata(folder)
    metadata = getattr(metadata, "item_metadata", metadata)
    tree = getattr(metadata, "tree", metadata)
    as_numpy = jax.tree_util.tree_map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
    return _as_numpy(checkpointer.restore(folder, restore_args=as_numpy))


def _as_numpy(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {name: _as_numpy(child) for name, child in tree.items()}
    if isinstance(tree, list | tuple):
        return [_as_numpy(child) for child in tree]
    return tree if tree is None or isinstance(tree, bool | int | float) else np.asarray(tree)


def _as_orbax(state: Any) -> Any:
    """A state dict as Orbax files a learner: tuples as lists, nodes without leaves as None."""
    if not isinstance(state, dict):
        return state
    if not state:
        return None
    if set(state) == {str(i) for i in range(len(state))}:
        return [_as_orbax(state[str(i)]) for i in range(len(state))]
    return {name: _as_orbax(child) for name, child in state.items()}
