"""Programs that draw random numbers, with ordinary and extreme arguments, in both layouts."""

from __future__ import annotations

from collections.abc import Callable

from parity.conformance.choices import Choices
from parity.conformance.text import Writer

SHAPES = ("(2,)", "()", "(3,)", "(2, 3)", "(0,)", "(7,)", "(33,)", "(4, 0, 2)", "(1, 1)")
SEEDS = (
    "0",
    "1",
    "42",
    "2**31 - 1",
    "2**31",
    "2**32 - 1",
    "-1",
    "-7",
    "2**40 + 3",
    "np.int32(5)",
    "np.int64(-3)",
    "np.uint32(9)",
    "True",
    "1.5",
    "xp.array(4, 'int32')",
)
_TWO_SEEDS = "xp.array([5, -1], 'int32')"
FLOATS = ("", "xp.float32", "xp.float16", "xp.bfloat16", "xp.float64", "xp.int32")
BOUNDS = (
    "0.0",
    "1.0",
    "-1.0",
    "0.5",
    "2.5",
    "3.0",
    "-8.0",
    "-6.0",
    "1e-30",
    "1e38",
    "-1e38",
    "4",
    "-2",
    "100.0",
    "1e-3",
)


def draw_stream_program(w: Writer) -> None:
    """Write a program that draws numbers from a key."""
    w.x64 = w.x64 or w.choose.chance(20)
    w.partitionable = not w.choose.chance(45)
    name = w.choose.one_of([*_DRAWS])
    call, w.bound = _DRAWS[name](w.choose)
    key = _key(w.choose) if not call.startswith("xp.random.PRNGKey") else ""
    if "{key}" not in call:
        w.result(call)
        return
    w.line(f"key = {key}")
    match w.choose.below(8):
        case 4:
            w.result(f"xp.jit(lambda k: {call.format(key='k')})(key)")
        case 5:
            w.result(f"xp.vmap(lambda k: {call.format(key='k')})(xp.random.split(key, 3))")
        case 6:
            w.result(f"xp.jit(xp.vmap(lambda k: {call.format(key='k')}))(xp.random.split(key, 2))")
        case _:
            w.result(call.format(key="key"))


def _key(c: Choices) -> str:
    if c.chance(8):
        return c.one_of(
            (
                "xp.random.key(3)",
                "xp.random.key(0)",
                "np.zeros(2, 'uint32')",
                "xp.random.split(xp.random.PRNGKey(0), 2)",
                "xp.random.split(xp.random.key(1), 3)[1]",
            )
        )
    return f"xp.random.PRNGKey({c.one_of(('0', '1', '7', '123456789', '2**32 - 5'))})"


def _shape(c: Choices) -> str:
    return c.one_of(("-1", "(2, -1)", "3", "[2]", "(2.0,)")) if c.chance(3) else c.one_of(SHAPES)


def _dtype(c: Choices) -> str:
    dtype = c.one_of(FLOATS) if c.chance(30) else ""
    return f", dtype={dtype}" if dtype else ""


def _bound(c: Choices) -> str:
    if c.chance(6):
        return c.one_of(("np.inf", "-np.inf", "np.nan"))
    return c.one_of(BOUNDS)


def _seeded(c: Choices) -> tuple[str, str]:
    if c.chance(30):
        return (
            f"xp.jit(xp.random.PRNGKey)({c.one_of(('3', 'np.int32(3)', '-1', '2**31'))})",
            "equal",
        )
    if c.chance(30):
        return (
            f"xp.vmap(xp.random.PRNGKey)({c.one_of(('np.arange(3)', _TWO_SEEDS))})",
            "equal",
        )
    return f"xp.random.{c.one_of(('PRNGKey', 'PRNGKey', 'key_bits'))}({c.one_of(SEEDS)})", "equal"


def _split(c: Choices) -> tuple[str, str]:
    options = (
        "",
        ", 1",
        ", 3",
        ", 0",
        ", (2, 3)",
        ", (3,)",
        ", ()",
        ", -1",
        ", np.int64(2)",
        ", 2.0",
    )
    return f"xp.random.split({{key}}{c.one_of(options)})", "equal"


