"""The distributions of distrax: laws, transforms, bad input. The parity suite has their numbers."""

from __future__ import annotations

import copy
import math
import pickle
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from idql_func import enable_x64, grad, jit, random, tree_map, tree_stack, vmap
from idql_func.compiler.inductor import without_code_generation
from idql_func.distributions import (
    Categorical,
    Deterministic,
    Diagonal,
    Distribution,
    Independent,
    MultivariateNormalDiag,
    TanhTransformed,
    UnivariateNormal,
)

KEY = random.PRNGKey(3)
LOC, LOG_SCALE = random.normal(KEY, (2, 4, 3)).unbind(0)
SCALE = torch.exp(0.3 * LOG_SCALE)
EXAMPLES: dict[str, Callable[[Tensor, Tensor], Distribution]] = {
    "categorical": lambda loc, scale: Categorical(logits=loc),
    "categorical of probs": lambda loc, scale: Categorical(probs=scale),
    "deterministic": lambda loc, scale: Deterministic(loc),
    "diagonal": lambda loc, scale: Diagonal(loc, scale, tanh=False),
    "normal": UnivariateNormal,
    "vector": MultivariateNormalDiag,
    "independent": lambda loc, scale: Independent(UnivariateNormal(loc, scale), 1),
    "tanh": lambda loc, scale: TanhTransformed(MultivariateNormalDiag(loc, scale)),
    "tanh of numbers": lambda loc, scale: TanhTransformed(UnivariateNormal(loc, scale)),
}
each = pytest.mark.parametrize("name", EXAMPLES)
CONTINUOUS = ("normal", "vector", "independent", "tanh", "tanh of numbers")


def make(name: str) -> Distribution:
    return EXAMPLES[name](LOC, SCALE)


# --- every distribution -------------------------------------------------------------------


