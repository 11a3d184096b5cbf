"""Draw calls of jitted functions: static, donated and keyword arguments, numbers of every type."""

from __future__ import annotations

from parity.conformance.kinds import Leaf, build, with_axis
from parity.conformance.text import Writer, literal

STATICS = (
    "2",
    "True",
    "1.0",
    "1",
    "0.0",
    "-0.0",
    "'a'",
    "None",
    "(1, 2)",
    "False",
    "0",
    "xp.float32",
)


def draw_calls(w: Writer) -> None:
    """Static, donated and keyword arguments, numbers of every type, repeated calls."""
    choose = w.choose
    leaf = w.widen(Leaf(choose.one_of(((2,), (), (2, 3))), "float32"))
    assert isinstance(leaf, Leaf)
    match choose.below(5):
        case 0:
            _static_calls(w, leaf)
        case 1:
            _number_calls(w, leaf)
        case 2:
            _keyword_calls(w, leaf)
        case 3:
            _donating_calls(w, leaf)
        case _:
            _odd_results(w, leaf)


def _static_calls(w: Writer, leaf: Leaf) -> None:
    choose = w.choose
    f, g = w.new("f"), w.new("f")
    w.line(f"def {f}(x, mode, y=1.0):")
    w.line("    if mode == 'a': return x + y")
    w.line("    if isinstance(mode, bool): return {'flag': x * 3.0}")
    w.line("    if isinstance(mode, int): return x * mode, x[None]")
    w.line(
        "    if isinstance(mode, float): return [x / (2.0 + mode), 1.0 / xp.array(mode, 'float32')]"
    )
    w.line("    return x - y")
    options = choose.one_of(
        (
            "static_argnums=1",
            "static_argnames='mode'",
            "static_argnames=('mode',)",
            "static_argnums=-2",
            "static_argnums=(1,)",
            "static_argnums=1, static_argnames='mode'",
        )
    )
    w.line(f"{g} = xp.jit({f}, {options})")
    x = w.new("x")
    w.line(f"{x} = {literal(choose, leaf)}")
    calls = []
    modes = [choose.one_of(STATICS) for _ in range(2 + choose.below(2))]
    if choose.chance(6):
        modes.append(choose.one_of(("[1]", "np.ones(2)", "{'a': 1}")))
    for mode in modes:
        by_name = choose.chance(40)
        calls.append(
            f"{g}({x}, {'mode=' if by_name else ''}{mode}{', y=0.5' if choose.chance(20) else ''})"
        )
    w.result(build("tuple", calls))


NUMBERS = (
    "2.0",
    "3",
    "True",
    "np.float32(0.25)",
    "np.float64(0.25)",
    "np.int32(3)",
    "np.int64(3)",
    "np.bool_(True)",
    "np.array(0.25)",
    "np.array(0.25, 'float32')",
    "np.array(2)",
    "np.float16(0.5)",
    "np.array([1, 2])",
    "np.ones((2, 3))[:, 0]",
    "np.ones((0,))",
    "-0.0",
    "np.arange(6.0).reshape(2, 3).T[0]",
    "np.int8(2)",
    "np.uint8(3)",
)


def _number_calls(w: Writer, leaf: Leaf) -> None:
    """Numbers and arrays of Python and NumPy in the arguments of each transform."""
    choose = w.choose
    if len(leaf.shape) == 2:
        leaf = Leaf((2,), leaf.dtype)
    f = w.new("f")
    w.line(f"def {f}(x, s):")
    divided = f"xp.cast(s, {leaf.dtype!r}) / x"
    w.line(f"    return {choose.one_of(('x * s', 'x + s, s', 's', 's * 2, x', divided))}")
    x = w.new("x")
    w.line(f"{x} = {literal(choose, leaf)}")
    count = 1 + choose.below(3)
    numbers = [choose.one_of(NUMBERS) for _ in range(count)]
    how = choose.one_of(
        (
            f"xp.jit({f})({{x}}, {{s}})",
            f"xp.vmap({f}, in_axes=(0, None))(xp.stack([{{x}}, {{x}}]), {{s}})",
            f"xp.scan(lambda c, t: (c, {f}(t, c)), {{s}}, xp.stack([{{x}}, {{x}}]))",
            f"xp.grad(lambda a, b: xp.total({f}(a, b)))({{x}}, {{s}})",
            f"xp.grad(lambda b, a: xp.total({f}(a, b)))({{s}}, {{x}})",
            f"xp.jit(xp.vmap({f}, in_axes=(0, None)))(xp.stack([{{x}}, {{x}}]), {{s}})",
            f"xp.tree_map(lambda a: {f}({{x}}, a), {{{{'a': {{s}}}}}})",
            f"xp.jit(lambda a: {f}({{x}}, a['n'][0]))({{{{'n': [{{s}}]}}}})",
            f"xp.vmap({f})(xp.stack([{{x}}, {{x}}]), np.stack([{{s}}, {{s}}]))",
        )
    )
    w.result(build("tuple", [how.format(x=x, s=s) for s in numbers]))


