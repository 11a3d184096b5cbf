"""The hash as an operator: the C form, the tensor form and the published answers agree."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from idql_func import random
from idql_func.kernels import build, threefry
from idql_func.kernels.threefry import threefry2x32, threefry2x32_tensors

words = st.integers(0, 2**32 - 1)

needs_compiler = pytest.mark.skipif(
    threefry.functions() is None, reason="needs a C compiler for the operator's C form"
)


@pytest.fixture
def fresh_kernel(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Search for the compiled function again, before and after the test."""
    _clear_caches()
    yield
    monkeypatch.undo()  # the next search finds the compiler again
    _clear_caches()


def _clear_caches() -> None:
    build.library.cache_clear()
    threefry.functions.cache_clear()


@pytest.mark.parametrize(
    ("key", "counter", "answer"),
    [  # known answers of the Random123 library (threefry2x32, 20 rounds)
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((2**32 - 1, 2**32 - 1), (2**32 - 1, 2**32 - 1), (0x1CB996FC, 0xBB002BE7)),
        ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
    ],
)
@pytest.mark.parametrize("form", [threefry2x32, threefry2x32_tensors])
def test_hashes_equal_published_answers(key, counter, answer, form) -> None:
    hashed = form(torch.tensor(key), torch.tensor(counter)[:, None])
    assert tuple(hashed.flatten().tolist()) == answer


@needs_compiler
@given(st.tuples(words, words), st.lists(st.tuples(words, words), max_size=9))
@settings(max_examples=60)
def test_c_form_equals_tensor_form(key: tuple[int, int], counts: list[tuple[int, int]]) -> None:
    key_tensor = torch.tensor(key)
    count_tensor = torch.tensor(counts, dtype=torch.int64).reshape(-1, 2).T
    c_form = threefry._threefry_op(key_tensor, count_tensor)
    assert torch.equal(c_form, threefry2x32_tensors(key_tensor, count_tensor))
    assert c_form.shape == (2, len(counts)) and c_form.dtype == torch.int64


@needs_compiler
def test_mapped_keys_and_counts_equal_single_ones() -> None:
    keys = random.split(random.PRNGKey(0), 3)
    counts = torch.arange(24).reshape(3, 2, 4)
    for form in (threefry2x32, threefry2x32_tensors):
        expected = torch.stack([form(k, c) for k, c in zip(keys, counts, strict=True)])
        assert torch.equal(torch.func.vmap(form)(keys, counts), expected)
        over_keys = torch.func.vmap(form, in_dims=(0, None))(keys, counts[0])
        assert torch.equal(over_keys, torch.stack([form(k, counts[0]) for k in keys]))
        over_counts = torch.func.vmap(form, in_dims=(None, 0))(keys[0], counts)
        assert torch.equal(over_counts, torch.stack([form(keys[0], c) for c in counts]))


@needs_compiler
def test_operator_passes_opcheck() -> None:
    keys = random.PRNGKey(5)
    counts = torch.arange(6).reshape(2, 3)
    torch.library.opcheck(
        threefry._threefry_op, (keys, counts), test_utils=("test_schema", "test_faketensor")
    )


def test_without_a_compiler_the_tensor_form_runs(
    monkeypatch: pytest.MonkeyPatch, fresh_kernel: None
) -> None:
    expected = random.normal(random.PRNGKey(0), (5,))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", "")
    _clear_caches()
    assert threefry.functions() is None
    assert torch.equal(random.normal(random.PRNGKey(0), (5,)), expected)
    # the operator of a graph that was traced with a compiler still runs
    hashed = threefry._threefry_op(torch.tensor([0, 0]), torch.tensor([[0], [0]]))
    assert hashed.flatten().tolist() == [0x6B200159, 0x99BA4EFE]


def test_failing_compiler_falls_back_to_the_tensor_form(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fresh_kernel: None
) -> None:
    monkeypatch.setenv("CC", "false")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    _clear_caches()
    assert threefry.functions() is None
    assert list(tmp_path.rglob("*.so")) == []
    assert random.split(random.PRNGKey(0)).tolist() == [
        [4146024105, 967050713],
        [2718843009, 1272950319],
    ]


@needs_compiler
def test_library_is_built_once_into_the_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fresh_kernel: None
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    _clear_caches()
    assert threefry.functions() is not None
    (library,) = (path for path in tmp_path.rglob("*") if path.is_file())
    first = library.stat().st_mtime_ns
    _clear_caches()
    assert threefry.functions() is not None
    assert library.stat().st_mtime_ns == first