@each
@pytest.mark.parametrize("shape", [(), (2,), (2, 5), 3])
def test_shapes_of_draws(name: str, shape: Any) -> None:
    dist = make(name)
    leading = (shape,) if isinstance(shape, int) else shape
    drawn, log_prob = dist.sample_and_log_prob(KEY, shape if name != "diagonal" else leading)
    assert drawn.shape == (*leading, *dist.batch_shape, *dist.event_shape)
    assert log_prob.shape == (*leading, *dist.batch_shape)
    torch.testing.assert_close(log_prob, dist.log_prob(drawn), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(dist.prob(drawn), torch.exp(dist.log_prob(drawn)))


@each
def test_transforms_and_stacks_give_the_same_numbers(name: str) -> None:
    def draw(dist: Distribution, key: Tensor) -> tuple[Tensor, Tensor]:
        return dist.sample_and_log_prob(key)

    other = EXAMPLES[name](LOC.flip(0), SCALE.flip(0))
    keys = random.split(KEY, 2)
    stacked = tree_stack([make(name), other])
    mapped = vmap(draw)(stacked, keys)
    for k, dist in enumerate((make(name), other)):
        expected = draw(dist, keys[k])
        tree_map(lambda a, b, k=k: torch.testing.assert_close(a[k], b), mapped, expected)
        with without_code_generation():
            tree_map(torch.testing.assert_close, jit(draw)(dist, keys[k]), expected)
            returned = jit(lambda d: d.replace())(dist)
        assert torch.equal(returned.mode(), dist.mode())


@each
def test_copies_are_equal(name: str) -> None:
    dist = make(name)
    for other in (copy.deepcopy(dist), pickle.loads(pickle.dumps(dist))):
        assert torch.equal(other.sample(KEY), dist.sample(KEY))
        assert other.batch_shape == dist.batch_shape and other.event_shape == dist.event_shape


@each
def test_divergence_from_itself_is_zero(name: str) -> None:
    dist = make(name)
    if name == "diagonal":
        with pytest.raises(NotImplementedError, match="Diagonal has no kl_divergence"):
            dist.kl_divergence(dist)
        return
    found = dist.kl_divergence(dist)
    assert found.shape == dist.batch_shape
    torch.testing.assert_close(found, torch.zeros(found.shape), rtol=0, atol=1e-6)
    with pytest.raises(TypeError, match=f"other must be a {type(dist).__name__} too, got a Diag"):
        dist.kl_divergence(make("diagonal"))


@pytest.mark.parametrize("name", [*CONTINUOUS, "categorical"])
def test_divergence_is_the_mean_of_the_difference_of_log_densities(name: str) -> None:
    dist, other = make(name), EXAMPLES[name](LOC.flip(0), SCALE.flip(0))
    drawn, log_prob = dist.sample_and_log_prob(KEY, (40_000,))
    mean = (log_prob - other.log_prob(drawn)).mean(0)
    torch.testing.assert_close(dist.kl_divergence(other), mean, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("name", CONTINUOUS)
def test_draws_follow_their_parameters(name: str) -> None:
    slopes = grad(lambda loc: EXAMPLES[name](loc, SCALE).sample(KEY).sum())(LOC)
    assert (slopes > 0).all() and slopes.isfinite().all()


# --- one by one ---------------------------------------------------------------------------


def test_numbers_of_torch() -> None:
    normal = torch.distributions.Normal(LOC, SCALE)
    value = random.uniform(KEY, (4, 3), None, -0.9, 0.9)
    found = make("normal")
    torch.testing.assert_close(found.log_prob(value), normal.log_prob(value))
    torch.testing.assert_close(found.entropy(), normal.entropy())
    torch.testing.assert_close(make("vector").log_prob(value), normal.log_prob(value).sum(-1))
    torch.testing.assert_close(make("vector").entropy(), normal.entropy().sum(-1))
    categorical = torch.distributions.Categorical(logits=LOC)
    torch.testing.assert_close(make("categorical").entropy(), categorical.entropy())
    squash = torch.distributions.transforms.TanhTransform()
    tanh = torch.distributions.TransformedDistribution(normal, [squash])
    expected = tanh.log_prob(value).sum(-1)
    torch.testing.assert_close(make("tanh").log_prob(value), expected, rtol=1e-5, atol=1e-5)


def test_one_vector_is_drawn_as_by_diagonal_and_a_batch_in_its_own_order() -> None:
    one = MultivariateNormalDiag(LOC[0], SCALE[0])
    assert torch.equal(one.sample(KEY, (2,)), Diagonal(LOC[0], SCALE[0], False).sample(KEY, (2,)))
    expected = SCALE * random.normal(KEY, (2, 4, 3)) + LOC
    assert torch.equal(make("vector").sample(KEY, (2,)), expected)


def test_categories_are_those_of_random_categorical() -> None:
    dist = Categorical(logits=LOC)
    drawn = dist.sample(KEY, (50,))
    assert torch.equal(drawn, random.categorical(KEY, LOC, shape=(50, 4)))
    assert drawn.dtype == torch.int32 and dist.mode().dtype == torch.int32
    assert Categorical(logits=LOC, dtype=torch.float32).sample(KEY).dtype == torch.float32
    with enable_x64():
        assert Categorical(logits=LOC).sample(KEY).dtype == torch.int64


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=6), st.floats(-5, 5, width=32))
def test_probabilities_sum_to_one_whatever_is_added(logits: list[float], shift: float) -> None:
    x = torch.tensor(logits)
    dist, moved = Categorical(logits=x), Categorical(logits=x + shift)
    places = torch.arange(len(logits))
    torch.testing.assert_close(dist.prob(places).sum(), torch.tensor(1.0))
    torch.testing.assert_close(dist.log_prob(places), moved.log_prob(places), rtol=0, atol=1e-4)
    assert 0 <= dist.entropy() <= math.log(len(logits)) + 1e-5
    same = Categorical(probs=3 * dist.probs)
    torch.testing.assert_close(same.prob(places), dist.prob(places), rtol=1e-5, atol=1e-7)


def test_an_excluded_category_has_no_density_and_no_nan() -> None:
    logits = torch.tensor([0.0, -math.inf, 1.0])

    def total(x: Tensor) -> Tensor:
        dist = Categorical(logits=x)
        return dist.log_prob(torch.tensor([0, 2])).sum() + dist.entropy()

    dist = Categorical(logits=logits)
    assert dist.log_prob(torch.tensor(1)) == -math.inf and dist.prob(torch.tensor(1)) == 0
    assert not (dist.sample(KEY, (100,)) == 1).any()
    assert grad(total)(logits).isfinite().all()
    assert dist.log_prob(torch.tensor([-1, 3])).tolist() == [-math.inf] * 2


def test_a_draw_of_invalid_probabilities_is_minus_one() -> None:
    probs = torch.tensor([[0.5, 0.5], [2.0, -1.0], [math.nan, 1.0]])
    assert Categorical(probs=probs).sample(KEY).tolist()[1:] == [-1, -1]


def test_tolerances_of_a_deterministic_value() -> None:
    dist = Deterministic(torch.tensor([1.0, -2.0]), atol=0.1, rtol=0.1)
    assert dist.prob(torch.tensor([1.15, -2.25])).tolist() == [1.0, 1.0]
    assert dist.prob(torch.tensor([1.25, -2.35])).tolist() == [0.0, 0.0]
    assert dist.entropy().tolist() == dist.stddev().tolist() == [0.0, 0.0]


