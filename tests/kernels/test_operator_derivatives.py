"""No operator cuts a gradient: it gives the derivative, or refuses in one sentence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

from idql_func import jit, optim, random
from idql_func.compiler.inductor import without_code_generation
from idql_func.kernels import draws, matmul, threefry, tree_ops  # noqa: F401  register operators
from idql_func.kernels.build import CPU_IMPLEMENTATIONS
from idql_func.kernels.xla_math import erf, erfinv, fused_multiply_add_once, log

pytestmark = pytest.mark.skipif(not matmul.available(), reason="needs a C compiler")

X = torch.tensor([[0.3, -0.7], [0.2, 0.5]])
COUNT = torch.tensor(0, dtype=torch.int32)
ADAM = (None, -0.1, 0.9, 0.99, 1e-8, 0.0, [False], False)
KEY = torch.tensor([0, 1])

# one tensor to each operator's arguments
CALLS: dict[str, Callable[[Tensor], tuple[Any, ...]]] = {
    "adam_step": lambda x: ([x], [x], [x], [x * x], COUNT, *ADAM),
    "adam_step_": lambda x: ([x], [x.clone()], [x.clone()], [x * x], COUNT.clone(), *ADAM),
    "moving_average": lambda x: ([x], [x], None, 0.5),
    "moving_average_": lambda x: ([x], [x.clone()], None, 0.5),
    "take_members": lambda x: ([x], torch.tensor([1])),
    "fused_matmul": lambda x: (x, x, False, False, None, False, None, False),
}
DRAWS: dict[str, tuple[Any, ...]] = {
    "threefry2x32": (KEY, torch.zeros(2, 1, dtype=torch.int64)),
    "split": (KEY, [2, 2], True),
    "split_chain": (KEY, [2, 2], True, 0),
    "bits": (KEY, [2], True),
    "uniform": (KEY, [2], True, 0.0, 1.0),
    "normal": (KEY, [2], True),
    "bernoulli": (KEY, [2], True, 0.5),
    "randint": (KEY, [2], True, 0, 3),
    "fold_in": (KEY, torch.tensor(1), 0),
}


def _name(overload: Any) -> str:
    return overload.name().removeprefix("idql_func::")


OPERATORS = {_name(overload): overload for overload in CPU_IMPLEMENTATIONS}


def test_every_operator_has_a_case() -> None:
    assert CALLS.keys() | DRAWS.keys() == OPERATORS.keys()


@pytest.mark.parametrize("name", DRAWS)
def test_operator_without_refusal_takes_or_makes_integers(name: str) -> None:
    result = OPERATORS[name](*DRAWS[name])
    tensors = [x for x in DRAWS[name] if isinstance(x, Tensor)]
    assert not result.is_floating_point() or not any(x.is_floating_point() for x in tensors)


def _value(name: str) -> Callable[[Tensor], Tensor]:
    def value(x: Tensor) -> Tensor:
        arguments = CALLS[name](x)
        result = OPERATORS[name](*arguments)
        if result is None:  # the in-place form
            result = arguments[1]
        first = result[0] if isinstance(result, list) else result
        return (first * first).sum()

    return value


def _backward(f: Callable[[Tensor], Tensor], create_graph: bool = False) -> Tensor:
    leaf = X.clone().requires_grad_()
    return torch.autograd.grad(f(leaf), leaf, create_graph=create_graph)[0]


def _dual(f: Callable[[Tensor], Tensor]) -> Any:
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(f(forward_ad.make_dual(X, torch.ones_like(X)))).tangent


MODES: dict[str, Callable[[Callable[[Tensor], Tensor]], Any]] = {
    "backward": _backward,
    "double backward": lambda f: _backward(f, create_graph=True),
    "jvp": lambda f: torch.func.jvp(f, (X,), (torch.ones_like(X),)),
    "vjp": lambda f: torch.func.vjp(f, X)[1](torch.ones(())),
    "jacrev": lambda f: torch.func.jacrev(f)(X),
    "jacfwd": lambda f: torch.func.jacfwd(f)(X),
    "hessian": lambda f: torch.func.hessian(f)(X),
    "dual numbers": _dual,
    "vmap of grad": lambda f: torch.func.vmap(torch.func.grad(f))(X[None]),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("wrap", ["eager", "jit", "donated"])
def test_operator_refuses_a_derivative(name: str, mode: str, wrap: str) -> None:
    f = _value(name)
    if wrap != "eager":
        f = jit(f, donate_argnums=0 if wrap == "donated" else ())
    with without_code_generation(), pytest.raises(NotImplementedError) as error:
        MODES[mode](f)
    assert str(error.value) == (
        f"The operator idql_func.{name}.default has no derivative, but the derivative of its "
        "result is requested; compute the result with tensor operations there."
    )


@pytest.mark.parametrize("name", CALLS)
def test_operator_runs_where_no_derivative_is_requested(name: str) -> None:
    value = _value(name)
    expected = value(X)
    with torch.no_grad():
        assert value(X.clone().requires_grad_()).equal(expected)
    with forward_ad.dual_level():
        assert value(X).equal(expected)
    if not name.endswith(("_", "matmul")):  # those have no batching rule
        assert torch.func.vmap(value)(X[None]).equal(expected[None])


# --- the functions that use the operators ---------------------------------------------------------


def _update(x: Tensor) -> Tensor:
    tx = optim.adam(0.1)
    state = tx.init({"w": torch.ones_like(x)})
    new, _ = optim.step(tx, {"w": x**3}, state, {"w": torch.sin(x)})
    return (optim.incremental_update(new, {"w": torch.cos(x)}, 0.3)["w"] ** 3).sum()


def _by_definition(x: Tensor) -> Tensor:
    """:func:`_update`, written without the library."""
    g = x**3
    mu, nu = 0.1 * g / (1 - 0.9), 0.001 * g**2 / (1 - 0.999)
    new = torch.sin(x) - 0.1 * mu / (nu.sqrt() + 1e-8)
    return ((0.3 * new + 0.7 * torch.cos(x)) ** 3).sum()


@pytest.mark.parametrize("mode", [m for m in MODES if m != "double backward"])
@pytest.mark.parametrize("wrap", ["eager", "jit", "donated"])
def test_update_has_the_right_derivative(mode: str, wrap: str) -> None:
    f = _update
    if wrap != "eager":
        jitted = jit(_update, donate_argnums=0 if wrap == "donated" else ())
        f = lambda x: jitted(x * 1)  # noqa: E731  a donated tensor can't be used again
    with without_code_generation():
        found = MODES[mode](f)
    torch.testing.assert_close(found, MODES[mode](_by_definition), rtol=2e-3, atol=2e-3)


def test_tensor_that_jit_closes_over_can_not_be_differentiated() -> None:
    w = torch.ones(2, requires_grad=True)
    f = jit(lambda x: (w * x).sum())
    with without_code_generation():
        with torch.no_grad():
            assert f(torch.ones(2)).item() == 2.0
        with pytest.raises(ValueError, match="requires a gradient and is not one of its arguments"):
            f(torch.ones(2))


def test_donation_keeps_the_gradient_of_a_loop() -> None:
    step = jit(lambda s, z: {"a": s["a"] * z, "b": s["b"] + z}, donate_argnums=0)
    leaf = torch.ones(2, requires_grad=True)
    state = {"a": leaf * 3, "b": torch.zeros(2)}
    with without_code_generation():
        for _ in range(3):
            state = step(state, torch.full((2,), 2.0))
    assert torch.autograd.grad(state["a"].sum(), leaf)[0].tolist() == [24.0, 24.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("ours", "exact"), [(erf, torch.erf), (erfinv, torch.erfinv), (log, torch.log)]
)
def test_functions_of_xla_have_exact_derivatives(ours: Any, exact: Any, dtype: torch.dtype) -> None:
    x = torch.tensor([0.05, 0.4, 0.9], dtype=dtype)

    def slope(f: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        return torch.func.grad(lambda x: f(x).sum())

    torch.testing.assert_close(slope(ours)(x), slope(exact)(x))
    torch.testing.assert_close(slope(slope(ours))(x), slope(slope(exact))(x))
    leaf = x.clone().requires_grad_()
    assert ours(leaf).detach().equal(ours(x))


def test_fused_multiply_add_has_a_derivative() -> None:
    x, y, z = (torch.tensor([v], requires_grad=True) for v in (0.1, 0.3, 0.7))
    value = fused_multiply_add_once(x, y, z)
    assert value.detach().equal(fused_multiply_add_once(x.detach(), y.detach(), z.detach()))
    found = torch.autograd.grad(value.sum(), (x, y, z))
    assert [g.item() for g in found] == [y.item(), x.item(), 1.0]


def test_bounds_of_uniform_have_a_derivative() -> None:
    key, low, high = random.PRNGKey(0), torch.tensor(-1.0), torch.tensor(2.0)
    unit = random.uniform(key, (5,))
    slopes = torch.func.jacfwd(lambda a, b: random.uniform(key, (5,), None, a, b), (0, 1))(
        low, high
    )
    torch.testing.assert_close(slopes, (1 - unit, unit))


def test_bound_of_zero_has_a_derivative() -> None:
    key, low = random.PRNGKey(0), torch.tensor(0.0)
    unit = random.uniform(key, (5,))
    slope = torch.func.jacfwd(lambda a: random.uniform(key, (5,), None, a, 2.0))(low)
    torch.testing.assert_close(slope, 1 - unit)
