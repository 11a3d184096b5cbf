"""Normalisers: their statistics, and an inverse that restores every float32 bit for bit."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import idql_func
from idql_func.data import Normalizer, fit_mean_std, fit_min_max
from idql_func.types import InputError

FLOAT32 = st.floats(allow_nan=False, allow_infinity=False, width=32)
SCALES = st.floats(2.0**-149, 2.0**127, width=32)
FITS = {"mean_std": fit_mean_std, "min_max": fit_min_max}


def bits(x: torch.Tensor) -> list[int]:
    return x.contiguous().view(torch.int32).flatten().tolist()


def assert_exact(normalizer: Normalizer, x: torch.Tensor) -> None:
    z = normalizer.normalize(x)
    back = normalizer.denormalize(z)
    assert z.dtype == torch.float64 and back.dtype == torch.float32 and z.shape == x.shape
    assert bits(back) == bits(x)


def affine(shift: float, scale: float) -> Normalizer:
    return Normalizer(
        shift=torch.tensor(shift, dtype=torch.float64),
        scale=torch.tensor(scale, dtype=torch.float64),
    )


# --- exact inversion ----------------------------------------------------------------------


@settings(max_examples=400)
@given(
    x=arrays.arrays(np.float32, 20, elements=FLOAT32),
    shift=st.floats(-(2.0**127), 2.0**127),
    scale=SCALES,
)
def test_any_float32_is_inverted_exactly(x, shift, scale):
    assert_exact(affine(shift, scale), torch.from_numpy(x))


@settings(max_examples=200)
@given(
    data=arrays.arrays(
        np.float32, st.tuples(st.integers(1, 30), st.integers(1, 3)), elements=FLOAT32
    ),
    fit=st.sampled_from(sorted(FITS)),
)
def test_fitted_data_is_inverted_exactly(data, fit):
    assert_exact(FITS[fit](data), torch.from_numpy(data))


@pytest.mark.parametrize("shift", [0.0, -0.0, 1.0, -3.7, 1e-45, 3e-40, 2.0**-131, 1e30, -3.4e38])
@pytest.mark.parametrize("scale", [1.0, 0.3, 1e-45, 3.4e38])
def test_numbers_near_the_edge_are_inverted_exactly(shift, scale):
    rng = np.random.default_rng(0)
    edge = abs(shift) * 2.0**-18 * np.array([0.25, 0.4999, 0.5, 0.5001, 0.75, 0.9999, 1, 1.001, 2])
    at = np.array([0.0, *edge, 1e-45, 1.1754944e-38, 1.0, 3e38, abs(shift)], np.float32)
    places = (at.view(np.int32)[:, None] + np.arange(-4, 5)).clip(0, 0x7F7FFFFF).astype(np.int32)
    some = rng.integers(0, 0x7F800000, 5000, dtype=np.int32)
    x = np.concatenate([places.ravel(), some]).view(np.float32)
    assert_exact(affine(shift, scale), torch.from_numpy(np.concatenate([x, -x])))


def test_plain_quotient_is_not_invertible():
    """In float64, 1e-20 is lost next to a shift of 1; so small numbers are mapped separately."""
    x = torch.tensor([1e-20, 2e-20, -0.0, 0.0])
    plain = (x.double() - 1) / 3
    assert len(set(plain.tolist())) == 1
    assert len(set(affine(1.0, 3.0).normalize(x).tolist())) == 4
    assert_exact(affine(1.0, 3.0), x)


@settings(max_examples=200)
@given(x=arrays.arrays(np.float32, 20, elements=FLOAT32), shift=FLOAT32, scale=SCALES)
def test_z_is_the_quotient_except_for_small_numbers(x, shift, scale):
    z = affine(shift, scale).normalize(torch.from_numpy(x)).numpy()
    plain = (x.astype(np.float64) - shift) / scale
    small = np.abs(x.astype(np.float64)) < 2.0**-18 * abs(shift)
    np.testing.assert_array_equal(z[~small], plain[~small])
    assert (np.abs(z - plain)[small] <= max(2.0**-17 * abs(shift), 2.0**-150) / scale).all()


@settings(max_examples=100)
@given(x=arrays.arrays(np.float32, 20, elements=FLOAT32), shift=FLOAT32, scale=SCALES)
def test_normalize_keeps_the_order(x, shift, scale):
    x = np.unique(x)
    z = affine(shift, scale).normalize(torch.from_numpy(x)).numpy()
    assert (np.diff(z) > 0).all()


def test_float32_z_is_inverted_approximately():
    x = torch.randn(1000, 3) * 4 + 2
    normalizer = fit_mean_std(x)
    back = normalizer.denormalize(normalizer.normalize(x).float())
    torch.testing.assert_close(back, x, rtol=0, atol=1e-5)


# --- statistics ---------------------------------------------------------------------------


def test_fit_mean_std_gives_mean_0_and_deviation_1():
    x = np.random.default_rng(0).normal(3, [1, 10], size=(500, 2)).astype(np.float32)
    z = fit_mean_std(x).normalize(x).numpy()
    np.testing.assert_allclose(z.mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(z.std(0), 1, rtol=1e-12)
    wide = x.astype(np.float64)
    np.testing.assert_allclose(z, (wide - wide.mean(0)) / wide.std(0), rtol=1e-9, atol=1e-9)


def test_fit_min_max_maps_the_extremes_to_minus_1_and_1():
    x = np.random.default_rng(0).normal(3, [1, 10], size=(500, 2)).astype(np.float32)
    z = fit_min_max(x).normalize(x).float().numpy()
    np.testing.assert_array_equal([z.min(0), z.max(0)], [[-1, -1], [1, 1]])


def test_constant_features_map_to_0():
    x = torch.full((4, 2), 7.5)
    for fit in FITS.values():
        normalizer = fit(x)
        assert normalizer.normalize(x).abs().max() == 0 and normalizer.scale.tolist() == [1, 1]
        assert_exact(normalizer, torch.tensor([7.5, 8.0]))


def test_images_and_float16_are_accepted():
    pixels = np.random.default_rng(0).integers(256, size=(9, 4, 4, 3), dtype=np.uint8)
    normalizer = fit_min_max(pixels)
    assert normalizer.shift.shape == (4, 4, 3)
    np.testing.assert_array_equal(normalizer.denormalize(normalizer.normalize(pixels)), pixels)
    assert fit_mean_std(torch.randn(8, dtype=torch.float16)).scale.shape == ()


# --- a pytree -----------------------------------------------------------------------------


def test_normalizer_is_a_frozen_pytree():
    normalizer = fit_mean_std(torch.randn(9, 2))
    doubled = idql_func.tree_map(lambda leaf: 2 * leaf, normalizer)
    assert torch.equal(doubled.scale, 2 * normalizer.scale)
    with pytest.raises(AttributeError):
        normalizer.scale = 1  # pyright: ignore


def test_vmapped_normalizer_equals_single_ones():
    x = torch.randn(3, 9, 2)
    fits = [fit_mean_std(part) for part in x]
    stacked = idql_func.tree_stack(fits)
    z = idql_func.vmap(Normalizer.normalize)(stacked, x)
    back = idql_func.vmap(Normalizer.denormalize)(stacked, z)
    assert bits(back) == bits(x)
    assert torch.equal(z[1], fits[1].normalize(x[1]))


@pytest.mark.slow
def test_compiled_normalizer_equals_eager():
    x = torch.tensor([[1e-20, -0.0], [3.0, 1e-40]])
    normalizer = fit_mean_std(torch.randn(9, 2) + 3)
    z = idql_func.jit(Normalizer.normalize)(normalizer, x)
    assert torch.equal(z, normalizer.normalize(x))
    assert bits(idql_func.jit(Normalizer.denormalize)(normalizer, z)) == bits(x)


# --- bad input ----------------------------------------------------------------------------


def test_bad_input_raises_input_error():
    normalizer = fit_mean_std(torch.randn(4, 2))
    for dtype in (torch.float64, torch.int64, torch.complex64):
        with pytest.raises(InputError, match=f"normalize: the data has dtype {dtype}, which float"):
            normalizer.normalize(torch.zeros(2, dtype=dtype))
    for fit in FITS.values():
        with pytest.raises(InputError, match=r"the data has shape \(0, 3\); it must be"):
            fit(np.zeros((0, 3), np.float32))
        with pytest.raises(InputError, match=r"the data has shape \(\)"):
            fit(np.array(3, np.float32))
        with pytest.raises(InputError, match="contains NaN or infinity"):
            fit(torch.tensor([1.0, torch.inf]))
