"""Keys and draws: recorded values of JAX, and properties that hold for any input.

The recorded values are those of JAX 0.4.13 on a CPU for ``PRNGKey(1234)``.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from idql_func import enable_x64, jit, random, vmap
from idql_func.compiler.trace import trace
from idql_func.kernels.order import stable_argsort
from idql_func.kernels.words import randint64, signed, unsigned_remainder
from idql_func.switches import partitionable, x64_enabled

seeds = st.integers(0, 2**32 - 1)
shapes = st.lists(st.integers(0, 5), max_size=3).map(tuple)
layouts = st.booleans()

few = settings(max_examples=30)

cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


# --- recorded values ----------------------------------------------------------------------

OLDER = {
    "split": [[3512017511, 739779186], [1047329699, 140093922], [2907975018, 3484112841]],
    "bits": [3512017511, 739779186, 2287925586, 140093922, 2907975018],
    "uniform": [0.49210894107818604, 0.47086429595947266, 0.14046204090118408],
    "uniform -2..3": [0.4605447053909302, 0.3543214797973633, -1.2976897954940796],
    "normal": [-0.019781164824962616, -0.0730973407626152, -1.0782456398010254],
    "truncated": [0.1547555774450302, 0.11077405512332916, -0.6018508076667786],
    "randint": [87, 59, 74, 75],
    "randint wide": [-1200033744, 1456786895, 1737052667],
    "bernoulli": [True, True, False, False, True, False, False, False],
    "permutation": [4, 5, 2, 3, 0, 1, 6],
    "rows": [[0, 1], [2, 3], [4, 5]],
    "independent": [[0, 1], [2, 3], [4, 5]],
    "choice p": [1, 4, 3, 4, 2, 1],
    "choice without": [4, 0, 2],
    "choice": [2, 4, 4, 0],
    "categorical": [[1, 0], [2, 0], [2, 0]],
}

NEWER = {
    "split": [[1264997412, 2518116175], [2877103387, 1697627890], [2113592192, 603280156]],
    "bits": [3715183467, 3461522409, 1578076316, 3641478021, 607760917],
    "uniform": [0.8650084733963013, 0.8059483766555786, 0.36742448806762695],
    "uniform -2..3": [2.325042247772217, 2.0297417640686035, -0.16287755966186523],
    "normal": [1.1031016111373901, 0.8630622625350952, -0.3386823832988739],
    "truncated": [1.111142635345459, 0.909285306930542, -0.10187743604183197],
    "randint": [72, 27, 1, 67],
    "randint wide": [1859643701, -1845258719, -2068379811],
    "bernoulli": [False, False, False, False, True, False, False, False],
    "permutation": [2, 3, 1, 6, 4, 5, 0],
    "rows": [[4, 5], [2, 3], [0, 1]],
    "independent": [[2, 3], [4, 1], [0, 5]],
    "choice p": [1, 1, 3, 1, 4, 2],
    "choice without": [3, 1, 0],
    "choice": [2, 2, 1, 2],
    "categorical": [[1, 0], [2, 0], [1, 0]],
}


def draws(key: torch.Tensor) -> dict[str, torch.Tensor]:
    matrix = torch.arange(6).reshape(3, 2)
    p = torch.tensor([0.1, 0.2, 0.3, 0.2, 0.2])
    logits = torch.tensor([[0.0, 1.0, 2.0], [3.0, 0.0, 0.0]])
    return {
        "split": random.split(key, 3),
        "bits": random.bits(key, (5,)),
        "uniform": random.uniform(key, (3,)),
        "uniform -2..3": random.uniform(key, (3,), minval=-2.0, maxval=3.0),
        "normal": random.normal(key, (3,)),
        "truncated": random.truncated_normal(key, -1.0, 2.0, (3,)),
        "randint": random.randint(key, (4,), -5, 100),
        "randint wide": random.randint(key, (3,), -(2**31), 2**31 - 1),
        "bernoulli": random.bernoulli(key, 0.3, (8,)),
        "permutation": random.permutation(key, 7),
        "rows": random.permutation(key, matrix),
        "independent": random.permutation(key, matrix, axis=0, independent=True),
        "choice p": random.choice(key, 5, (6,), p=p),
        "choice without": random.choice(key, 5, (3,), replace=False, p=p),
        "choice": random.choice(key, 5, (4,)),
        "categorical": random.categorical(key, logits, shape=(3, 2)),
    }


@pytest.mark.parametrize(("newer", "expected"), [(False, OLDER), (True, NEWER)])
def test_draws_equal_those_of_jax(newer: bool, expected: dict[str, list]) -> None:
    with random.threefry_partitionable(newer):
        actual = draws(random.PRNGKey(1234))
    for name, tensor in actual.items():
        wanted = torch.tensor(expected[name])
        if name in ("normal", "truncated"):  # within 4 ulp; all other draws bit for bit
            assert ulps(tensor, wanted) <= 4, name
        else:
            assert tensor.tolist() == wanted.tolist(), name


def ulps(a: torch.Tensor, b: torch.Tensor) -> int:
    """The largest distance in units of the last place; both float32."""
    x, y = (np.asarray(t, np.float32).view(np.int32).astype(np.int64) for t in (a, b))
    return int(np.abs(x - y).max())


def test_fold_in_equals_that_of_jax_in_both_layouts() -> None:
    for newer in (False, True):
        with random.threefry_partitionable(newer):
            folded = random.fold_in(random.PRNGKey(1234), 99)
        assert folded.tolist() == [1352316717, 3624571589]


def test_double_precision_draws_equal_those_of_jax() -> None:
    with enable_x64():
        key = random.PRNGKey(2**40 + 7)
        assert key.tolist() == [256, 7]
        assert random.bits(key, (2,)).dtype == torch.uint64
        assert random.bits(key, (2,)).tolist() == [4212004369957800783, 5534720763084015957]
        assert random.uniform(key, (2,)).tolist() == [0.22833321442133414, 0.3000378137718158]
        normals = random.normal(key, (2,)).tolist()
        assert normals == pytest.approx([-0.7443472400565624, -0.5242917594815069], rel=1e-14)
        wide = random.randint(key, (3,), -(2**40), 2**40)
        assert wide.tolist() == [-23413143620, 543424122901, -1061049728454]
        wider = random.randint(key, (2,), 0, 2**62)
        assert wider.tolist() == [3782517885305207956, 3924783832261751779]
        assert random.permutation(key, 6).tolist() == [0, 4, 3, 1, 2, 5]
        assert random.PRNGKey(-3).tolist() == [2**32 - 1, 2**32 - 3]


def test_seed_keeps_its_low_32_bits_without_x64() -> None:
    assert random.PRNGKey(2**40 + 7).tolist() == [0, 7]
    assert random.PRNGKey(-3).tolist() == [0, 2**32 - 3]
    assert random.PRNGKey(int(np.int64(5))).tolist() == [0, 5]


# --- properties -----------------------------------------------------------------------------


@given(seeds, st.integers(0, 40), layouts)
@few
def test_split_gives_distinct_keys(seed: int, num: int, newer: bool) -> None:
    with random.threefry_partitionable(newer):
        children = random.split(random.PRNGKey(seed), num)
    assert children.shape == (num, 2) and children.dtype == torch.int64
    assert len({tuple(child) for child in children.tolist()}) == num
    assert bool(((children >= 0) & (children < 2**32)).all())


@given(seeds, shapes, layouts, st.booleans())
@few
def test_draws_have_shape_dtype_and_range(
    seed: int, shape: tuple[int, ...], newer: bool, x64: bool
) -> None:
    key = random.PRNGKey(seed)
    floats, integers = (torch.float64, torch.int64) if x64 else (torch.float32, torch.int32)
    with random.threefry_partitionable(newer), enable_x64(x64):
        u, z = random.uniform(key, shape), random.normal(key, shape)
        n = random.randint(key, shape, -3, 11)
        t = random.truncated_normal(key, -0.5, 0.25, shape)
        coins = random.bernoulli(key, 0.5, shape)
    assert u.shape == z.shape == n.shape == t.shape == coins.shape == shape
    assert u.dtype == z.dtype == t.dtype == floats and n.dtype == integers
    assert coins.dtype == torch.bool
    assert bool(((u >= 0) & (u < 1)).all())
    assert bool(z.isfinite().all())
    assert bool(((n >= -3) & (n < 11)).all())
    assert bool(((t > -0.5) & (t < 0.25)).all())


@given(seeds, st.integers(0, 60), layouts, st.booleans())
@few
def test_draw_is_a_reshaped_flat_draw(seed: int, half: int, newer: bool, x64: bool) -> None:
    key = random.PRNGKey(seed)
    with random.threefry_partitionable(newer), enable_x64(x64):
        flat, shaped = random.uniform(key, (2 * half,)), random.uniform(key, (half, 2))
    assert torch.equal(flat.reshape(half, 2), shaped)


TINY_BOUNDS = {
    (2.9e-40, 3.0): 544468802347,
    (2e-38, 3.0): 544468802379,
    (1e-30, 3.0): 544468802379,
    (-1e-30, 3.0): 544468802305,
    (0.0, 2e-39): 0,
    (0.0, 3e-38): 4184820674,
    (1.2e-38, 1.3e-38): 4375941346,
    (-3e-38, 1e-38): 1102151012660,
}
"""The sum of the bits of 511 draws of JAX 0.10.2 in the older layout, by the bounds."""


@pytest.mark.parametrize("as_tensors", [False, True])
@pytest.mark.parametrize(("low", "high"), TINY_BOUNDS)
def test_uniform_of_tiny_bounds_equals_jax(low: float, high: float, as_tensors: bool) -> None:
    """Subnormal numbers are zero, and a tiny bound decides to which side a tie is rounded."""
    bounds = [torch.tensor(x) if as_tensors else x for x in (low, high)]
    draws = random.uniform(random.PRNGKey(0), (511,), None, *bounds)
    assert int((draws.view(torch.int32).to(torch.int64) % 2**32).sum()) == TINY_BOUNDS[low, high]


@given(seeds, st.floats(-100, 100), st.floats(1e-3, 100))
@few
def test_uniform_stays_within_its_bounds(seed: int, low: float, width: float) -> None:
    u = random.uniform(random.PRNGKey(seed), (50,), minval=low, maxval=low + width)
    # the bounds rounded to float32; rounding may reach the upper one
    assert bool((u >= np.float32(low)).all()) and bool((u <= np.float32(low + width)).all())


@given(seeds, st.integers(-(2**31), 2**31 - 1), st.integers(-(2**31), 2**31 - 1))
@few
def test_randint_of_32_bits_is_within_its_range(seed: int, a: int, b: int) -> None:
    low, high = min(a, b), max(a, b)
    drawn = random.randint(random.PRNGKey(seed), (9,), low, high)
    assert drawn.dtype == torch.int32
    values = drawn.tolist()
    assert all(low <= x < high for x in values) if low < high else values == [low] * 9


@given(seeds, st.integers(-(2**62), 2**62 - 1), st.integers(1, 2**62))
@few
def test_randint_of_64_bits_is_within_its_range(seed: int, low: int, span: int) -> None:
    drawn = random.randint(random.PRNGKey(seed), (9,), low, low + span, torch.int64)
    assert all(low <= x < low + span for x in drawn.tolist())


def test_randint_reaches_every_value_and_the_largest_integer() -> None:
    drawn = random.randint(random.PRNGKey(0), (200,), 2, 7)
    assert sorted(set(drawn.tolist())) == [2, 3, 4, 5, 6]
    # a bound above the dtype includes its largest value; JAX and this library take no such integer
    above = torch.tensor(2**31)
    top = random.randint(random.PRNGKey(0), (200,), 2**31 - 2, above)
    assert set(top.tolist()) == {2**31 - 2, 2**31 - 1}
    full = random.randint(random.PRNGKey(0), (2000,), -(2**31), above)
    assert full.min() < -(2**30) and full.max() > 2**30


@given(seeds, st.integers(0, 80), layouts)
@few
def test_permutation_has_each_element_once(seed: int, n: int, newer: bool) -> None:
    key = random.PRNGKey(seed)
    with random.threefry_partitionable(newer):
        index = random.permutation(key, n)
        rows = random.permutation(key, torch.arange(2 * n).reshape(n, 2))
    assert sorted(index.tolist()) == list(range(n))
    assert sorted(rows.tolist()) == [[2 * i, 2 * i + 1] for i in range(n)]


words64 = st.one_of(st.integers(0, 2**64 - 1), st.integers(0, 9), st.integers(2**63 - 9, 2**63 + 9))


@given(words64, words64)
def test_unsigned_remainder_is_that_of_unsigned_numbers(x: int, span: int) -> None:
    found = unsigned_remainder(torch.tensor([signed(x)]), torch.tensor(signed(span)))
    assert found.item() % 2**64 == (x % span if span else x)


@given(words64, words64, words64, words64)
def test_64_bit_integers_have_every_range(first: int, second: int, low: int, span: int) -> None:
    low, span = signed(low), max(span, 1)
    high = (low + span + 2**63) % 2**64 - 2**63
    wide = (first % span * ((2**32 % span) ** 2 % 2**64 % span) + second % span) % 2**64
    ends = [torch.tensor(signed(x)) for x in (low, span)]
    found = randint64(torch.tensor([signed(first)]), torch.tensor([signed(second)]), *ends)
    assert found.item() == signed((low + wide % span) % 2**64)
    if high > low:
        assert low <= found.item() < high


@given(st.lists(st.integers(0, 5), min_size=1, max_size=20))
def test_stable_argsort_small_equals_stable_sort(words: list[int]) -> None:
    tensor = torch.tensor(words)
    assert torch.equal(stable_argsort(tensor, 0), torch.sort(tensor, stable=True)[1])


@given(seeds, st.integers(1, 30), st.data())
@few
def test_choice_without_replacement_has_no_repeats(seed: int, n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, n))
    key = random.PRNGKey(seed)
    p = torch.linspace(1.0, 2.0, n)
    for weights in (None, p):
        picked = random.choice(key, n, (k,), replace=False, p=weights).tolist()
        assert len(set(picked)) == k and all(0 <= i < n for i in picked)


def test_choice_follows_its_weights_on_any_axis() -> None:
    key = random.PRNGKey(3)
    p = torch.tensor([0.0, 3.0, 0.0, 1.0])  # need not sum to one (quirk E3)
    drawn = random.choice(key, 4, (4000,), p=p)
    assert set(drawn.tolist()) == {1, 3}
    assert (drawn == 1).float().mean().item() == pytest.approx(0.75, abs=0.03)
    table = torch.arange(12).reshape(3, 4)
    columns = random.choice(key, table, (2, 5), p=p, axis=1)
    assert columns.shape == (3, 2, 5)
    assert set((columns[0] % 4).flatten().tolist()) <= {1, 3}
    assert torch.equal(columns[1], columns[0] + 4)
    assert random.choice(key, table, axis=1).shape == (3,)
    assert random.choice(key, table, axis=1, replace=False).shape == (3,)


def test_distributions_have_their_moments() -> None:
    key = random.PRNGKey(11)
    z = random.normal(key, (40_000,))
    assert z.mean().item() == pytest.approx(0, abs=0.02)
    assert z.std().item() == pytest.approx(1, abs=0.02)
    g = random.gumbel(key, (40_000,))
    assert g.mean().item() == pytest.approx(0.5772, abs=0.03)
    coins = random.bernoulli(key, torch.tensor([0.1, 0.9]), (20_000, 2)).float().mean(0)
    assert coins.tolist() == pytest.approx([0.1, 0.9], abs=0.01)
    logits = torch.tensor([0.0, math.log(3.0)])
    sides = random.categorical(key, logits, shape=(20_000,)).float().mean().item()
    assert sides == pytest.approx(0.75, abs=0.02)


def test_draws_depend_only_on_the_key() -> None:
    key = random.PRNGKey(0)
    before = key.clone()
    assert torch.equal(random.normal(key, (5,)), random.normal(key, (5,)))
    assert not torch.equal(random.normal(key, (5,)), random.normal(random.PRNGKey(1), (5,)))
    random.permutation(key, 5)
    assert torch.equal(key, before)


# --- under vmap -----------------------------------------------------------------------------


@pytest.mark.parametrize("newer", [False, True])
@pytest.mark.parametrize("x64", [False, True])
def test_vmap_over_keys_equals_a_loop(newer: bool, x64: bool) -> None:
    def all_draws(key: torch.Tensor) -> dict[str, torch.Tensor]:
        result = draws(key)
        result["fold_in"] = random.fold_in(key, 5)
        result["normal64"] = random.normal(key, (3,), torch.float64)
        if x64:  # vmap has no uint64
            result["bits"] = result["bits"].view(torch.int64)
        return result

    with random.threefry_partitionable(newer), enable_x64(x64):
        keys = random.split(random.PRNGKey(8), 3)
        mapped = vmap(all_draws)(keys)
        for i in range(3):
            for name, value in all_draws(keys[i]).items():
                assert torch.equal(mapped[name][i], value), name


def test_vmap_over_data_folded_into_one_key() -> None:
    key = random.PRNGKey(8)
    folded = vmap(lambda n: random.fold_in(key, n))(torch.arange(4))
    assert torch.equal(folded, torch.stack([random.fold_in(key, i) for i in range(4)]))


def test_vmap_nests_over_a_table_of_keys() -> None:
    keys = random.split(random.PRNGKey(1), 6).reshape(2, 3, 2)
    mapped = vmap(vmap(lambda k: random.uniform(k, (2,))))(keys)
    for i in range(2):
        for j in range(3):
            assert torch.equal(mapped[i, j], random.uniform(keys[i, j], (2,)))


# --- the switches -----------------------------------------------------------------------------


def test_switches_are_restored_after_an_exception() -> None:
    with pytest.raises(ZeroDivisionError), enable_x64(), random.threefry_partitionable(True):
        assert x64_enabled() and partitionable()
        raise ZeroDivisionError
    assert not x64_enabled() and not partitionable()
    with enable_x64():
        with enable_x64(False):
            assert random.uniform(random.PRNGKey(0)).dtype == torch.float32
        assert random.uniform(random.PRNGKey(0)).dtype == torch.float64


def test_explicit_dtype_overrides_the_switch() -> None:
    key = random.PRNGKey(4)
    inside: list[torch.Tensor] = []
    for x64 in (False, True):
        with enable_x64(x64):
            inside.append(random.normal(key, (3,), torch.float32))
            assert random.randint(key, (3,), 0, 9, torch.int64).dtype == torch.int64
            assert (
                random.bits(key, (3,), torch.uint32).tolist()
                == random.bits(key, (3,), dtype=torch.uint32).tolist()
            )
    assert torch.equal(inside[0], inside[1])


# --- bad input ----------------------------------------------------------------------------------

KEY = torch.tensor([0, 1])


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: random.PRNGKey(1.5), TypeError, "seed must be an integer, got float"),  # type: ignore[arg-type]
        (lambda: random.PRNGKey(2**63), ValueError, "seed must fit into 64 bits"),
        (lambda: random.fold_in(KEY, -1), ValueError, r"data must lie in \[0, 2\*\*32\)"),
        (lambda: random.split(KEY, -1), ValueError, "split: num must not have negative"),
        (lambda: random.normal(torch.zeros(3, dtype=torch.int64)), ValueError, r"got \(3,\)"),
        (lambda: random.split(random.split(KEY, 3)), ValueError, "vmap over a stack of keys"),
        (lambda: random.normal(KEY, 3.0), TypeError, "sequence of integers"),  # type: ignore[arg-type]
        (lambda: random.randint(KEY, (), 0, 2**31), OverflowError, "bound 2147483648 does not fit"),
        (lambda: random.randint(KEY, (), -(2**40), 0), OverflowError, "use enable_x64 for 64 bits"),
        (lambda: random.uniform(KEY, (2, -1)), ValueError, "negative sizes"),
        (lambda: random.normal(KEY, (2,), torch.int32), TypeError, "normal: dtype must be"),
        (lambda: random.bits(KEY, (2,), torch.int8), TypeError, "bits: dtype must be"),
        (lambda: random.randint(KEY, (2,), 0, 5, torch.float32), TypeError, "randint: dtype"),
        (lambda: random.permutation(KEY, torch.tensor(3.0)), TypeError, "at least one axis"),
        (lambda: random.permutation(KEY, torch.ones(3), 1), ValueError, "there is no axis 1"),
        (lambda: random.choice(KEY, 2, (1,), p=[0.5, -1.0]), ValueError, "not negative"),
        (lambda: random.choice(KEY, 0, (2,)), ValueError, "at least one entry"),
        (
            lambda: random.choice(KEY, 2, (3,), replace=False),
            ValueError,
            "at most 2 entries .* got 3",
        ),
        (lambda: random.choice(KEY, 3, (1,), p=torch.ones(2)), ValueError, r"p must .*\(3,\)"),
        (lambda: random.categorical(KEY, torch.ones(3, 2), shape=(2,)), ValueError, "must end in"),
        (lambda: random.bits(KEY, (2**16, 2**16)), ValueError, "exceeds"),
    ],
)
def test_bad_input_raises_a_clear_error(call, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call()


# --- on a GPU ---------------------------------------------------------------------------------


@cuda
@pytest.mark.parametrize("newer", [False, True])
@pytest.mark.parametrize("x64", [False, True])
def test_cuda_draws_equal_those_of_the_cpu(newer: bool, x64: bool) -> None:
    with random.threefry_partitionable(newer), enable_x64(x64):
        on_cpu = draws(random.PRNGKey(1234))
        on_gpu = draws(random.PRNGKey(1234, device="cuda"))
    for name, tensor in on_cpu.items():
        assert on_gpu[name].device.type == "cuda", name
        if name in ("normal", "truncated"):
            assert torch.allclose(on_gpu[name].cpu(), tensor, rtol=1e-6, atol=1e-7), name
        else:
            assert torch.equal(on_gpu[name].cpu(), tensor), name


@pytest.mark.parametrize(("low", "high"), [(0, 10), (-5, 2**31 - 1), (7, 3), (-(2**31), 6)])
def test_randint_accepts_tensors_as_bounds(low, high):
    key = random.PRNGKey(3)
    expected = random.randint(key, (9,), low, high)
    bounds = torch.tensor(low), torch.tensor(high)
    assert torch.equal(random.randint(key, (9,), *bounds), expected)
    each = random.randint(key, (9,), bounds[0].expand(9), high)
    assert torch.equal(each, expected)


def test_randint_with_a_tensor_bound_traces():
    key, high = random.PRNGKey(0), torch.tensor(10, dtype=torch.int32)
    eager = random.randint(key, (5,), 0, 10)
    # jit traces a Python number like this; compiling the rounds too would take a minute
    draw = trace(
        lambda key, high: random.randint(key, (5,), 0, high), [key, torch.zeros_like(high)]
    )
    assert torch.equal(draw(key, high), eager)
    mapped = vmap(lambda high: random.randint(random.PRNGKey(0), (5,), 0, high))
    assert torch.equal(mapped(torch.tensor([10, 20]))[0], eager)


def test_randint_of_64_bits_takes_tensors_as_bounds():
    key, wide = random.PRNGKey(0), torch.int64
    numbers = random.randint(key, (3,), -5, 2**40, dtype=wide)
    traced = jit(lambda high: random.randint(key, (3,), -5, high, dtype=wide))
    assert torch.equal(random.randint(key, (3,), -5, torch.tensor(2**40), dtype=wide), numbers)
    assert torch.equal(traced(torch.tensor(2**40)), numbers)
