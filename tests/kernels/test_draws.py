"""Draws as operators: the C form and the tensor form give the same bits."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from idql_func import jit, random, vmap
from idql_func.kernels import build, draws, threefry

needs_compiler = pytest.mark.skipif(
    threefry.functions() is None, reason="needs a C compiler for the operators' C form"
)
words = st.integers(0, 2**32 - 1)
stacks = st.lists(st.tuples(words, words), min_size=1, max_size=3)
shapes = st.one_of(
    st.lists(st.integers(0, 5), max_size=3).map(tuple),
    # around the chunks of 512 pairs that the C form processes
    st.sampled_from([(511,), (512,), (513,), (1023,), (1024,), (1025,), (2, 1537)]),
)
reals = st.floats(-1e3, 1e3, width=32)


def _compare(name: str, keys: list[tuple[int, int]], shape: tuple[int, ...], newer: bool, *given):
    stack = torch.tensor(keys)
    native = draws._OPERATORS[name](stack, shape, newer, *given)
    tensors = draws._TENSOR_FORMS[name](stack, shape, newer, *given)
    assert native.dtype == tensors.dtype
    assert native.shape == (len(keys), *shape)
    assert torch.equal(native, tensors)
    # each row equals the draw of its key alone
    assert torch.equal(native[-1], draws._OPERATORS[name](stack[-1], shape, newer, *given))


@needs_compiler
@pytest.mark.parametrize("name", ["bits", "normal"])
@given(stacks, shapes, st.booleans())
@settings(max_examples=40)
def test_c_form_of_bits_and_normal_equals_tensor_form(name: str, keys, shape, newer) -> None:
    _compare(name, keys, shape, newer)


@needs_compiler
@given(stacks, st.integers(0, 9), st.booleans())
@settings(max_examples=40)
def test_c_form_of_split_equals_tensor_form(keys, num, newer) -> None:
    _compare("split", keys, (num, 2), newer)


@needs_compiler
@given(stacks, st.integers(0, 6), st.booleans(), st.integers(0, 1))
@settings(max_examples=40)
def test_c_form_of_split_chain_equals_tensor_form(keys, num, newer, carry) -> None:
    _compare("split_chain", keys, (num + 1, 2), newer, carry)
    rng, loop = torch.tensor(keys[0]), []
    with random.threefry_partitionable(newer):
        for _ in range(num):
            halves = random.split(rng)
            rng = halves[carry]
            loop.append(halves[1 - carry])
        assert torch.equal(
            random.split_chain(torch.tensor(keys[0]), num, carry), torch.stack([*loop, rng])
        )


@needs_compiler
@given(stacks, shapes, st.booleans(), reals, reals)
@settings(max_examples=40)
def test_c_form_of_uniform_equals_tensor_form(keys, shape, newer, low, high) -> None:
    _compare("uniform", keys, shape, newer, low, high)


@needs_compiler
@given(stacks, shapes, st.booleans(), st.one_of(st.floats(0, 1), st.sampled_from([-1.0, math.nan])))
@settings(max_examples=40)
def test_c_form_of_bernoulli_equals_tensor_form(keys, shape, newer, p) -> None:
    _compare("bernoulli", keys, shape, newer, p)


@needs_compiler
@given(
    stacks, shapes, st.booleans(), st.integers(-(2**31), 2**31 - 1), st.integers(0, 32), st.data()
)
@settings(max_examples=60)
def test_c_form_of_randint_equals_tensor_form(keys, shape, newer, low, power, data) -> None:
    span = data.draw(st.integers(1, 2**power))
    _compare("randint", keys, shape, newer, low, span)


@needs_compiler
@given(stacks, st.integers(-(2**33), 2**33), st.lists(st.integers(-5, 2**32), min_size=3))
@settings(max_examples=40)
def test_c_form_of_fold_in_equals_tensor_form(keys, number, numbers) -> None:
    for key, other in zip(keys, numbers, strict=False):
        one = torch.tensor(key)
        assert torch.equal(draws.fold_in(one, number), draws._fold_in_tensors(one, number))
        folded = draws.fold_in(one, torch.tensor(other))
        assert torch.equal(folded, draws._fold_in_tensors(one, other))
    stack, data = torch.tensor(keys), torch.tensor(numbers[: len(keys)])
    each = torch.stack([draws.fold_in(k, d) for k, d in zip(stack, data, strict=True)])
    assert torch.equal(vmap(random.fold_in)(stack, data), each)
    assert torch.equal(vmap(lambda k: random.fold_in(k, data[0]))(stack)[0], each[0])
    assert torch.equal(vmap(lambda d: random.fold_in(stack[0], d))(data)[0], each[0])


def test_many_normals_equal_the_tensor_form() -> None:
    key = random.PRNGKey(3)
    for newer in (False, True):
        with random.threefry_partitionable(newer):
            drawn = random.normal(key, (200_001,))
        assert torch.equal(drawn, draws._normal_tensors(key, (200_001,), newer))


def _one_draw_of_each_kind(key: torch.Tensor) -> tuple[torch.Tensor, ...]:
    first, second = random.split(key).unbind(0)
    return (
        random.normal(first, (3, 2)),
        random.uniform(second, (5,), minval=-1.0, maxval=2.0),
        random.bernoulli(random.fold_in(first, 7), 0.3, (9,)),
        random.randint(second, (4,), 0, 10),
        random.bits(first, (3,)),
        random.fold_in(first, second[0]),
        random.split_chain(second, 3, carry=1),
    )


@pytest.mark.parametrize("newer", [False, True])
def test_compiled_mapped_and_single_draws_are_equal(newer: bool) -> None:
    keys = random.split(random.PRNGKey(8), 6).reshape(2, 3, 2)
    with random.threefry_partitionable(newer):
        single = [_one_draw_of_each_kind(key) for key in keys.reshape(6, 2)]
        twice = vmap(vmap(_one_draw_of_each_kind))(keys)
        compiled = jit(vmap(_one_draw_of_each_kind))(keys[1])
        # a key whose words are not contiguous in memory
        strided = _one_draw_of_each_kind(keys.reshape(6, 2).T.contiguous().T[4])
    for i, expected in enumerate(zip(*single, strict=True)):
        stacked = torch.stack(expected)
        assert torch.equal(twice[i].flatten(0, 1), stacked)
        assert torch.equal(compiled[i], stacked[3:])
        assert torch.equal(strided[i], stacked[4])


@needs_compiler
def test_threads_do_not_change_bits() -> None:
    key, before = random.PRNGKey(1), torch.get_num_threads()
    shape = (3, 70_001)
    try:
        torch.set_num_threads(1)
        one = [random.normal(key, shape), random.bernoulli(key, 0.9, shape)]
        torch.set_num_threads(3)
        three = [random.normal(key, shape), random.bernoulli(key, 0.9, shape)]
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(one, three, strict=True))


@needs_compiler
@pytest.mark.parametrize(
    ("name", "given"), [("normal", ()), ("bernoulli", (0.5,)), ("randint", (0, 5))]
)
def test_operators_pass_opcheck(name: str, given: tuple) -> None:
    torch.library.opcheck(
        draws._OPERATORS[name],
        (random.PRNGKey(5), (2, 3), False, *given),
        test_utils=("test_schema", "test_faketensor", "test_aot_dispatch_static"),
    )


@pytest.mark.parametrize("newer", [False, True])
def test_draws_without_a_compiler_are_equal(newer: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    key = random.PRNGKey(2)
    with random.threefry_partitionable(newer):
        expected = _one_draw_of_each_kind(key)
        try:
            with monkeypatch.context() as patch:
                patch.setenv("CC", "false")
                patch.setenv("XDG_CACHE_HOME", "/dev/null")
                for function in (build.library, threefry.functions):
                    function.cache_clear()
                assert not threefry.uses_c(key)
                found = _one_draw_of_each_kind(key)
                # the operators of a graph that was traced with a compiler still run
                stack = torch.stack([key, key])
                normals = draws._OPERATORS["normal"](stack, (3, 2), newer)
                folded = draws._fold_in_op(stack, torch.tensor([3, 4]), 0)
        finally:  # search for the compiler again
            for function in (build.library, threefry.functions):
                function.cache_clear()
        assert torch.equal(folded[1], random.fold_in(key, 4))
        assert torch.equal(normals[0], random.normal(key, (3, 2)))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_draw_larger_than_the_counters_of_a_key_raises() -> None:
    with pytest.raises(ValueError, match="exceeds"):
        random.normal(random.PRNGKey(0), (2**16, 2**16))
    with pytest.raises(ValueError, match="one integer"):
        random.fold_in(random.PRNGKey(0), torch.tensor([1, 2]))
    with pytest.raises(ValueError, match="carry=2"):
        random.split_chain(random.PRNGKey(0), 1, carry=2)
