"""Put a transform around a function that the program has defined, and call the result."""

from __future__ import annotations

from typing import TypeGuard

from parity.conformance.bodies import Function, next_carry, total
from parity.conformance.kinds import Kind, Leaf, Tree, build, leaves, map_leaves, text_of, with_axis
from parity.conformance.text import Writer, literal


def vmapped(w: Writer, f: Function) -> Function:
    choose = w.choose
    size = choose.one_of((3, 2, 1, 4))
    name, axes, args = w.new("f"), list[str](), list[Kind]()
    for place, arg in enumerate(f.args):
        listed = [leaf for _, leaf in leaves(arg, "")]
        if not listed or (choose.chance(25) and place):
            axes.append(choose.one_of(("None", "0")) if not listed else "None")
            args.append(arg)
            continue
        keyed = any(leaf.dtype == "key" for leaf in listed)
        rank = min(len(leaf.shape) for leaf in listed)
        one = 0 if keyed else choose.one_of((0, 1, -1, -2, 0)) if rank else choose.one_of((0, -1))
        if not keyed and _has_children(arg) and choose.chance(35):  # an axis for each child
            own = [
                choose.one_of((0, -1)) if list(leaves(child, "")) else 0 for child in arg.children
            ]
            axes.append(build(arg.kind, [str(a) for a in own]))
            parts = zip(arg.children, own, strict=True)
            args.append(Tree(arg.kind, tuple(_longer(child, a, size) for child, a in parts)))
            continue
        if choose.chance(2):
            size += 1  # a mistake: another size
        axes.append(str(one))
        args.append(_longer(arg, one, size))
    if choose.chance(2):
        axes = [choose.one_of(("5", "None", "-7", "'x'")) for _ in axes]
    if choose.chance(2):
        axes.append("0")
    text = axes[0] if len(set(axes)) == 1 and choose.chance(40) else build("tuple", axes)
    options = [] if text == "0" else [f"in_axes={text}"]
    out, result = _out_axes(w, f.result, size)
    if out:
        options.append(f"out_axes={out}")
    if choose.chance(4):
        options.append(f"axis_size={choose.one_of((size, size, 7))}")
    w.line(f"{name} = xp.vmap({', '.join([f.name, *options])})")
    return Function(name, tuple(args), result)


def _out_axes(w: Writer, result: Kind, size: int) -> tuple[str, Kind]:
    choose = w.choose
    keyed = any(leaf.dtype == "key" for _, leaf in leaves(result, ""))
    ranks = [len(leaf.shape) for _, leaf in leaves(result, "")]
    if keyed or not ranks or not choose.chance(45):
        return "", map_leaves(result, lambda leaf: with_axis(leaf, 0, size))
    if choose.chance(10):
        return "None", result
    if _has_children(result) and choose.chance(60):
        own = [
            choose.one_of((0, -1, 1 if min(_ranks(c), default=0) else 0, None))
            for c in result.children
        ]
        children = tuple(
            child if a is None else _longer(child, a, size)
            for child, a in zip(result.children, own, strict=True)
        )
        return build(result.kind, [str(a) for a in own]), Tree(result.kind, children)
    low = min(ranks)
    axis = choose.one_of(
        (-1, 1 if low else 0, -2 if low else -1, *((6,) if choose.chance(5) else ()))
    )
    return str(axis), map_leaves(result, lambda leaf: with_axis(leaf, axis, size))


def _has_children(kind: Kind) -> TypeGuard[Tree]:
    """Whether the axes of a value can be given for each of its parts."""
    return isinstance(kind, Tree) and kind.kind in ("dict", "tuple", "list", "Pair")


def _longer(kind: Kind, axis: int, size: int) -> Kind:
    """The kind with one axis more in each leaf."""
    return map_leaves(kind, lambda leaf: with_axis(leaf, axis, size))


def _ranks(kind: Kind) -> list[int]:
    return [len(leaf.shape) for _, leaf in leaves(kind, "")]


def jitted(w: Writer, f: Function) -> Function:
    choose, name = w.choose, w.new("f")
    options = ""
    if w.donates and choose.chance(12):
        options = ", donate_argnums=0"
    w.line(f"{name} = xp.jit({f.name}{options})")
    return Function(name, f.args, f.result)


