"""Draw the body of a function: operations on the leaves of its arguments, and its result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from parity.conformance.kinds import Kind, Leaf, Tree, build, leaves, text_of
from parity.conformance.text import Writer


@dataclass(frozen=True)
class Function:
    """A function that the program has defined: its name, its arguments and its result.

    ``writes`` says that it may write into its arguments. JAX then rebinds a local name, so that a
    function that calls it plainly and goes on with the arguments must give it copies.
    """

    name: str
    args: tuple[Kind, ...]
    result: Kind
    writes: bool = False

    def call(self, arguments: Sequence[str], copies: bool) -> str:
        """The text of a plain call."""
        if copies and self.writes:
            arguments = [f"xp.copied({argument})" for argument in arguments]
        return f"{self.name}({', '.join(arguments)})"


def _operation(w: Writer, scope: list[tuple[str, Leaf]]) -> tuple[str, Leaf] | None:
    """The text of one operation on values of the scope, and its result; None if none fits."""
    choose = w.choose
    text, leaf = choose.one_of(scope)
    if leaf.dtype == "key":
        return _draw(w, text, scope)
    if leaf.dtype == "bool":
        return choose.one_of(
            [
                (f"xp.cast({text}, 'float32')", Leaf(leaf.shape, "float32")),
                (f"~{text}", leaf),
                (
                    f"xp.where({text}, 1.5, 0.5)",
                    Leaf(leaf.shape, "float64" if w.x64 else "float32"),
                ),
            ]
        )
    alike = [t for t, other in scope if other.dtype == leaf.dtype and other.shape == leaf.shape]
    scalars = [t for t, other in scope if other.dtype == leaf.dtype and other.shape == ()]
    other = choose.one_of([*alike, *scalars])
    number = choose.one_of(("2", "3")) if not leaf.floating else choose.one_of(("2.0", "0.5", "3"))
    options: list[tuple[str, Leaf]] = [
        (f"{text} + {other}", leaf),
        (f"{text} * {other}", leaf),
        (f"{text} * {number}", leaf),
        (f"{text} - {number}", leaf),
        (f"xp.maximum({text}, {other})", leaf),
        (f"xp.where({text} > 0, {text}, {other})", leaf),
        (f"xp.sum({text})", Leaf((), leaf.dtype)),
        (f"xp.reshape({text}, (-1,))", Leaf((_size(leaf),), leaf.dtype)),
        (f"{text}[None]", Leaf((1, *leaf.shape), leaf.dtype)),
        (f"xp.stop_gradient({text})", leaf),
        (f"{text} > {other}", Leaf(leaf.shape, "bool")),
    ]
    if leaf.floating:
        options += [(f"xp.{fn}({text})", leaf) for fn in ("sin", "tanh", "softplus", "root")]
        options += _transforms_inside(w, text, leaf, other)
    else:
        options.append((f"xp.cast({text}, 'float32')", Leaf(leaf.shape, "float32")))
    if leaf.shape:
        options += [
            (f"xp.sum({text}, -1)", Leaf(leaf.shape[:-1], leaf.dtype)),
            (f"xp.flip({text})", leaf),
            (f"{text}.T", Leaf(leaf.shape[::-1], leaf.dtype)),
            (f"{text}[::2]", Leaf(((leaf.shape[0] + 1) // 2, *leaf.shape[1:]), leaf.dtype)),
            (f"xp.stack([{text}, {text}])", Leaf((2, *leaf.shape), leaf.dtype)),
        ]
        if leaf.shape[0]:
            options.append((f"{text}[-1]", Leaf(leaf.shape[1:], leaf.dtype)))
            index = [t for t, i in scope if i == Leaf((), "int32")]
            if index:
                i = f"{choose.one_of(index)} % {leaf.shape[0]}"
                options.append((f"{text}[{i}]", Leaf(leaf.shape[1:], leaf.dtype)))
    if len(leaf.shape) == 2:
        rows = Leaf((leaf.shape[0], leaf.shape[0]), leaf.dtype)
        if leaf.floating and leaf.dtype in ("float32", "float64"):
            options.append((f"{text} @ {text}.T", rows))
    return choose.one_of(options)


def _transforms_inside(w: Writer, text: str, leaf: Leaf, other: str) -> list[tuple[str, Leaf]]:
    """Transforms that the body of a function applies by itself."""
    row = Leaf(leaf.shape[1:], leaf.dtype)
    found = [
        (f"xp.grad(lambda t: xp.total(xp.sin(t) * {other}))({text})", leaf),
        (f"xp.jit(lambda t: xp.tanh(t) + {other})({text})", leaf),
    ]
    if leaf.shape == ():
        found.append((f"xp.grad(xp.grad(lambda t: xp.sin(t) * t))({text})", leaf))
    if leaf.shape and leaf.shape[0]:
        zero = f"xp.zeros({row.shape}, {leaf.dtype!r})"
        found += [
            (f"xp.vmap(lambda t: xp.sin(t) + xp.sum(t))({text})", leaf),
            (f"xp.vmap(xp.grad(lambda t: xp.total(t * t)))({text})", leaf),
            (f"xp.scan(lambda c, t: (c * 0.5 + t, c), {zero}, {text})[0]", row),
            (f"xp.scan(lambda c, t: (xp.sin(c) + t, c), {zero}, {text})[1]", leaf),
        ]
    return found


def _draw(w: Writer, key: str, scope: list[tuple[str, Leaf]]) -> tuple[str, Leaf]:
    index = [t for t, leaf in scope if leaf == Leaf((), "int32")]
    shape = w.choose.one_of(((), (2,), (2, 3)))
    size = Leaf(shape, "float64" if w.x64 else "float32")
    whole = Leaf(shape, "int64" if w.x64 else "int32")
    options = [
        (f"xp.random.normal({key}, {shape})", size),
        (f"xp.random.uniform({key}, {shape})", size),
        (f"xp.random.split({key})[1]", Leaf((2,), "key")),
        (f"xp.random.bernoulli({key}, 0.5, {shape})", Leaf(shape, "bool")),
        (f"xp.random.randint({key}, {shape}, 0, 7)", whole),
        (f"xp.random.fold_in({key}, 3)", Leaf((2,), "key")),
    ]
    if index:
        i = w.choose.one_of(index)
        options.append((f"xp.random.fold_in({key}, {i})", Leaf((2,), "key")))
        options.append((f"xp.random.PRNGKey({i})", Leaf((2,), "key")))
    return w.choose.one_of(options)


def _size(leaf: Leaf) -> int:
    size = 1
    for n in leaf.shape:
        size *= n
    return size


def define(w: Writer, args: Sequence[Kind]) -> Function:
    """Write a function of arguments of these kinds."""
    choose = w.choose
    names = [f"a{i}" for i in range(len(args))]
    scope = [found for name, kind in zip(names, args, strict=True) for found in leaves(kind, name)]
    name = w.new("f")
    w.line(f"def {name}({', '.join(names)}):")
    if not scope:
        scope = [("xp.array([0.5, 1.0], 'float32')", Leaf((2,), "float32"))]
    values = list(scope)
    mutable = [pair for pair in scope if pair[1].floating and pair[0] in names]
    writes = bool(mutable) and choose.chance(8)
    if writes:
        text, _ = choose.one_of(mutable)
        w.line(f"    {text} += 1.0")
    for _ in range(1 + choose.below(3)):
        made = _operation(w, values)
        assert made is not None
        text, leaf = made
        variable = w.new("v")
        w.line(f"    {variable} = {text}")
        values.append((variable, leaf))
    if choose.chance(2):
        read = choose.one_of([t for t, leaf in values if leaf.dtype != "key"] or ["1.0"])
        w.line(f"    {choose.one_of(_reads(read))}")
    result, out = _result(w, values)
    w.line(f"    return {result}")
    return Function(name, tuple(args), out, writes)


def _reads(text: str) -> list[str]:
    """Statements that read a traced value."""
    return [
        f"if xp.total({text}) > 0: pass",
        f"float(xp.total({text}))",
        f"{text}.item()",
        f"bool(xp.total({text}) > 1)",
        f"int(xp.total({text}))",
        f"{text}[{text} > 0]",
    ]


def total(kind: Kind, text: str) -> str:
    """The text of the sum of all leaves of a value, keys left out."""
    listed = [part for part, leaf in leaves(kind, text) if leaf.dtype != "key"]
    return f"xp.total([{', '.join(listed)}])"


def next_carry(w: Writer, kind: Kind, number: str) -> str:
    """The text of a new carry of the same kind as ``c``."""
    parts = dict(leaves(kind, "c"))
    listed = iter(parts)

    def leaf_text(leaf: Leaf) -> str:
        text = next(listed)
        if leaf.dtype == "key":
            return f"xp.random.split({text})[1]"
        return f"xp.mix({text}, {number})"

    return text_of(kind, leaf_text)


def _result(w: Writer, values: list[tuple[str, Leaf]]) -> tuple[str, Kind]:
    """A tree of values: its text and its kind."""
    choose = w.choose
    last = values[-1]
    kind = choose.one_of(("one", "dict", "tuple", "list", "Pair", "Box", "nested"))
    if kind == "one":
        return last
    second = choose.one_of(values[::-1])
    parts: list[tuple[str, Kind]] = [last, second]
    if kind == "nested":
        inner = build("tuple", [second[0], "None"])
        parts = [last, (inner, Tree("tuple", (second[1], Tree("none"))))]
        kind = "dict"
    return build(kind, [t for t, _ in parts]), Tree(kind, tuple(k for _, k in parts))
