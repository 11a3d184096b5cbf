"""Convert learners to and from Flax's state dicts: nested dicts of NumPy arrays with Flax's names.

After ``flax.serialization.to_state_dict`` and ``from_state_dict``. A learner here and upstream's
have the same fields, parameter trees and optax states, so both are traversed in parallel.
:func:`to_state_dict` lists the differences.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from idql_func.agents.agent import Agent
from idql_func.boundary import explain_module
from idql_func.interop.flax_bytes import msgpack_restore, msgpack_serialize
from idql_func.struct import FrozenDict, PyTreeNode, TrainState, freeze
from idql_func.types import InputError

__all__ = ["from_bytes", "from_state_dict", "to_bytes", "to_state_dict"]

T = TypeVar("T")

_NAMED_PROBLEMS = 8
_NUMBERS = ("int", "float", "float | None")
_WORD = 2**32


# --- public -----------------------------------------------------------------------------------


def to_bytes(target: Any) -> bytes:
    """Serialise to bytes that ``flax.serialization.from_bytes`` reads into upstream's learner.

    Example:
        >>> from_bytes({"w": torch.zeros(2)}, to_bytes({"w": torch.ones(2)}))
        {'w': tensor([1., 1.])}
    """
    return msgpack_serialize(to_state_dict(target))


def from_bytes(target: T, data: bytes) -> T:
    """Return ``target`` with the leaves of bytes that ``flax.serialization.to_bytes`` wrote.

    Raises:
        InputError: as for :func:`from_state_dict`, or the bytes are damaged.

    Example:
        >>> from_bytes({"w": torch.zeros(2)}, b"")
        Traceback (most recent call last):
        ...
        idql_func.errors.InputError: the checkpoint must be Flax's msgpack; these 0 bytes are \
damaged, cut off or of another format: they end too early.
    """
    return from_state_dict(target, msgpack_restore(data))


def to_state_dict(target: Any) -> Any:
    """Convert to nested dicts with Flax's names: ``score_model/opt_state/0/mu/MLPResNet_0/...``.

    Args:
        target: a learner, one of its training states, parameters, or any tree of dicts, tuples,
            named tuples, tensors, numbers and None.

    Returns:
        Dicts of NumPy arrays in upstream's form: tuples are dicts with their indices as keys,
        random keys are uint32, and entries that only upstream has are added: the empty ``actor`` of
        IDQL (quirk E6) and the optimiser state None of a target network (U18). Numbers stay
        numbers. As in Flax, static fields (``T``, ``M``, objectives) are left out.

    Raises:
        InputError: a leaf has another type; the message gives its path.

    Example:
        >>> import gymnasium as gym
        >>> from idql_func.agents import TD3Learner
        >>> box = gym.spaces.Box(-1, 1, (2,))
        >>> state = to_state_dict(TD3Learner.create(0, box, box, hidden_dims=(4,)))
        >>> state["actor"]["opt_state"]["0"]["mu"]["OutputDenseMean"]["kernel"].shape
        (4, 2)
        >>> state["rng"].dtype, state["discount"], state["target_actor"]["opt_state"]
        (dtype('uint32'), 0.99, None)
    """
    return _export(target, ())


def from_state_dict(target: T, state: Any) -> T:
    """Return ``target`` with the leaves of a Flax, Orbax or :func:`to_state_dict` state dict.

    Args:
        target: a learner (or a part of one, or parameters) of the same class and sizes, as for
            Flax's function. It is not changed; the result is on its device.
        state: the state dict. Lists are treated as tuples; None, ``{}`` and a missing entry are
            all treated as a node without leaves.

    Returns:
        A new ``target``. Parameters, moments, counts, steps and keys equal the state's bit for bit.
        JAX turns hyper-parameters into float32 arrays; here they become Python numbers again: the
        target's number if it rounds to the saved one, otherwise the shortest decimal that does.

    Raises:
        InputError: leaves are missing, not expected, or have the wrong shape or dtype; the message
            gives the paths of the first eight.

    Example:
        >>> from_state_dict({"a": torch.zeros(2), "b": torch.zeros(1)}, {"a": np.zeros(3)})
        Traceback (most recent call last):
        ...
        idql_func.errors.InputError: the checkpoint does not match this dict: a has shape (3,), \
