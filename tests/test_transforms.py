"""jit, vmap, grad and scan: alone, nested, and with bad input.

Tracing, caching and nesting are tested on traced graphs that run without the C++
compiler (``traced``), which takes milliseconds. Compiled programs are tested on small
functions here and on the learners in ``agents/test_compiled.py``.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters

from idql_func import (
    disable_jit,
    enable_x64,
    grad,
    jit,
    random,
    scan,
    struct,
    transforms,
    tree_leaves,
    tree_map,
    tree_stack,
    value_and_grad,
    vmap,
)


class Model(struct.PyTreeNode):
    """A small learner: tensors, a Python number, a static field."""

    params: dict[str, Tensor]
    rate: float
    power: int = struct.field(pytree_node=False)

    @jit
    def step(self, x: Tensor) -> tuple[Model, dict[str, Tensor]]:
        loss, grads = value_and_grad(energy)(self.params, x, self.power)
        params = tree_map(lambda p, g: p - self.rate * g, self.params, grads)
        return self.replace(params=params), {"loss": loss}


def energy(params: dict[str, Tensor], x: Tensor, power: int = 2) -> Tensor:
    return ((params["w"] * x + params["b"]) ** power).sum()


def model(seed: int = 0, rate: float = 0.1, power: int = 2) -> Model:
    key = random.PRNGKey(seed)
    return Model({"w": random.normal(key, (3,)), "b": torch.ones(())}, rate, power)


def assert_trees_close(actual: Any, expected: Any, rtol: float = 1e-6) -> None:
    torch.testing.assert_close(
        [torch.as_tensor(x) for x in tree_leaves(actual)],
        [torch.as_tensor(x) for x in tree_leaves(expected)],
        rtol=rtol,
        atol=1e-7,
    )


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run traced graphs without the C++ compiler."""
    monkeypatch.setattr("idql_func.compiler.jit.compiler_problem", lambda device: "No compiler.")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "jit: No compiler", RuntimeWarning)
        yield


X = torch.tensor([1.0, -2.0, 0.5])


# --- jit: values -----------------------------------------------------------------------------


@pytest.mark.usefixtures("traced")
def test_jit_equals_eager_on_a_dataclass_with_static_fields() -> None:
    for power in (2, 4):
        before = model(power=power)
        compiled = before.step(X)
        with disable_jit():
            eager = before.step(X)
        assert compiled[0].power == power
        assert_trees_close(compiled, eager)


@pytest.mark.usefixtures("traced")
def test_argument_returned_unchanged_is_the_same_object() -> None:
    rate, array, tensor = 0.30000000000000004, np.arange(2.0), torch.ones(2)
    result = jit(lambda tree, y: (tree, y * tree["rate"], 7, None))(
        {"rate": rate, "array": array, "tensor": tensor}, torch.ones(2)
    )
    assert result[0]["rate"] is rate
    assert result[0]["array"] is array
    assert result[0]["tensor"] is tensor
    assert result[1].tolist() == pytest.approx([0.3, 0.3])
    assert result[2] == 7 and result[3] is None
    after, _ = model(rate=rate).step(X)
    assert after.rate is rate


@pytest.mark.usefixtures("traced")
def test_numbers_are_inputs_and_not_constants() -> None:
    scaled = jit(lambda x, a, b: x * a + b)
    assert scaled(X, 2.0, 1).tolist() == [3.0, -3.0, 2.0]
    assert scaled(X, 3.0, 5).tolist() == [8.0, -1.0, 6.5]
    assert scaled.cache_size() == 1


@pytest.mark.usefixtures("traced")
def test_shapes_dtypes_switches_and_static_fields_need_a_new_program() -> None:
    step = jit(lambda m, x: m.step(x))
    step(model(), X)
    step(model(seed=1, rate=0.2), X)  # other values
    assert step.cache_size() == 1
    step(model(power=4), X)  # another static field
    assert step.cache_size() == 2
    total = jit(lambda x: x.sum() + random.uniform(random.PRNGKey(0), (), x.dtype))
    calls: list[Callable[[], Any]] = [
        lambda: total(torch.ones(2)),
        lambda: total(torch.ones(3)),  # another shape
        lambda: total(torch.ones(2, dtype=torch.float64)),  # another dtype
        lambda: total(torch.zeros(2)),  # the first again
    ]
    sizes = []
    for call in calls:
        call()
        sizes.append(total.cache_size())
    assert sizes == [1, 2, 3, 3]
    with enable_x64():
        total(torch.ones(2))
    with random.threefry_partitionable(True):
        total(torch.ones(2))
    assert total.cache_size() == 5  # each switch is part of the program
    total.clear_cache()
    assert total.cache_size() == 0