def _keyword_calls(w: Writer, leaf: Leaf) -> None:
    choose = w.choose
    f, g, x = w.new("f"), w.new("f"), w.new("x")
    w.line(f"def {f}(x, *, scale, shift=0.5):")
    w.line("    return {'b': xp.sin(x) * scale, 'a': x + shift}")
    transform = choose.one_of(("jit", "vmap", "grad", "value_and_grad"))
    inner = f if "grad" not in transform else f"lambda x, **kw: xp.total({f}(x, **kw))"
    w.line(f"{g} = xp.{transform}({inner})")
    if transform == "vmap":
        leaf = with_axis(leaf, 0, 3)
    w.line(f"{x} = {literal(choose, leaf)}")
    one = literal(choose, Leaf((3,) if transform == "vmap" else (), leaf.dtype))
    if choose.chance(15):
        one = choose.one_of(("2.0", "np.float64(0.5)", "None"))
    shift = f", shift={literal(choose, leaf)}" if choose.chance(40) else ""
    w.result(f"{g}({x}, scale={one}{shift})")


def _donating_calls(w: Writer, leaf: Leaf) -> None:
    choose = w.choose
    f, g = w.new("f"), w.new("f")
    w.line(f"def {f}(state, x):")
    result = choose.one_of(
        (
            "{'n': state['n'] + 1, 'w': state['w'] * 0.5 + x}, xp.sum(x)",
            "{'n': state['n'], 'w': state['w'] + x}, state['w']",
            "{'w': x, 'n': state['n'] * 2}, x",
            "xp.tree_map(lambda t: t + 1, state), None",
        )
    )
    w.line(f"    return {result}")
    w.line(f"{g} = xp.jit({f}, donate_argnums={choose.one_of(('0', '(0,)', '(0, 1)', '-2'))})")
    state, x = w.new("x"), w.new("x")
    w.line(f"{state} = {{'n': xp.array(3, 'int32'), 'w': {literal(choose, leaf, arrays=True)}}}")
    w.line(f"{x} = {literal(choose, leaf, arrays=True)}")
    w.donated = True
    if choose.chance(50):
        w.line(f"{state} = {g}({state}, {x} + 0.0)[0]")
    again = f", {state}['w'] + 1" if choose.chance(15) else ""
    w.result(f"({g}({state}, {x} + 0.0),{again.removeprefix(',')})")


def _odd_results(w: Writer, leaf: Leaf) -> None:
    """Functions with results that are constants, arguments, text or nothing."""
    choose = w.choose
    f, x = w.new("f"), w.new("x")
    w.line(f"def {f}(x):")
    result = choose.one_of(
        (
            "x",
            "1.0",
            "None",
            "(x, 2)",
            "{'c': True, 'x': x}",
            "np.float64(0.5)",
            "np.ones(2)",
            "'text'",
            "xp.Plain(x)",
            "(x, x)",
            "xp.array([1.0], 'float32')",
            "[x[None], np.int32(3)]",
            "x * 1",
            "{'s': 'a', 'x': x}",
            "()",
        )
    )
    w.line(f"    return {result}")
    transform = choose.one_of(
        (
            f"xp.jit({f})",
            f"xp.vmap({f})",
            f"xp.vmap({f}, out_axes=-1)",
            f"xp.jit(xp.vmap({f}))",
            f"xp.vmap(xp.jit({f}), out_axes=None)",
        )
    )
    if "vmap" in transform:
        leaf = with_axis(leaf, 0, 3)
    w.line(f"{x} = {literal(choose, leaf)}")
    w.result(f"{transform}({x})")