expected (2,); b is missing.
    """
    problems: list[str] = []
    result = _import(target, state, (), problems)
    if problems:
        named = "; ".join(problems[:_NAMED_PROBLEMS])
        more = len(problems) - _NAMED_PROBLEMS
        rest = f"; and {more} more like these" if more > 0 else ""
        raise InputError(
            f"the checkpoint does not match this {type(target).__name__}: {named}{rest}."
        )
    return result


# --- export -----------------------------------------------------------------------------------


def _export(node: Any, path: tuple[str, ...]) -> Any:
    if isinstance(node, PyTreeNode):
        state = {name: _export(child, (*path, name)) for name, child in _children(node)}
        if isinstance(node, Agent):
            # int64 here, since torch lacks most uint32 operations
            state["rng"] = state["rng"].astype(np.uint32)
            state.setdefault("actor", None)  # a field that upstream's IDQL inherits (quirk E6)
        if isinstance(node, TrainState) and node.tx is None:
            state["opt_state"] = None  # upstream's dummy optimiser (quirk U18)
        return state
    if isinstance(node, Mapping | tuple | list):
        return {name: _export(child, (*path, name)) for name, child in _children(node)}
    if isinstance(node, Tensor):
        return node.detach().cpu().numpy().copy()
    if node is None or isinstance(node, bool | int | float | np.ndarray | np.generic):
        return node
    raise InputError(
        f"{_where(path)} is a {type(node).__name__}; a checkpoint holds tensors, numbers and None."
    )


def _children(node: Any) -> Iterator[tuple[str, Any]]:
    """The children of a node by Flax's names."""
    if isinstance(node, PyTreeNode):
        yield from ((name, getattr(node, name)) for name in node._child_names)
    elif isinstance(node, Mapping):
        yield from ((str(name), child) for name, child in node.items())
    elif hasattr(node, "_fields"):
        yield from zip(node._fields, node, strict=True)
    else:
        yield from ((str(i), child) for i, child in enumerate(node))


# --- import -----------------------------------------------------------------------------------


class _MismatchError(Exception):
    """Says what is wrong with a part of the state; :func:`_import` adds the path."""


def _import(
    target: Any, state: Any, path: tuple[str, ...], problems: list[str], kind: str = ""
) -> Any:
    """Return ``target`` with the leaves of ``state``; append each mismatch to ``problems``.

    ``kind`` is the entry of :func:`_field_kinds` for the field.
    """
    try:
        if isinstance(target, PyTreeNode | Mapping | tuple | list):
            return _import_node(target, state, path, problems)
        if kind == "key":
            return _import_key(target, state)
        if isinstance(target, Tensor):
            return _import_tensor(target, state)
        return _import_number(target, state, kind)
    except _MismatchError as mismatch:
        problems.append(f"{_where(path)} {mismatch}")
        return target


def _import_node(node: Any, state: Any, path: tuple[str, ...], problems: list[str]) -> Any:
    if isinstance(state, list | tuple):
        state = {str(i): value for i, value in enumerate(state)}
    if state is None:
        state = {}
    if not isinstance(state, Mapping):
        raise _MismatchError(f"is {_kind(state)}, expected a dict")
    results, kinds = dict(_children(node)), _field_kinds(node)
    for name, child in results.items():
        if name in state or _is_empty(child):
            kind = kinds.get(name, "")
            results[name] = _import(child, state.get(name), (*path, name), problems, kind)
        else:
            problems.append(f"{_where((*path, name))} is missing")
    for name in state:
        if name not in results and not _is_empty(state[name]):
            problems.append(f"{_where((*path, str(name)))} is not expected")
    return _rebuilt(node, results)