@pytest.mark.usefixtures("traced")
def test_numbers_have_the_current_precision() -> None:
    def pair(a: Any, b: Any) -> tuple[Tensor, Tensor]:
        return a * 1, b * 1

    narrow = jit(pair)(0.5, np.array([1.0]))
    assert [t.dtype for t in narrow] == [torch.float32, torch.float32]
    with enable_x64():
        wide = jit(pair)(0.5, np.array([1.0]))
    assert [t.dtype for t in wide] == [torch.float64, torch.float64]
    assert [t.dtype for t in jit(pair)(True, 3)] == [torch.int64, torch.int32]


@pytest.mark.usefixtures("traced")
@pytest.mark.usefixtures("traced")
def test_numpy_number_is_a_number() -> None:
    result = jit(lambda x: x * 2)(np.float64(1.5))  # a subclass of float
    assert (result.item(), result.dtype) == (3.0, torch.float32)


def test_static_arguments_by_number_and_by_name() -> None:
    @jit(static_argnums=1, static_argnames=("mode",))
    def power(x: Tensor, n: int, *, mode: str = "plain") -> Tensor:
        return x**n if mode == "plain" else -(x**n)

    assert power(X, 2).tolist() == [1.0, 4.0, 0.25]
    assert power(X, 3).tolist() == [1.0, -8.0, 0.125]
    assert power(X, 3, mode="minus").tolist() == [-1.0, 8.0, -0.125]
    assert power(X, 2).tolist() == [1.0, 4.0, 0.25]
    assert power.cache_size() == 3


@pytest.mark.usefixtures("traced")
def test_jit_of_keyword_arguments_and_no_arguments() -> None:
    assert jit(lambda x, *, y: x - y)(X, y=X).tolist() == [0.0, 0.0, 0.0]
    assert jit(lambda: torch.ones(2) * 3)().tolist() == [3.0, 3.0]


@pytest.mark.usefixtures("traced")
def test_tensordict_batch_is_accepted() -> None:
    from tensordict import TensorDict

    total = jit(lambda batch: (batch["a"] * batch["b"]).sum())
    entries = {"a": torch.arange(3.0), "b": torch.ones(3)}
    assert total(TensorDict(entries, batch_size=[3])).item() == 3.0
    assert total(entries).item() == 3.0


def test_random_streams_are_equal_inside_jit(traced: None) -> None:
    key = random.PRNGKey(3)
    inside = jit(lambda k: (random.split(k), random.normal(k, (4,)), random.permutation(k, 5)))(key)
    outside = (random.split(key), random.normal(key, (4,)), random.permutation(key, 5))
    for a, b in zip(inside, outside, strict=True):
        assert torch.equal(a, b)


# --- jit: switches ---------------------------------------------------------------------------


def test_disable_jit_runs_the_function_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[type] = []

    @jit
    def observe(x: Tensor) -> Tensor:
        seen.append(type(x))
        return x + 1

    with disable_jit():
        observe(X)
        observe(X)
    assert observe.cache_size() == 0 and seen == [Tensor, Tensor]
    monkeypatch.setenv("IDQL_DISABLE_JIT", "1")
    observe(X)
    assert observe.cache_size() == 0 and len(seen) == 3
    monkeypatch.setenv("IDQL_DISABLE_JIT", "0")
    monkeypatch.setattr("idql_func.compiler.jit.compiler_problem", lambda device: "No compiler.")
    with pytest.warns(RuntimeWarning):
        observe(X)
    assert observe.cache_size() == 1


def test_disable_jit_ends_with_its_block_after_an_error() -> None:
    from idql_func.switches import jit_disabled

    with pytest.raises(ZeroDivisionError), disable_jit():
        assert jit_disabled()
        raise ZeroDivisionError
    assert not jit_disabled()