def differentiated(w: Writer, f: Function) -> Function:
    choose = w.choose
    floats = [
        i
        for i, arg in enumerate(f.args)
        if (found := list(leaves(arg, ""))) and all(leaf.floating for _, leaf in found)
    ]
    if not floats and not choose.chance(10):
        return jitted(w, f)
    places = floats or [0]
    chosen = choose.one_of(places)
    several = len(places) > 1 and choose.chance(40)
    aux = choose.chance(35)
    names = ", ".join(f"a{i}" for i in range(len(f.args)))
    loss, name = w.new("f"), w.new("f")
    value = total(f.result, "y")
    if choose.chance(2):
        value = "y"  # a mistake, unless it is a scalar
    aux_text, aux_kind = _aux(w, f) if aux else ("", Tree("none"))
    w.line(f"def {loss}({names}):")
    w.line(f"    y = {f.call(names.split(', '), copies=aux)}")
    w.line(f"    return {value}{', ' + aux_text if aux and not choose.chance(2) else ''}")
    both = choose.chance(45)
    argnums = (
        build("tuple", [str(p) for p in places[:2]])
        if several
        else str(chosen - len(f.args) if choose.chance(20) else chosen)
    )
    if choose.chance(1):
        argnums = "9"
    options = ([] if argnums == "0" else [f"argnums={argnums}"]) + (["has_aux=True"] if aux else [])
    transform = "value_and_grad" if both else "grad"
    w.line(f"{name} = xp.{transform}({', '.join([loss, *options])})")
    gradient: Kind = f.args[chosen]
    if several:
        gradient = Tree("tuple", tuple(f.args[p] for p in places[:2]))
    scalar: Kind = Leaf((), "float64" if w.x64 else "float32")
    if aux:
        scalar = Tree("tuple", (scalar, aux_kind))
    parts = (scalar, gradient) if both else (gradient, aux_kind) if aux else None
    return Function(name, f.args, Tree("tuple", parts) if parts else gradient)


def _aux(w: Writer, f: Function) -> tuple[str, Kind]:
    options: list[tuple[str, Kind]] = [
        ("None", Tree("none")),
        ("y", f.result),
        ("a0", f.args[0]),
        ("(a0, None)", Tree("tuple", (f.args[0], Tree("none")))),
    ]
    if w.choose.chance(10):
        options.append(("'text'", Tree("none")))
    return w.choose.one_of(options)


def scanned(w: Writer, f: Function) -> Function:
    choose = w.choose
    length = choose.one_of((2, 1, 3, 4, 0))
    step, name = w.new("f"), w.new("f")
    carry, *others = f.args
    names = ["c", *[f"x[{i}]" for i in range(len(others))]]
    w.line(f"def {step}(c, x):")
    w.line(f"    y = {f.call(names, copies=True)}")
    new = next_carry(w, carry, total(f.result, "y"))
    if choose.chance(3):
        new = choose.one_of(("y", "(c, c)", "xp.sum(1.0)", "None"))  # mistakes, most of them
    w.line(f"    return {new}, {choose.one_of(('y', 'None', 'y'))}")
    outputs = f.result
    if w.lines[-1].endswith(", None"):
        outputs = Tree("none")
    options = []
    rows = any(list(leaves(o, "")) for o in others)
    if not rows or choose.chance(15):
        options.append(f"length={length + (9 if choose.chance(3) else 0)}")
    if choose.chance(25):
        options.append("reverse=True")
    if choose.chance(10):
        options.append(f"unroll={choose.one_of((2, 3))}")
    params = ", ".join(f"a{i}" for i in range(len(f.args)))
    xs = build("tuple", [f"a{i}" for i in range(1, len(f.args))]) if others else "None"
    w.line(f"def {name}({params}):")
    w.line(f"    return xp.scan({', '.join([step, 'a0', xs, *options])})")
    long = tuple(map_leaves(o, lambda leaf: with_axis(leaf, 0, length)) for o in others)
    stacked = map_leaves(outputs, lambda leaf: with_axis(leaf, 0, length))
    return Function(name, (carry, *long), Tree("tuple", (carry, stacked)))


def call(w: Writer, f: Function, times: int = 1) -> None:
    """Write calls of a function on values of its kinds."""
    calls = []
    for _ in range(times):
        names = []
        for kind in f.args:
            name = w.new("x")
            w.line(f"{name} = {text_of(kind, lambda leaf: literal(w.choose, leaf))}")
            names.append(name)
        calls.append(f"{f.name}({', '.join(names)})")
    w.result(calls[0] if times == 1 else build("tuple", calls))
