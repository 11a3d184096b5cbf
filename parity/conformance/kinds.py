"""What a drawn program knows of its values: the shape and dtype of each leaf, and the tree."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from parity.conformance.choices import Choices

SHAPES = ((2,), (), (3,), (2, 3), (1,), (0,), (3, 2), (2, 1))
DTYPES = ("float32",) * 6 + ("int32",) * 2 + ("bool",)
NARROW = ("float16", "int8", "uint8", "int16", "bfloat16")
"""Dtypes that are drawn now and then."""


@dataclass(frozen=True)
class Leaf:
    """An array. The dtype ``key`` is a key of random numbers, whose shape has a last axis of 2."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def floating(self) -> bool:
        """Whether it can be differentiated."""
        return "float" in self.dtype


@dataclass(frozen=True)
class Tree:
    """A container: dict, tuple, list, None, Pair (named tuple) or Box (registered dataclass)."""

    kind: str
    children: tuple[Kind, ...] = ()


Kind: TypeAlias = "Leaf | Tree"

NAMES = {"dict": ("a", "b"), "Pair": ("first", "second"), "Box": ("left", "right")}


def draw_leaf(choose: Choices, keys: bool = False) -> Leaf:
    """A random leaf."""
    if keys and choose.chance(18):
        return Leaf((2,), "key")
    shape = choose.one_of(SHAPES)
    if choose.chance(6):
        return Leaf(shape, choose.one_of(NARROW))
    return Leaf(shape, choose.one_of(DTYPES))


def draw_kind(choose: Choices, keys: bool = False, depth: int = 2) -> Kind:
    """A random leaf or tree."""
    if depth == 0 or not choose.chance(45):
        return draw_leaf(choose, keys)
    kind = choose.one_of(("dict", "tuple", "list", "Pair", "Box", "none"))
    if kind == "none":
        return Tree("none")
    count = choose.one_of((2, 1)) if kind in ("dict", "tuple", "list") else 2
    return Tree(kind, tuple(draw_kind(choose, keys, depth - 1) for _ in range(count)))


def build(kind: str, parts: list[str]) -> str:
    """The text that builds a container of some parts."""
    match kind:
        case "none":
            return "None"
        case "dict":
            pairs = zip(NAMES["dict"], parts, strict=False)
            return "{" + ", ".join(f"{name!r}: {part}" for name, part in pairs) + "}"
        case "tuple":
            return "(" + ", ".join(parts) + ("," if len(parts) == 1 else "") + ")"
        case "list":
            return "[" + ", ".join(parts) + "]"
        case _:
            return f"xp.{kind}({', '.join(parts)})"


def leaves(kind: Kind, text: str) -> Iterator[tuple[str, Leaf]]:
    """The text of each leaf of a value, and the leaf."""
    if isinstance(kind, Leaf):
        yield text, kind
        return
    for place, child in enumerate(kind.children):
        if kind.kind in ("Pair", "Box"):
            yield from leaves(child, f"{text}.{NAMES[kind.kind][place]}")
        else:
            index = repr(NAMES["dict"][place]) if kind.kind == "dict" else place
            yield from leaves(child, f"{text}[{index}]")


def map_leaves(kind: Kind, fn: Callable[[Leaf], Leaf]) -> Kind:
    """The same tree of other leaves."""
    if isinstance(kind, Leaf):
        return fn(kind)
    return Tree(kind.kind, tuple(map_leaves(child, fn) for child in kind.children))


def text_of(kind: Kind, fn: Callable[[Leaf], str]) -> str:
    """The text of a tree whose leaves are given by ``fn``."""
    if isinstance(kind, Leaf):
        return fn(kind)
    return build(kind.kind, [text_of(child, fn) for child in kind.children])


def with_axis(leaf: Leaf, axis: int, size: int) -> Leaf:
    """The leaf with one axis more; of a key, the axis is one of the batch."""
    rank = len(leaf.shape) + 1
    place = axis % rank
    shape = list(leaf.shape)
    shape.insert(place, size)
    return Leaf(tuple(shape), leaf.dtype)