def test_without_a_compiler_jit_warns_once_and_keeps_the_values(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        "idql_func.compiler.jit.compiler_problem", lambda device: "There is no compiler."
    )
    double = jit(lambda x: 2 * x)
    with pytest.warns(RuntimeWarning, match="There is no compiler. Running eagerly") as record:
        assert double(X).tolist() == [2.0, -4.0, 1.0]
    assert len(record) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the second call must not warn
        assert double(-X).tolist() == [-2.0, 4.0, -1.0]


def test_missing_compiler_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._inductor import cpp_builder, exc

    def none_found() -> str:
        raise exc.InvalidCxxCompiler

    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", none_found)
    transforms.compiler_problem.cache_clear()
    try:
        problem = transforms.compiler_problem(torch.device("cpu"))
        assert problem is not None and "install g++ or clang++" in problem and "CXX" in problem
    finally:
        transforms.compiler_problem.cache_clear()
    assert transforms.compiler_problem(torch.device("cuda")) is None
    assert "'meta'" in str(transforms.compiler_problem(torch.device("meta")))


# --- compiled --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def compiled_run() -> dict[str, Any]:
    """One function through ``torch.compile``, called with four sets of values."""
    if transforms.compiler_problem(torch.device("cpu")) is not None:
        pytest.skip("needs a C++ compiler")

    @jit
    def train(m: Model, xs: Tensor, key: Tensor) -> Any:
        noise = random.normal(key, (3,)) * m.rate
        return scan(lambda carry, x: carry.step(x + noise), m, xs)

    keys = random.split(random.PRNGKey(0), 4)
    arguments = [(model(i, 0.01 * i), torch.ones(2, 3) * i, keys[i]) for i in range(4)]
    with disable_jit():
        expected = [train(*a) for a in arguments]
    counters.clear()
    actual = [train(*arguments[0])]
    after_first = {name: dict(counts) for name, counts in counters.items()}
    actual += [train(*a) for a in arguments[1:]]
    after_all = {name: dict(counts) for name, counts in counters.items()}
    return {
        "actual": actual,
        "expected": expected,
        "first": after_first,
        "all": after_all,
        "programs": train.cache_size(),
    }


def test_compiled_equals_eager(compiled_run: dict[str, Any]) -> None:
    assert_trees_close(compiled_run["actual"], compiled_run["expected"], rtol=1e-5)


def test_compile_makes_exactly_one_graph(compiled_run: dict[str, Any]) -> None:
    assert compiled_run["first"]["aot_autograd"]["total"] == 1
    assert compiled_run["all"] == compiled_run["first"]
    assert compiled_run["programs"] == 1


# --- nesting ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize(
    "nested",
    [
        grad,
        lambda f: jit(grad(f)),
        lambda f: grad(jit(f)),
        lambda f: jit(jit(grad(jit(f)))),
    ],
    ids=["grad", "jit grad", "grad jit", "jit jit grad jit"],
)
def test_gradient_in_any_order_with_jit(nested: Callable[..., Any]) -> None:
    params = {"w": torch.tensor([1.0, 2.0, 3.0]), "b": torch.tensor(0.5)}
    got = nested(energy)(params, X)
    inner = 2 * (params["w"] * X + params["b"])
    assert_trees_close(got, {"w": inner * X, "b": inner.sum()})


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize(
    "nested",
    [
        vmap,
        lambda f: jit(vmap(f)),
        lambda f: vmap(jit(f)),
        lambda f: jit(vmap(jit(f))),
        lambda f: vmap(f, chunk_size=2),
    ],
    ids=["vmap", "jit vmap", "vmap jit", "jit vmap jit", "chunks"],
)
def test_stacked_models_step_like_single_ones(nested: Callable[..., Any]) -> None:
    models = [model(seed=i, rate=0.1 * (i + 1)) for i in range(3)]
    xs = torch.stack([X, X + 1, X * 2])
    with disable_jit():
        expected = tree_stack([m.step(x) for m, x in zip(models, xs, strict=True)])
    got = nested(lambda m, x: m.step(x))(tree_stack(models), xs)
    assert isinstance(got[0], Model) and got[0].power == 2
    assert_trees_close(got, expected)