def _rebuilt(node: Any, children: dict[str, Any]) -> Any:
    if isinstance(node, PyTreeNode):
        return node.replace(**children)
    if isinstance(node, Mapping):
        entries = dict(zip(node, children.values(), strict=True))
        return freeze(entries) if isinstance(node, FrozenDict) else entries
    if hasattr(node, "_fields"):
        return type(node)(**children)
    return type(node)(children.values())


def _import_tensor(tensor: Tensor, saved: Any) -> Tensor:
    array = _array(saved)
    dtype = torch.empty((), dtype=tensor.dtype).numpy().dtype
    if array is None:
        raise _MismatchError(f"is {_kind(saved)}, expected an array")
    if array.shape != tuple(tensor.shape):
        raise _MismatchError(f"has shape {array.shape}, expected {tuple(tensor.shape)}")
    # a count may have any integer type or be a Python number; float dtypes must be equal
    integers = array.dtype.kind in "iu" and dtype.kind in "iu"
    number = isinstance(saved, int | float) and array.dtype.kind in ("iu" + dtype.kind)
    if not (array.dtype == dtype or integers or number):
        raise _MismatchError(f"is {array.dtype}, expected {dtype}")
    cast = array.astype(dtype)
    if integers and (cast != array).any():
        raise _MismatchError(f"has values beyond {dtype}")
    return torch.from_numpy(cast).to(tensor.device)


def _import_key(key: Tensor, saved: Any) -> Tensor:
    array = _array(saved)
    if array is None or array.dtype.kind not in "iu" or array.shape != tuple(key.shape):
        raise _MismatchError(f"is {_kind(saved)}, expected a uint32 key {list(key.shape)}")
    words = array.astype(np.int64)
    if (words < 0).any() or (words >= _WORD).any():
        raise _MismatchError("has words that are not 32-bit unsigned integers")
    return torch.from_numpy(words).to(key.device)


def _import_number(number: Any, saved: Any, kind: str) -> Any:
    """A hyper-parameter, by the annotation of its field or by the number that is there."""
    optional = kind.endswith("None")
    if saved is None and (number is None or optional):
        return None
    array = _array(saved)
    integer = kind == "int" or (kind == "" and isinstance(number, int))
    if array is None or array.dtype.kind not in "iuf" or (number is None and not optional):
        right = "None" if number is None and not optional else "a number"
        raise _MismatchError(f"is {_kind(saved)}, expected {right}")
    if array.shape != ():
        raise _MismatchError(f"has shape {array.shape}, expected a number")
    value = array.item()
    if integer and not float(value).is_integer():
        raise _MismatchError(f"is {value}, expected an integer")
    if integer:
        return int(value)
    if array.dtype.kind != "f":
        return float(value)
    if number is not None and array.dtype.type(number) == array[()]:
        return number
    return float(str(array[()]))  # the shortest decimal that rounds to the float32


def _array(saved: Any) -> np.ndarray | None:
    if isinstance(saved, bool | int | float | np.ndarray | np.generic):
        return np.asarray(saved)
    return None


def _field_kinds(node: Any) -> dict[str, str]:
    """The annotation of each field that holds a number, and ``"key"`` for a learner's key."""
    if not isinstance(node, PyTreeNode):
        return {}
    kinds = {f.name: str(getattr(f.type, "__name__", f.type)) for f in dataclasses.fields(node)}
    kinds = {name: kind for name, kind in kinds.items() if kind in _NUMBERS}
    return {**kinds, "rng": "key"} if isinstance(node, Agent) else kinds


def _is_empty(node: Any) -> bool:
    """Whether a node has no leaves: Orbax and Flax write it as None, as ``{}`` or omit it."""
    if isinstance(node, PyTreeNode | Mapping | tuple | list):
        return all(_is_empty(child) for _, child in _children(node))
    return node is None


def _kind(saved: Any) -> str:
    if saved is None:
        return "None"
    if isinstance(saved, np.ndarray):
        return f"{saved.dtype} {list(saved.shape)}"
    return f"a {type(saved).__name__}"


def _where(path: tuple[str, ...]) -> str:
    return "/".join(path) or "its root"


explain_module(__name__)
