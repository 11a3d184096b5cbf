"""Initialisers: variances, shapes, dtypes, orthogonality; bad input."""

from __future__ import annotations

import math
import pickle
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from idql_func import enable_x64, grad, jit, random, vmap
from idql_func.networks import Dense, initializers
from idql_func.networks.same_module import same_module

KEY = random.PRNGKey(0)
FAMILIES = {
    "xavier": (1.0, "fan_avg"),
    "glorot": (1.0, "fan_avg"),
    "lecun": (1.0, "fan_in"),
    "he": (2.0, "fan_in"),
    "kaiming": (2.0, "fan_in"),
}
MAKERS: dict[str, Callable[[], initializers.Initializer]] = {
    "zeros": initializers.zeros_init,
    "ones": initializers.ones_init,
    "constant": lambda: initializers.constant(0.5),
    "uniform": lambda: initializers.uniform(3.0),
    "normal": lambda: initializers.normal(0.3),
    "truncated_normal": lambda: initializers.truncated_normal(0.3),
    "variance_scaling": lambda: initializers.variance_scaling(2.0, "fan_out", "normal"),
    "lecun_normal": initializers.lecun_normal,
    "orthogonal": lambda: initializers.orthogonal(2.0),
    "delta_orthogonal": initializers.delta_orthogonal,
}
every_maker = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
SHAPE = (3, 4, 6)


# --- values -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("kind", ["uniform", "normal"])
def test_families_are_settings_of_variance_scaling(name: str, kind: str) -> None:
    scale, mode = FAMILIES[name]
    distribution = "truncated_normal" if kind == "normal" else "uniform"
    draw = getattr(initializers, f"{name}_{kind}")()(KEY, (80, 120))
    expected = initializers.variance_scaling(scale, mode, distribution)(KEY, (80, 120))
    assert torch.equal(draw, expected)
    size = 80 if mode == "fan_in" else 100
    assert draw.var().item() == pytest.approx(scale / size, rel=0.05)


@settings(deadline=None, max_examples=40)
@given(
    st.floats(0.1, 4.0),
    st.sampled_from(["fan_in", "fan_out", "fan_avg"]),
    st.sampled_from(["truncated_normal", "normal", "uniform"]),
    st.integers(0, 2**32 - 1),
)
def test_the_variance_is_scale_over_the_fan(
    scale: float, mode: str, distribution: str, seed: int
) -> None:
    shape = (2, 3, 40, 60)  # a window of 6
    draw = initializers.variance_scaling(scale, mode, distribution)(random.PRNGKey(seed), shape)
    size = {"fan_in": 240, "fan_out": 360, "fan_avg": 300}[mode]
    deviation = math.sqrt(scale / size)
    assert draw.std().item() == pytest.approx(deviation, rel=0.05)
    assert abs(draw.mean().item()) < 5 * deviation / math.sqrt(draw.numel())
    if distribution == "uniform":
        assert draw.abs().max().item() <= math.sqrt(3) * deviation * (1 + 1e-6)
    if distribution == "truncated_normal":
        cut = 2 * deviation / 0.87962566103423978
        assert draw.abs().max().item() <= cut * (1 + 1e-6)


def test_axes_tell_inputs_outputs_and_batches() -> None:
    make = initializers.variance_scaling
    stacked = make(1.0, "fan_in", "uniform", in_axis=1, out_axis=2, batch_axis=0)
    single = make(1.0, "fan_in", "uniform")
    limit = math.sqrt(3 / 50)
    for draw in (stacked(KEY, (9, 50, 7)), single(KEY, (50, 7))):
        assert 0.95 * limit < draw.abs().max().item() <= limit
    several = make(1.0, "fan_out", "uniform", in_axis=(0, 1), out_axis=(2, 3))(KEY, (2, 3, 5, 10))
    assert 0.95 * limit < several.abs().max().item() <= limit


def test_uniform_is_not_symmetric_and_constants_broadcast() -> None:
    draw = initializers.uniform(3.0)(KEY, (1000,))
    assert 0 <= draw.min().item() < 0.1 and 2.9 < draw.max().item() < 3
    assert initializers.uniform()(KEY, (1000,)).max().item() < 1e-2
    row = initializers.constant(torch.tensor([1.0, 2.0]))(KEY, (3, 2))
    assert row.tolist() == [[1.0, 2.0]] * 3
    assert initializers.constant(np.arange(2))(KEY, (2,)).dtype == torch.float32
    assert initializers.constant(7, torch.int32)(KEY, (2,)).dtype == torch.int32