@pytest.mark.usefixtures("traced")
def test_scan_of_vmap_of_grad_and_vmap_of_scan_of_grad() -> None:
    def descend(w: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        g = grad(lambda v: ((v - x) ** 2).sum())(w)
        return w - 0.25 * g, g

    start, xs = torch.zeros(2, 3), torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(0))
    inner_scan = vmap(lambda w, series: scan(descend, w, series), in_axes=(0, 1), out_axes=(0, 1))
    outer_scan = lambda w, series: scan(vmap(descend), w, series)  # noqa: E731
    a = inner_scan(start, xs)
    b = outer_scan(start, xs)
    c = jit(inner_scan)(start, xs)
    assert_trees_close(a, b)
    assert_trees_close(a, c)
    # w <- (w + x) / 2 each time
    expected = sum(xs[i] / 2 ** (4 - i) for i in range(4))
    assert_trees_close(a[0], expected)


@pytest.mark.usefixtures("traced")
def test_gradient_through_scan_and_of_a_gradient() -> None:
    def cubed(x: Tensor) -> Tensor:
        return scan(lambda c, _: (c * x, None), torch.ones(()), length=3)[0]

    x = torch.tensor(2.0)
    for f in (cubed, jit(cubed)):
        assert grad(f)(x).item() == pytest.approx(12.0)
        assert grad(grad(f))(x).item() == pytest.approx(12.0)
        assert jit(grad(grad(grad(f))))(x).item() == pytest.approx(6.0)


@pytest.mark.usefixtures("traced")
def test_vmap_of_grad_returns_the_gradient_of_each_example() -> None:
    params = {"w": torch.tensor([1.0, 2.0, 3.0]), "b": torch.tensor(0.5)}
    xs = torch.stack([X, -X])
    per_example = jit(vmap(grad(energy), in_axes=(None, 0)))(params, xs)
    for i, x in enumerate(xs):
        single = grad(energy)(params, x)
        assert_trees_close(tree_map(lambda g, i=i: g[i], per_example), single)


# --- vmap ------------------------------------------------------------------------------------


def test_axes_are_numbers_none_or_prefixes() -> None:
    tree = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.arange(3.0)}
    f = lambda t, s: t["a"] * s + t["b"]  # noqa: E731
    assert vmap(f, in_axes=({"a": 0, "b": None}, None))(tree, 2.0).tolist() == [
        [0.0, 3.0, 6.0],
        [6.0, 9.0, 12.0],
    ]
    columns = vmap(f, in_axes=({"a": 1, "b": 0}, None))(tree, 1.0)
    assert columns.tolist() == [[0.0, 3.0], [2.0, 5.0], [4.0, 7.0]]
    last = vmap(f, in_axes=({"a": -1, "b": -1}, None), out_axes=1)(tree, 1.0)
    assert torch.equal(last, columns.T)


def test_out_axes_may_be_a_tree() -> None:
    xs = torch.arange(6.0).reshape(2, 3)
    rows, columns = vmap(lambda x: (x, {"c": x}), out_axes=(0, {"c": 1}))(xs)
    assert torch.equal(rows, xs) and torch.equal(columns["c"], xs.T)


def test_numbers_are_not_mapped_and_repeated_in_results() -> None:
    doubled, rate, name = vmap(lambda x, r: (x * r, r, None))(torch.ones(2), 0.5)
    assert doubled.tolist() == rate.tolist() == [0.5, 0.5]
    assert name is None


# --- grad ------------------------------------------------------------------------------------


def test_value_and_grad_returns_aux_and_the_chosen_gradients() -> None:
    def f(a: Tensor, b: Tensor, scale: float) -> tuple[Tensor, dict[str, Tensor]]:
        return scale * (a * b**2).sum(), {"a": a.sum(), "n": torch.tensor(3)}

    a, b = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])
    (loss, aux), (ga, gb) = value_and_grad(f, argnums=(0, 1), has_aux=True)(a, b, 2.0)
    assert loss.item() == 2 * (9 + 32)
    assert aux["a"].item() == 3.0 and aux["n"].item() == 3
    assert ga.tolist() == [18.0, 32.0] and gb.tolist() == [12.0, 32.0]
    only_b, aux = grad(f, argnums=1, has_aux=True)(a, b, 2.0)
    assert only_b.tolist() == [12.0, 32.0] and aux["a"].item() == 3.0
    # a Python number can be differentiated too
    assert grad(f, argnums=2, has_aux=True)(a, b, 2.0)[0].item() == 41.0