def test_independent_sums_over_its_axes() -> None:
    base = UnivariateNormal(torch.zeros(5, 4, 3), torch.ones(3))
    assert Independent(base).batch_shape == (5,) and Independent(base).event_shape == (4, 3)
    for axes in range(4):
        joint = Independent(base, axes)
        assert joint.batch_shape + joint.event_shape == (5, 4, 3)
        expected = base.entropy().sum([*range(3 - axes, 3)]) if axes else base.entropy()
        torch.testing.assert_close(joint.entropy(), expected)
        assert torch.equal(joint.sample(KEY), base.sample(KEY))


@given(st.floats(-1.5, 1.5, width=32), st.floats(-20.0, 20.0, width=32))
def test_density_under_tanh_and_its_derivatives_are_finite(action: float, mean: float) -> None:
    def density(loc: Tensor) -> Tensor:
        dist = TanhTransformed(MultivariateNormalDiag(loc, torch.full((1,), 0.5)))
        return dist.log_prob(torch.tensor([action]))

    def own(loc: Tensor) -> Tensor:
        dist = TanhTransformed(MultivariateNormalDiag(loc, torch.full((1,), 0.5)))
        return dist.sample_and_log_prob(KEY)[1]

    loc = torch.tensor([mean])
    for f in (density, own):
        assert f(loc).isfinite() and grad(f)(loc).isfinite().all()
        assert grad(lambda x, f=f: grad(f)(x).sum())(loc).isfinite().all()


def test_density_under_tanh_integrates_to_one() -> None:
    with enable_x64():
        one = torch.ones(1, dtype=torch.float64)
        dist = TanhTransformed(MultivariateNormalDiag(0.3 * one, 0.7 * one))
        grid = torch.linspace(-1, 1, 200_001, dtype=torch.float64)[1:-1]
        density = dist.prob(grid[:, None])
    assert torch.trapezoid(density, grid).item() == pytest.approx(1.0, abs=1e-4)


# --- bad input ----------------------------------------------------------------------------


ONE = torch.zeros(())
BAD: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "neither": (Categorical, ValueError, "Categorical: give logits or probs, one of both"),
    "both": (lambda: Categorical(LOC, LOC), ValueError, "one of both; got both."),
    "no categories": (lambda: Categorical(ONE), ValueError, "have an axis of categories"),
    "other count": (
        lambda: Categorical(LOC).kl_divergence(Categorical(LOC.T)),
        ValueError,
        "both must have one number of categories, got 3 and 4.",
    ),
    "nothing given": (MultivariateNormalDiag, ValueError, "give loc or scale_diag, of one axis"),
    "no axis": (lambda: MultivariateNormalDiag(ONE), ValueError, "of one axis or more"),
    "other size": (
        lambda: MultivariateNormalDiag(LOC, SCALE.T),
        ValueError,
        "must have one last axis, got (4, 3) and (3, 4).",
    ),
    "no broadcast": (
        lambda: UnivariateNormal(LOC, SCALE.T),
        ValueError,
        "UnivariateNormal: the parameters do not broadcast, their shapes are (4, 3) and (3, 4).",
    ),
    "too many axes": (
        lambda: Independent(UnivariateNormal(LOC, SCALE), 3),
        ValueError,
        "reinterpreted_batch_ndims must be from 0 to 2, the axes of the base's batch, got 3.",
    ),
    "no distribution": (
        lambda: TanhTransformed(LOC),  # type: ignore[arg-type]
        TypeError,
        "TanhTransformed: distribution must be one such as MultivariateNormalDiag(loc, scale_diag)",
    ),
    "mean under tanh": (
        lambda: make("tanh").mean(),
        NotImplementedError,
        "TanhTransformed: the mean has no closed form: average over draws",
    ),
    "entropy under tanh": (lambda: make("tanh").entropy(), NotImplementedError, "the entropy has"),
    "no mean": (lambda: make("categorical").mean(), NotImplementedError, "Categorical has no mean"),
    "tolerance": (
        lambda: Deterministic(ONE, atol=LOC),
        ValueError,
        "Deterministic: atol must have no more axes than loc, got (4, 3) and ().",
    ),
    "a list": (
        lambda: Categorical([0.0, 1.0]),  # type: ignore[arg-type]
        TypeError,
        "Categorical: logits must be a tensor or None, got a list.",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence(name: str) -> None:
    call, error, message = BAD[name]
    with pytest.raises(error, match=re.escape(message)) as found:
        call()
    assert "\n" not in str(found.value)
