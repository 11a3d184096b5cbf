"""Draw a program from choices: nested transforms, calls of jit, scans, gradients, trees, streams.

Most programs are valid, and the drawing keeps track of shapes and dtypes to that end. Some have a
mistake in them, such as an axis that does not exist; JAX decides what is refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

from parity.conformance.bodies import define
from parity.conformance.calls import draw_calls
from parity.conformance.choices import Choices
from parity.conformance.kinds import Leaf, Tree, draw_kind, draw_leaf, text_of
from parity.conformance.streams import draw_stream_program
from parity.conformance.text import Program, Writer, literal
from parity.conformance.wrapping import call, differentiated, jitted, scanned, vmapped

FAMILIES: tuple[tuple[str, int], ...] = (
    ("nest", 44),
    ("streams", 22),
    ("calls", 12),
    ("loops", 10),
    ("gradients", 8),
    ("trees", 4),
)
"""Families of programs, and how many of a hundred programs belong to each."""


def draw_program(choose: Choices) -> Program:
    """A program made of choices."""
    name = choose.one_of([name for name, share in FAMILIES for _ in range(share)])
    writer = Writer(choose)
    writer.x64 = choose.chance(12)
    _DRAW[name](writer)
    return writer.program(name)


def program_of(seed: int) -> Program:
    """The program of a seed.

    >>> program_of(3).text == program_of(3).text
    True
    """
    return draw_program(Choices(seed))


def digest(programs: Sequence[Program]) -> str:
    """What tells a record whether the programs of its seeds are still the same."""
    return hashlib.sha256("\n".join(p.text for p in programs).encode()).hexdigest()


_WRAP = (jitted, vmapped, differentiated, scanned)


def _nest(w: Writer) -> None:
    """One to three transforms around a function."""
    choose = w.choose
    args = [draw_kind(choose, keys=True) for _ in range(1 + choose.below(3))]
    f = define(w, [w.widen(arg) for arg in args])
    for _ in range(1 + choose.below(3)):
        f = choose.one_of(_WRAP)(w, f)
    call(w, f, times=2 if choose.chance(20) else 1)


def _loops(w: Writer) -> None:
    """``scan`` in its own right: carries, lengths, directions, nesting."""
    choose = w.choose
    carry = w.widen(draw_kind(choose, keys=True, depth=1))
    rows = w.widen(draw_kind(choose, depth=1))
    f = define(w, [carry, rows])
    f = scanned(w, f)
    if choose.chance(50):
        f = choose.one_of((jitted, differentiated, vmapped))(w, f)
    call(w, f)


def _gradients(w: Writer) -> None:
    """Gradients of gradients, of several arguments, with aux, beside jit and vmap."""
    choose = w.choose
    shape = choose.one_of(((), (2,), (2, 3), (0,)))
    first = w.widen(Leaf(shape, "float32"))
    args = [first, w.widen(draw_kind(choose, depth=1))]
    if choose.chance(40):
        args.insert(0, w.widen(Tree("dict", (draw_leaf(choose), Leaf(shape, "float32")))))
    f = define(w, args)
    f = differentiated(w, f)
    for _ in range(choose.below(3)):
        f = choose.one_of((differentiated, jitted, vmapped))(w, f)
    call(w, f)


def _trees(w: Writer) -> None:
    choose = w.choose
    kind = w.widen(draw_kind(choose, depth=2))
    other = w.widen(draw_kind(choose, depth=2)) if choose.chance(15) else kind
    x, y = w.new("x"), w.new("x")
    for name, each in ((x, kind), (y, other)):
        w.line(f"{name} = {text_of(each, lambda leaf: literal(choose, leaf))}")
    w.result(
        choose.one_of(
            (
                f"xp.tree_map(lambda t: xp.stack([t, t]), {x})",
                f"xp.tree_map(lambda a, b: (a, b), {x}, {y})",
                f"xp.tree_leaves({x})",
                f"xp.tree_unflatten(xp.tree_flatten({x})[1], xp.tree_flatten({y})[0])",
                f"xp.jit(lambda t: xp.tree_map(lambda a, b: xp.stack([a, b]), t, t))({x})",
            )
        )
    )


_DRAW: dict[str, Callable[[Writer], None]] = {
    "nest": _nest,
    "streams": draw_stream_program,
    "calls": draw_calls,
    "loops": _loops,
    "gradients": _gradients,
    "trees": _trees,
}