def test_gradient_flows_only_through_the_chosen_argument() -> None:
    w = torch.tensor([1.0], requires_grad=True)
    g = grad(lambda p, q: (p * q).sum())({"w": torch.tensor([2.0])}["w"], w)
    assert g.tolist() == [1.0] and w.grad is None


def test_unused_parameters_have_zero_gradient() -> None:
    g = grad(lambda p: p["used"].sum())({"used": torch.ones(2), "idle": torch.ones(3)})
    assert g["used"].tolist() == [1.0, 1.0] and g["idle"].tolist() == [0.0, 0.0, 0.0]


# --- scan ------------------------------------------------------------------------------------


def test_scan_equals_a_loop_over_trees() -> None:
    xs = {"a": torch.arange(3.0), "b": torch.ones(3, 2)}
    carry, ys = scan(lambda c, x: (c + x["a"], (c, x["b"] * c)), torch.tensor(1.0), xs)
    assert carry.item() == 4.0
    assert ys[0].tolist() == [1.0, 1.0, 2.0]
    assert ys[1].tolist() == [[1.0, 1.0], [1.0, 1.0], [2.0, 2.0]]


def test_scan_accepts_a_length_and_no_steps() -> None:
    carry, ys = scan(lambda c, x: (c * 2, c), torch.tensor(1), length=5)
    assert carry.item() == 32 and ys.tolist() == [1, 2, 4, 8, 16]
    carry, ys = scan(lambda c, x: (c * 2, c), torch.tensor(1), torch.zeros(0))
    assert carry.item() == 1 and ys.shape == (0,) and ys.dtype == torch.int64


@pytest.mark.usefixtures("traced")
def test_scan_of_a_jitted_step_compiles_it_once() -> None:
    step = jit(lambda c, x: (c + x, c * x))
    carry, ys = scan(step, torch.tensor(0.0), torch.arange(5.0))
    assert carry.item() == 10.0 and ys.tolist() == [0.0, 0.0, 2.0, 9.0, 24.0]
    assert step.cache_size() == 1


# --- bad input -------------------------------------------------------------------------------


def test_leaf_of_an_unsupported_type_is_named_with_its_path() -> None:
    def named(batch: Any) -> Any:
        return batch

    with pytest.raises(TypeError, match=r"named.*'0/0/name' is a str; .*static_argnames"):
        jit(named)({"x": X, "name": "relu"})
    with pytest.raises(TypeError, match="'1/mode' is a str"):
        jit(lambda x, mode: x)(X, mode="fast")
    with pytest.raises(TypeError, match="is a ndarray"):
        jit(named)(np.array(["a"]))


def test_vmap_names_the_mismatch() -> None:
    add = lambda a, b: a + b  # noqa: E731
    with pytest.raises(ValueError, match=r"differ in size: 2 for '0', 3 for '1'"):
        vmap(add)(torch.zeros(2), torch.zeros(3))
    with pytest.raises(ValueError, match="no argument leaf is mapped"):
        vmap(add, in_axes=(None, None))(torch.zeros(2), torch.zeros(2))
    with pytest.raises(ValueError, match="no argument leaf is mapped"):
        vmap(add)(1.0, 2.0)
    with pytest.raises(ValueError, match=r"'0/w' of shape \(2,\) has no axis 1"):
        vmap(lambda p: p["w"], in_axes=1)({"w": torch.zeros(2)})
    with pytest.raises(ValueError, match="in_axes has 3 entries for 2 positional"):
        vmap(add, in_axes=(0, 0, 0))(torch.zeros(2), torch.zeros(2))


@pytest.mark.parametrize("leaf", [torch.tensor([1, 2]), 3, torch.tensor(True)])
def test_gradient_of_an_integer_raises(leaf: Any) -> None:
    with pytest.raises(TypeError, match=r"differentiated leaf is .*must be a floating tensor"):
        grad(lambda x: x.sum())(leaf)


def test_scan_without_one_length_raises() -> None:
    with pytest.raises(ValueError, match="must agree on one number of steps"):
        scan(lambda c, x: (c, x), X, {"a": torch.zeros(2), "b": torch.zeros(3)})
    with pytest.raises(ValueError, match="must agree on one number of steps"):
        scan(lambda c, x: (c, x), X, torch.zeros(2), length=3)
    with pytest.raises(ValueError, match="must agree on one number of steps"):
        scan(lambda c, x: (c, x), X)


