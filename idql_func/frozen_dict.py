"""An immutable nested dict that is a pytree, after ``flax.core.FrozenDict``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NoReturn, TypeVar

import optree
from torch import Tensor

from idql_func.tree import NAMESPACE

__all__ = ["FrozenDict", "freeze", "unfreeze"]

K = TypeVar("K")
V = TypeVar("V")


class FrozenDict(Mapping[K, V]):
    """A nested dict that can't be changed (``flax.core.FrozenDict``).

    It stands wherever a dict of parameters does. It is a node of pytrees of its own: a tree with
    one does not map together with one that has a dict there.

    >>> params = FrozenDict({"Dense_0": {"bias": 1.0}})
    >>> params.copy({"scale": 2.0}).unfreeze()
    {'Dense_0': {'bias': 1.0}, 'scale': 2.0}
    >>> params["Dense_0"]["bias"] = 0.0
    Traceback (most recent call last):
    ...
    ValueError: FrozenDict: it can't be changed: write d.copy({'bias': value}).
    """

    __slots__ = ("_dict", "_hash")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._dict: dict[Any, Any] = {k: _thawed(v) for k, v in dict(*args, **kwargs).items()}
        self._hash: int | None = None

    @classmethod
    def _of(cls, entries: dict[Any, Any]) -> FrozenDict[Any, Any]:
        """One of these entries, which nobody else has."""
        made = object.__new__(cls)
        made._dict, made._hash = entries, None
        return made

    def __getitem__(self, key: Any) -> Any:
        value = self._dict[key]
        return FrozenDict(value) if isinstance(value, dict) else value

    def __iter__(self) -> Iterator[Any]:
        return iter(self._dict)

    def __len__(self) -> int:
        return len(self._dict)

    def __contains__(self, key: object) -> bool:
        return key in self._dict

    def __setitem__(self, key: Any, value: Any) -> NoReturn:
        raise ValueError(f"FrozenDict: it can't be changed: write d.copy({{{key!r}: value}}).")

    def __delitem__(self, key: Any) -> NoReturn:
        raise ValueError(f"FrozenDict: it can't be changed: write d.pop({key!r}).")

    def __eq__(self, other: object) -> bool:
        """Whether both hold equal entries; a dict with these entries is equal too.

        Raises:
            ValueError: tensors of several numbers would have to be compared.
        """
        if not isinstance(other, Mapping):
            return NotImplemented
        try:
            return self._dict == _thawed(other)
        except RuntimeError:
            raise ValueError(
                "FrozenDict: tensors of several numbers have no single truth value: compare the "
                "leaves, such as with tree_map(torch.equal, a, b)."
            ) from None

    def __hash__(self) -> int:
        """A hash of the entries in any order.

        Raises:
            TypeError: a leaf can't be hashed, such as a tensor.
        """
        if self._hash is None:
            total = 0
            for key, value in self.items():
                if isinstance(value, Tensor):  # it compares by value, and hashes by identity
                    raise TypeError(f"FrozenDict: the tensor {key!r} can't be hashed.")
                total ^= hash((key, value))
            self._hash = total
        return self._hash

    def __reduce__(self) -> tuple[Any, ...]:
        return FrozenDict, (self.unfreeze(),)

    def __repr__(self) -> str:
        return self.pretty_repr()

    def pretty_repr(self, num_spaces: int = 4) -> str:
        """The entries, one in a line and indented."""
        return f"FrozenDict({_pretty(self._dict, ' ' * num_spaces)})"

    def copy(self, add_or_replace: Mapping[Any, Any] | None = None) -> FrozenDict[Any, Any]:
        """A new one with further or other entries."""
        return FrozenDict({**self._dict, **_thawed(add_or_replace or {})})

    def pop(self, key: Any) -> tuple[FrozenDict[Any, Any], Any]:
        """A new one without an entry, and the entry.

        Raises:
            KeyError: there is no such entry.
        """
        value = self[key]
        return FrozenDict({k: v for k, v in self._dict.items() if k != key}), value

    def unfreeze(self) -> dict[Any, Any]:
        """A new nested dict of the entries, with sorted keys as Flax's."""
        return _sorted(self._dict)


def freeze(xs: Mapping[Any, Any]) -> FrozenDict[Any, Any]:
    """Make a nested dict immutable (``flax.core.freeze``).

    Raises:
        TypeError: it is no mapping.

    >>> freeze({"a": {"b": 1}})["a"]
    FrozenDict({
        b: 1,
    })
    """
    _check_mapping("freeze", xs)
    return FrozenDict(xs)


def unfreeze(x: Mapping[Any, Any]) -> dict[Any, Any]:
    """A new nested dict of the entries of a frozen one or of a dict (``flax.core.unfreeze``).

    Raises:
        TypeError: it is no mapping.

    >>> unfreeze(freeze({"a": {"b": 1}}))
    {'a': {'b': 1}}
    """
    _check_mapping("unfreeze", x)
    if isinstance(x, FrozenDict):
        return x.unfreeze()
    return {k: unfreeze(v) if isinstance(v, Mapping) else v for k, v in x.items()}


def _check_mapping(name: str, value: Any) -> None:
    if not isinstance(value, Mapping):
        raise TypeError(f"{name}: give a nested dict, got a {type(value).__name__}.")


def _thawed(value: Any) -> Any:
    """A copy whose dicts, at any depth, are plain and new."""
    if isinstance(value, FrozenDict):
        value = value._dict
    if not isinstance(value, dict):
        return value
    return {k: _thawed(v) for k, v in value.items()}


def _sorted(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {k: _sorted(value[k]) for k in sorted(value)}


def _pretty(value: Any, indent: str) -> str:
    if not isinstance(value, dict):
        return repr(value)
    lines = [f"{k}: {_pretty(v, indent)},".replace("\n", f"\n{indent}") for k, v in value.items()]
    return "{\n" + "".join(f"{indent}{line}\n" for line in lines) + "}" if lines else "{}"


def _flatten(
    tree: FrozenDict[Any, Any],
) -> tuple[tuple[Any, ...], tuple[Any, ...], tuple[Any, ...]]:
    keys = tuple(sorted(tree._dict))
    return tuple(tree._dict[k] for k in keys), keys, keys


def _unflatten(keys: tuple[Any, ...], values: Any) -> FrozenDict[Any, Any]:
    return FrozenDict._of(dict(zip(keys, values, strict=True)))


_register: Any = optree.register_pytree_node  # typed for collections alone
_register(FrozenDict, _flatten, _unflatten, namespace=NAMESPACE)