def _fold(c: Choices) -> tuple[str, str]:
    data = (
        "0",
        "1",
        "7",
        "2**31",
        "2**32 - 1",
        "-1",
        "np.int32(4)",
        "np.uint32(2**32 - 1)",
        "xp.array(3, 'int32')",
        "2**33",
        "1.0",
        "True",
        "np.int64(2)",
        "xp.array([1, 2], 'int32')",
    )
    return f"xp.random.fold_in({{key}}, {c.one_of(data)})", "equal"


def _bits(c: Choices) -> tuple[str, str]:
    dtype = ("", "xp.uint8", "xp.uint16", "xp.uint32", "xp.uint64", "xp.int32", "xp.float32")
    chosen = c.one_of(dtype) if c.chance(40) else ""
    return f"xp.random.bits({{key}}, {_shape(c)}{', ' + chosen if chosen else ''})", "equal"


def _uniform(c: Choices) -> tuple[str, str]:
    bounds = ""
    if c.chance(60):
        bounds = f", minval={_bound(c)}, maxval={_bound(c)}"
    if c.chance(25):
        low = "xp.array([0.0, 1.0, -2.0], 'float32')"
        bounds = f", minval={low}, maxval={c.one_of(('5.0', '-3.0', '0.5'))}"
        return f"xp.random.uniform({{key}}, (2, 3){_dtype(c)}{bounds})", "equal"
    return f"xp.random.uniform({{key}}, {_shape(c)}{_dtype(c)}{bounds})", "equal"


def _normal(c: Choices) -> tuple[str, str]:
    return f"xp.random.normal({{key}}, {_shape(c)}{_dtype(c)})", "ulp"


def _truncated(c: Choices) -> tuple[str, str]:
    low, high = _bound(c), _bound(c)
    if c.chance(10):
        low = "xp.array([-1.0, 2.0], 'float32')"
        return f"xp.random.truncated_normal({{key}}, {low}, 4.0, (2,))", "ulp"
    return f"xp.random.truncated_normal({{key}}, {low}, {high}, {_shape(c)}{_dtype(c)})", "ulp"


def _randint(c: Choices) -> tuple[str, str]:
    bounds = (
        "0",
        "10",
        "1",
        "-5",
        "255",
        "256",
        "2**31 - 1",
        "-2**31",
        "2**31",
        "1000000",
        "-1",
        "2**32",
        "2**40",
        "-2**63",
        "2**63 - 1",
        "np.int32(6)",
        "1.5",
        "xp.array([0, 3], 'int32')",
    )
    low, high = c.one_of(bounds), c.one_of(bounds)
    if c.chance(25):  # a bound one above the largest value of the dtype includes that value
        bits, narrow = c.one_of(((7, "int8"), (15, "int16"), (31, "int32"), (32, "uint32")))
        low = c.one_of((low, "xp.array([0, 3], 'int32')"))
        return f"xp.random.randint({{key}}, (2,), {low}, 2**{bits}, xp.{narrow})", "equal"
    dtype = (
        "",
        "",
        "xp.int32",
        "xp.uint8",
        "xp.int8",
        "xp.int16",
        "xp.int64",
        "xp.uint32",
        "xp.uint16",
        "xp.float32",
    )
    chosen = c.one_of(dtype)
    shape = "(2,)" if "array" in low + high else _shape(c)
    return (
        f"xp.random.randint({{key}}, {shape}, {low}, {high}{', ' + chosen if chosen else ''})",
        "equal",
    )


def _bernoulli(c: Choices) -> tuple[str, str]:
    p = (
        "0.5",
        "0.0",
        "1.0",
        "0.25",
        "1.5",
        "-1.0",
        "np.nan",
        "np.float64(0.3)",
        "xp.array([0.1, 0.9], 'float32')",
        "1",
        "np.array([0.2, 0.5])",
        "xp.array(0.5, 'float16')",
    )
    chosen = c.one_of(p)
    shape = (
        c.one_of(("", ", (2,)", ", (3, 2)", ", (5,)")) if "array" in chosen else f", {_shape(c)}"
    )
    return f"xp.random.bernoulli({{key}}, {chosen}{shape})", "equal"


