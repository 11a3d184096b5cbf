"""Orbax checkpoints. Needs the package ``orbax-checkpoint``, which depends on JAX.

On disk such a checkpoint is a folder: ``_METADATA`` (JSON: path and kind of each leaf),
``_sharding``, ``manifest.ocdbt`` and ``d/`` (a B-tree of Zarr arrays, compressed with zstd). An
upstream learner has about a hundred leaves such as
``score_model.opt_state.0.mu.MLP_0.Dense_0.kernel``. The only specification of this database, OCDBT,
is its implementation in the TensorStore library, and Orbax's metadata change between versions.
Reading them without Orbax would need a second implementation of both, so this module uses the
package. To avoid JAX, use Flax's msgpack (:mod:`idql_func.interop.files`).

Tested: Orbax 0.2.7 with JAX 0.4.13 and Flax 0.6.11, and Orbax 0.12.8 with JAX 0.10.2 and Flax
0.12.8. Orbax 0.5.16, which pip selects for JAX 0.4.13, fails with it (``jax.tree`` is missing).
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from idql_func.boundary import explain_module
from idql_func.files import atomic_folder
from idql_func.interop.state import from_state_dict, to_state_dict
from idql_func.types import InputError

__all__ = ["is_orbax", "restore_orbax", "save_orbax"]

T = TypeVar("T")

_MARKS = ("_METADATA", "manifest.ocdbt")
_ITEM = "default"  # the folder of a step's only item in Orbax's CheckpointManager


def save_orbax(path: str | os.PathLike[str], target: Any, overwrite: bool = False) -> Path:
    """Write a folder that Orbax can restore with upstream's learner as its item.

    Args:
        path: the folder to write, such as ``run/checkpoint_1000``; the write is atomic.
        target: a learner, a part of one, or parameters.
        overwrite: whether to replace an existing file or folder.

    Returns:
        The folder.

    Raises:
        InputError: Orbax is not installed, or the path exists and ``overwrite`` is False.
        OSError: the disk is full or the path cannot be written to.

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
        raise InputError(
            f"{path} already exists; use another path, or overwrite=True to replace it."
        )
    # Orbax also writes to a temporary folder, but removes an existing folder before it starts
    with atomic_folder(path) as temporary:
        ocp.PyTreeCheckpointer().save(temporary, _as_orbax(to_state_dict(target)))
    return path


def restore_orbax(path: str | os.PathLike[str], target: T) -> T:
    """Return ``target`` with the leaves of an Orbax checkpoint.

    Args:
        path: its folder, or the folder of one step of Orbax's ``CheckpointManager``.
        target: a learner of the same class and sizes (see :func:`from_state_dict`).

    Raises:
        FileNotFoundError: there is no Orbax checkpoint.
        InputError: Orbax is not installed, or the checkpoint does not match the target.

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
    """Whether a folder, or ``default/`` in it, has the files of an Orbax checkpoint.

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
            f"{purpose}, install orbax-checkpoint, which needs JAX ({error}); checkpoints written "
            "by flax.serialization.to_bytes need neither."
        ) from None


def _restore(ocp: Any, folder: Path) -> Any:
    """The raw tree as NumPy arrays, independent of the devices that it was saved on."""
    checkpointer = ocp.PyTreeCheckpointer()
    if not hasattr(checkpointer, "metadata"):  # Orbax 0.2 returns NumPy arrays by default
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
    """A state dict in Orbax's form: tuples as lists, nodes without leaves as None."""
    if not isinstance(state, dict):
        return state
    if not state:
        return None
    if set(state) == {str(i) for i in range(len(state))}:
        return [_as_orbax(state[str(i)]) for i in range(len(state))]
    return {name: _as_orbax(child) for name, child in state.items()}


explain_module(__name__)