def test_the_bounds_of_a_truncated_normal_come_before_its_scale() -> None:
    draw = initializers.truncated_normal(0.5, lower=0.0, upper=1.0)(KEY, (1000,))
    assert draw.min().item() >= 0 and 0.45 < draw.max().item() <= 0.5


# --- orthogonal -----------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.integers(1, 6), min_size=2, max_size=4),
    st.floats(0.25, 4.0),
    st.integers(-4, 3),
    st.integers(0, 10**6),
)
def test_columns_or_rows_are_orthonormal(
    shape: list[int], scale: float, axis: int, seed: int
) -> None:
    if not -len(shape) <= axis < len(shape):
        axis = -1
    key = random.PRNGKey(seed)
    draw = initializers.orthogonal(scale, axis)(key, tuple(shape))
    assert draw.shape == tuple(shape)
    matrix = draw.movedim(axis, -1).reshape(-1, shape[axis]) / scale
    rows, columns = matrix.shape
    product = matrix.T @ matrix if rows >= columns else matrix @ matrix.T
    torch.testing.assert_close(product, torch.eye(min(rows, columns)), rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (5, 5), (64, 64)])
def test_float32_is_the_rounded_double_factor_with_a_positive_diagonal(
    shape: tuple[int, int],
) -> None:
    tall = (max(shape), min(shape))
    draws = random.normal(KEY, tall).double()
    found = initializers.orthogonal()(KEY, shape)
    q = (found if shape[0] >= shape[1] else found.T).double()
    r = q.T @ draws
    assert r.diagonal().min() > 0
    assert r.tril(-1).abs().max() < 1e-6 * draws.abs().max() * shape[0]
    # Gram and Schmidt, in double precision
    exact = torch.zeros(tall, dtype=torch.float64)
    for k in range(tall[1]):
        column = draws[:, k]
        for _ in range(2):
            column = column - exact[:, :k] @ (exact[:, :k].T @ column)
        exact[:, k] = column / column.norm()
    assert torch.equal(q.float(), exact.float()) or (q - exact).abs().max() < 3.1e-8


def test_delta_orthogonal_keeps_the_norm_of_each_pixel() -> None:
    kernel = initializers.delta_orthogonal()(KEY, (3, 3, 4, 6))
    assert kernel.abs().sum(dim=(2, 3)).nonzero().tolist() == [[1, 1]]
    torch.testing.assert_close(kernel[1, 1] @ kernel[1, 1].T, torch.eye(4))
    even = initializers.delta_orthogonal()(KEY, (4, 2, 2))
    assert even.abs().sum(dim=(1, 2)).nonzero().tolist() == [[1]]


# --- dtypes and transforms ----------------------------------------------------------------------


@every_maker
def test_dtype_is_that_of_the_call_then_of_the_maker_then_of_the_switch(
    make: Callable[[], initializers.Initializer],
) -> None:
    draw = make()
    assert draw(KEY, SHAPE).dtype == torch.float32
    assert draw(KEY, SHAPE, torch.float64).dtype == torch.float64
    with enable_x64():
        assert draw(KEY, SHAPE).dtype == torch.float64
        narrow = draw(KEY, SHAPE, torch.float32)
    assert torch.equal(narrow, draw(KEY, SHAPE))
    wide = initializers.normal(dtype=torch.float64)
    assert wide(KEY, (2,)).dtype == torch.float64
    assert wide(KEY, (2,), torch.float32).dtype == torch.float32


@every_maker
def test_vmap_over_keys_draws_the_values_of_each_key(
    make: Callable[[], initializers.Initializer],
) -> None:
    draw = make()
    keys = random.split(KEY, 3)
    each = torch.stack([draw(key, SHAPE) for key in keys])
    assert torch.equal(vmap(lambda key: draw(key, SHAPE))(keys), each)


@pytest.mark.parametrize(
    "name",
    ["constant", "uniform", *(pytest.param(n, marks=pytest.mark.slow) for n in [*MAKERS][4:])],
)
def test_jit_draws_the_same_values(name: str) -> None:
    draw = MAKERS[name]()
    torch.testing.assert_close(jit(lambda key: draw(key, SHAPE))(KEY), draw(KEY, SHAPE))