_ARRAYS = (
    "xp.array([1.0, 2.0, 3.0, 4.0], 'float32')",
    "xp.array([0, 1, 2, 3, 4, 5], 'int32', (3, 2))",
    "np.arange(5)",
    "np.arange(6.0).reshape(2, 3)",
    "xp.array(2, 'int32')",
    "xp.array([True, False, True], 'bool')",
    "xp.zeros((0, 2), 'float32')",
    "xp.arange(40)",
)


def _permutation(c: Choices) -> tuple[str, str]:
    x = c.one_of(("5", "1", "0", "33", "-1", "100", *_ARRAYS, "2.5"))
    options = c.one_of(
        (
            "",
            "",
            ", axis=0",
            ", axis=1",
            ", axis=-1",
            ", independent=True",
            ", 1, independent=True",
            ", axis=5",
        )
    )
    return f"xp.random.permutation({{key}}, {x}{options})", "equal"


def _choice(c: Choices) -> tuple[str, str]:
    a = c.one_of(("5", "1", "0", "33", *_ARRAYS, "np.int64(4)"))
    options = f", {_shape(c)}" if c.chance(75) else ""
    if c.chance(40):
        options += ", replace=False"
    if c.chance(35):
        length = c.one_of(("5", "4", "3"))
        a = c.one_of((length, f"np.arange({length})"))
        options += f", p={_weights(c, int(length))}"
    if c.chance(12):
        options += f", axis={c.one_of(('0', '1', '-1', '5'))}"
    return f"xp.random.choice({{key}}, {a}{options})", "equal"


def _weights(c: Choices, count: int) -> str:
    numbers = [c.one_of(("0.2", "0.1", "1.0", "0.0", "3.0")) for _ in range(count)]
    if c.chance(20):
        numbers[-1] = c.one_of(("np.nan", "np.inf", "-0.5"))
    if c.chance(10):
        numbers = ["0.0"] * count
    listed = f"[{', '.join(numbers)}]"
    return c.one_of(
        (
            f"xp.array({listed}, 'float32')",
            f"np.array({listed})",
            f"np.array({listed}, 'float32')",
            f"np.array({list(range(1, count + 1))})",
        )
    )


def _categorical(c: Choices) -> tuple[str, str]:
    logits = c.one_of(
        (
            "xp.array([0.5, 1.0, -1.0], 'float32')",
            "xp.array([0.0, 1.0, 2.0, -1.0, 0.5, 3.0], 'float32', (2, 3))",
            "np.array([0.1, 0.2, 0.7])",
            "xp.array([1, 2, 3], 'int32')",
            "xp.array([0.0, -np.inf, 1.0], 'float32')",
            "xp.array([np.nan, 0.0], 'float32')",
            "xp.array([-np.inf, -np.inf], 'float32')",
            "xp.zeros((2, 0), 'float32')",
            "xp.array([0.5, 1.0], 'float16')",
        )
    )
    options = c.one_of(
        (
            "",
            ", axis=0",
            ", axis=-1",
            ", axis=5",
            ", shape=(4,)",
            ", axis=0, shape=(3,)",
            ", shape=(5, 2)",
        )
    )
    return f"xp.random.categorical({{key}}, {logits}{options})", "equal"


def _gumbel(c: Choices) -> tuple[str, str]:
    return f"xp.random.gumbel({{key}}, {_shape(c)}{_dtype(c)})", "close"


_DRAWS: dict[str, Callable[[Choices], tuple[str, str]]] = {
    "uniform": _uniform,
    "normal": _normal,
    "randint": _randint,
    "truncated_normal": _truncated,
    "choice": _choice,
    "permutation": _permutation,
    "bernoulli": _bernoulli,
    "categorical": _categorical,
    "split": _split,
    "fold_in": _fold,
    "bits": _bits,
    "PRNGKey": _seeded,
    "gumbel": _gumbel,
}