def test_errors_inside_a_jitted_function_propagate(traced: None) -> None:
    def fail(x: Tensor) -> Tensor:
        raise KeyError("from the function")

    with pytest.raises(KeyError, match="from the function"):
        jit(fail)(X)
    # tracing has ended afterwards
    assert jit(lambda x: x * math.pi)(X)[0].item() == pytest.approx(math.pi)


def test_jit_keeps_the_name_and_binds_as_a_method() -> None:
    assert Model.step.__name__ == "step"
    assert isinstance(Model.step, transforms.Jitted)
    assert [f.name for f in dataclasses.fields(Model)] == ["params", "rate", "power"]


def test_torch_autograd_passes_through_compiled_code() -> None:
    if transforms.compiler_problem(torch.device("cpu")) is not None:
        pytest.skip("needs a C++ compiler")
    w = torch.tensor([1.0, 2.0], requires_grad=True)
    square = jit(lambda w: (w * w).sum())
    assert square(w.detach()).item() == 5.0
    square(w).backward()
    assert w.grad is not None and w.grad.tolist() == [2.0, 4.0]


def _adds(x: Tensor) -> Tensor:
    x += 1.0
    return x * 2


@pytest.mark.parametrize(
    "outer",
    [
        lambda fn: grad(lambda x: fn(x).sum() * x.sum()),
        lambda fn: vmap(lambda x: (fn(x), x)),
        lambda fn: jit(lambda x: (fn(x), x)),
        lambda fn: grad(lambda x: grad(lambda y: (fn(y).sum(), y), has_aux=True)(x)[1].sum()),
    ],
)
def test_jitted_function_inside_a_transform_writes_into_nothing_of_it(
    outer: Callable[..., Any],
) -> None:
    x = torch.tensor([2.0, 3.0])
    with pytest.raises(TypeError, match=r"jit\(_adds\): the function writes into an argument"):
        outer(jit(_adds))(x)
    assert x.tolist() == [2.0, 3.0]
    assert jit(_adds)(x).tolist() == [6.0, 8.0] and x.tolist() == [2.0, 3.0]


def _sets(x: Tensor) -> None:
    x[0] = 1.0


@pytest.mark.parametrize(
    "write",
    [
        _adds,
        _sets,
        lambda x: x[1:].mul_(3),
        lambda x: x.data.zero_(),
        lambda x: x.detach().reshape(2, 1).fill_(1),
        lambda x: torch.add(x, 1, out=x),
        lambda x: torch.aminmax(x, out=(x[0], x[1])),
        lambda x: torch.nn.functional.relu(-x, inplace=True) + torch.relu_(x),
        lambda x: torch.nn.functional.relu(x, True),
        lambda x: torch.nn.functional.elu(x, inplace=True),
        lambda x: torch.ops.aten._foreach_add_([x], 1),
        torch.nn.init.zeros_,
        lambda x: vmap(lambda y: y.add_(1))(x) + x.add_(1),
    ],
)
def test_jitted_function_that_runs_eagerly_is_stopped_before_it_writes(
    write: Callable[[Tensor], Any],
) -> None:
    x = torch.tensor([2.0, 3.0])
    with disable_jit(), pytest.raises(TypeError, match="writes into an argument; write x = x"):
        jit(write)(x)
    assert x.tolist() == [2.0, 3.0]
    array = np.array([2.0, 3.0], dtype=np.float32)
    with disable_jit(), pytest.raises(TypeError, match="writes into an argument; write x = x"):
        jit(write)(torch.from_numpy(array))
    assert array.tolist() == [2.0, 3.0]


def test_jitted_function_that_runs_eagerly_may_write_into_its_own_tensors() -> None:
    def fn(x: Tensor) -> Tensor:
        y = x.clone().requires_grad_()
        total = torch.zeros(2).add_(y)
        total[0] += 1
        return torch.nn.functional.relu(total, inplace=True)

    with disable_jit():
        assert jit(fn)(torch.tensor([2.0, 3.0])).tolist() == [3.0, 3.0]