@every_maker
def test_an_initialiser_is_a_value(make: Callable[[], initializers.Initializer]) -> None:
    one, other = Dense(3, 2, make()), Dense(3, 2, make())
    assert same_module(one, other)
    assert torch.equal(pickle.loads(pickle.dumps(make()))(KEY, SHAPE), make()(KEY, SHAPE))
    assert not same_module(one, Dense(3, 2, initializers.normal(0.123)))


@pytest.mark.parametrize("name", ["uniform", "normal", "orthogonal"])
def test_the_derivative_in_the_scale_is_the_draw_of_scale_one(name: str) -> None:
    make = getattr(initializers, name)
    slope = grad(lambda scale: make(scale)(KEY, (4, 3)).sum())(torch.tensor(0.7))
    torch.testing.assert_close(slope, make(1.0)(KEY, (4, 3)).sum())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_rounds_each_step(dtype: torch.dtype) -> None:
    draw = initializers.lecun_uniform()(KEY, (7, 5), dtype)
    exact = math.sqrt(3 / 7)
    limit = torch.tensor(exact).to(dtype).item()
    assert draw.dtype == dtype
    assert draw.abs().max().item() <= limit * (1 + 2 * torch.finfo(dtype).eps)
    for value in (1 / 3, 0.1, 1.00390625, 1e-3):
        assert initializers._rounded(value, dtype) == torch.tensor(value).to(dtype).item()


# --- bad input ------------------------------------------------------------------------------------


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "mode": (
        lambda: initializers.variance_scaling(1.0, "fan_sum", "normal"),
        "variance_scaling: mode must be 'fan_in', 'fan_out' or 'fan_avg', got 'fan_sum'.",
    ),
    "distribution": (
        lambda: initializers.variance_scaling(1.0, "fan_in", "cauchy"),
        "distribution must be 'truncated_normal', 'normal' or 'uniform', got 'cauchy'.",
    ),
    "negative scale": (
        lambda: initializers.variance_scaling(-1.0, "fan_in", "normal"),
        "variance_scaling: scale must be 0 or a positive number, got -1.0.",
    ),
    "negative default": (lambda: initializers.default_init(-0.1), "scale must be 0 or a positive"),
    "infinite scale": (lambda: initializers.default_init(math.inf), "positive number, got inf."),
    "one dimension": (
        lambda: initializers.lecun_normal()(KEY, (3,)),
        "needs a shape of at least two axes without an axis of size 0, got (3,).",
    ),
    "no inputs": (lambda: Dense(0, 3).init(KEY), "without an axis of size 0, got (0, 3)."),
    "no such axis": (
        lambda: initializers.he_normal(in_axis=2)(KEY, (3, 2)),
        "initializer: the shape (3, 2) has no axis 2.",
    ),
    "orthogonal vector": (
        lambda: initializers.orthogonal()(KEY, (3,)),
        "an orthogonal matrix needs a shape of at least two axes without an axis of size 0, got",
    ),
    "orthogonal axis": (
        lambda: initializers.orthogonal(column_axis=3)(KEY, (3, 2)),
        "initializer: the shape (3, 2) has no axis 3.",
    ),
    "delta of two axes": (
        lambda: initializers.delta_orthogonal()(KEY, (3, 2)),
        "delta_orthogonal needs a shape of three to five axes",
    ),
    "delta of more inputs": (
        lambda: initializers.delta_orthogonal()(KEY, (3, 3, 2)),
        "the last one at least as large as the one before it, got (3, 3, 2).",
    ),
    "bounds": (
        lambda: initializers.truncated_normal(lower=1.0, upper=1.0),
        "truncated_normal: lower must be below upper, got 1.0 and 1.0.",
    ),
    "constant of another shape": (
        lambda: initializers.constant(torch.ones(3))(KEY, (2,)),
        "initializer: the shapes do not fit together; got key int64 (2,), shape (2), ",
    ),
    "key": (
        lambda: initializers.normal()(torch.ones(3), (2,)),  # type: ignore[arg-type]
        "random: a key is an integer tensor of shape (2,), got (3,);",
    ),
    "dtype": (
        lambda: initializers.normal()(KEY, (2,), "float32"),  # type: ignore[arg-type]
        "initializer: dtype must be a dtype of torch or None, got 'float32'.",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_gets_one_sentence(case: str) -> None:
    call, message = REFUSED[case]
    with pytest.raises((ValueError, TypeError), match=re.escape(message)) as raised:
        call()
    assert "\n" not in str(raised.value)
