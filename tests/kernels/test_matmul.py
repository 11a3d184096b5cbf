"""Matrix products on the CPU: values, rounding, NaN, and older processors."""

from __future__ import annotations

import functools
import itertools
import platform

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from idql_func.kernels import matmul
from idql_func.kernels.build import c_compiler
from idql_func.kernels.matmul import available, fused_matmul
from idql_func.training.runtime.threads import cpu_threads

pytestmark = pytest.mark.skipif(c_compiler() is None, reason="no C compiler")

SIZES = st.sampled_from([1, 2, 5, 13, 15, 16, 17, 31, 33, 64, 100, 257])
DEPTHS = st.sampled_from([1, 2, 8, 9, 17, 64, 511, 513, 1030])
FLAGS = st.tuples(*[st.booleans()] * 8)
"""See the first line of :func:`_compare`."""
BATCHES = st.sampled_from([0, 1, 2, 3])


def _draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_kernel_is_available_with_a_c_compiler() -> None:
    assert available()


@settings(max_examples=150)
@given(st.tuples(SIZES, SIZES, DEPTHS), BATCHES, FLAGS)
def test_general_product_equals_double_precision(
    sizes: tuple[int, int, int], batch: int, flags: tuple[bool, ...]
) -> None:
    _compare(*sizes, batch, flags)


@settings(max_examples=100)
@given(st.integers(1, 9), st.sampled_from([1, 7, 16, 129, 600]), DEPTHS, BATCHES, FLAGS)
def test_few_columns_equal_double_precision(
    n: int, m: int, k: int, batch: int, flags: tuple[bool, ...]
) -> None:
    _compare(m, n, k, batch, flags)


@settings(max_examples=60)
@given(st.integers(2, 29), st.sampled_from([10, 32, 200, 600]), DEPTHS, BATCHES, FLAGS)
def test_few_rows_equal_double_precision(
    m: int, n: int, k: int, batch: int, flags: tuple[bool, ...]
) -> None:
    _compare(m, n, k, batch, flags)


@settings(max_examples=60)
@given(st.sampled_from([3, 90, 400]), st.sampled_from([1, 5, 33, 500]), BATCHES, FLAGS)
def test_outer_product_equals_double_precision(
    m: int, n: int, batch: int, flags: tuple[bool, ...]
) -> None:
    _compare(m, n, 1, batch, flags)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("n", [1, 6, 20])
def test_sums_longer_than_a_section_equal_double_precision(n: int, transposed: bool) -> None:
    _compare(40, n, 9001, 0, (transposed, *[False] * 3, *[True] * 4))


def _compare(m: int, n: int, k: int, batch: int, flags: tuple[bool, ...]) -> None:
    """Compare with double precision, and the bits of one thread with those of two and three."""
    a_transposed, b_transposed, shared_a, shared_b, biased, relu, gated, sums = flags
    several = (batch,) if batch else ()
    a = _draw(*(() if shared_a and not shared_b else several), m, k)
    b = _draw(*(() if shared_b else several), k, n, seed=1)
    several = several if 3 in (a.ndim, b.ndim) else ()
    bias = _draw(*(several if shared_a else ()), n, seed=2) if biased else None
    gate = _draw(*several, m, n, seed=3) if gated else None

    def call() -> Tensor:
        return fused_matmul(
            a.mT.contiguous() if a_transposed else a,
            b.mT.contiguous() if b_transposed else b,
            a_transposed,
            b_transposed,
            bias,
            relu,
            gate,
            sums,
        )

    with cpu_threads(1):
        found = call()
    for threads in (2, 3):
        with cpu_threads(threads):
            assert torch.equal(call(), found)
    expected, size = a.double() @ b.double(), a.double().abs() @ b.double().abs()
    if bias is not None:
        expected = expected + (bias.unsqueeze(-2) if bias.ndim == 2 else bias)
        size = size + expected.abs()
    if relu:
        expected = expected.relu()
    if gate is not None:
        expected = torch.where(gate > 0, expected, 0.0)
    if sums:
        columns, largest = (x.double().sum(-2).expand(*several, n) for x in (b, b.abs()))
        expected = torch.cat([expected.flatten(), columns.flatten()])
        size = torch.cat([size.flatten(), largest.flatten()])
    assert found.shape == expected.shape
    # the error bound of a sum of k products in any order, with one rounding per step
    assert ((found - expected).abs() <= (k + 2) * 2**-24 * size).all()


def test_nan_is_kept_by_relu_and_gate() -> None:
    a = torch.tensor([[float("nan"), 1.0], [1.0, 1.0]])
    found = fused_matmul(a, torch.eye(2), False, False, None, True, None, False)
    assert found[0].isnan().all() and torch.equal(found[1], torch.ones(2))
    gate = torch.tensor([[float("nan"), 0.0], [1.0, -1.0]])
    found = fused_matmul(torch.ones(2, 2), torch.eye(2), False, False, None, False, gate, False)
    assert found.tolist() == [[1.0, 0.0], [1.0, 0.0]]


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("k", [1, 17, 700])
@pytest.mark.parametrize("n", [1, 6, 40])
def test_row_does_not_depend_on_other_rows(n: int, k: int, transposed: bool) -> None:
    _compare_rows(n, k, transposed)


def _compare_rows(n: int, k: int, transposed: bool) -> None:
    a, b, bias = _draw(300, k), _draw(k, n, seed=1), _draw(n, seed=2)

    def call(rows: int) -> Tensor:
        part = a[:rows].T.contiguous() if transposed else a[:rows].clone()
        return fused_matmul(part, b, transposed, False, bias, True, None, False)

    whole = call(300)
    for rows in (1, 14, 133):
        assert torch.equal(call(rows), whole[:rows])


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="the compiler options are those of x86")
@pytest.mark.parametrize("option", ["-mno-avx512f", "-march=x86-64"])
def test_older_processors_keep_precision(option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Vectors of 8 floats, with and without fused multiply-add."""
    monkeypatch.setattr(matmul, "_FLAGS", (*matmul._FLAGS, option))
    function = functools.cache(matmul.functions.__wrapped__)
    monkeypatch.setattr(matmul, "functions", function)
    for n, k, transposed in itertools.product((1, 3, 6, 7, 8, 40), (1, 17, 700), (False, True)):
        _compare_rows(n, k, transposed)
        for shared in (False, True):
            _compare(150, n, k, 2, (transposed, not transposed, shared, *[True] * 5))
