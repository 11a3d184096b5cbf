"""Learners and functions pass through ``torch.compile(fullgraph=True)`` and ``torch.export``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from pixel_learners import batch_of, create
from tiny_learners import (
    ACT,
    OBS,
    STATE_LEARNERS,
    TINY,
    box,
    make_batch,
    make_state_learner,
    same,
)
from torch import Tensor

from idql_func import (
    disable_jit,
    enable_x64,
    grad,
    jit,
    random,
    tree_flatten,
    tree_leaves,
    tree_map,
    value_and_grad,
    vmap,
)
from idql_func.agents import DDPMIQLLearner, GeneralDDPMIQLLearner

DIFFUSION = {"simple": DDPMIQLLearner, "general": GeneralDDPMIQLLearner}


def make(name: str) -> Any:
    if name in DIFFUSION:
        cls = DIFFUSION[name]
        return cls.create(0, box(OBS), box(ACT), **TINY[cls])
    return make_state_learner(name)


def update(name: str) -> Callable[[Any, Any], Any]:
    keywords = STATE_LEARNERS[name][2] if name in STATE_LEARNERS else {}
    return lambda learner, batch: learner.update(batch, **keywords)


OBSERVATION = torch.linspace(-1, 1, OBS)
ACTIONS: dict[str, Callable[[Any, Any], Any]] = {
    "sample_actions": lambda learner, obs: learner.sample_actions(obs),
    "eval_actions": lambda learner, obs: learner.eval_actions(obs),
}


# --- tools ------------------------------------------------------------------------------


class Graphs:
    """A backend of ``torch.compile`` that counts the graphs."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, graph: torch.fx.GraphModule, inputs: list[Any]) -> Any:
        from torch._dynamo.backends.debugging import aot_eager

        self.count += 1
        return aot_eager(graph, inputs)


def compiled(fn: Callable[..., Any], *args: Any) -> Any:
    """The result of ``torch.compile``, which must be one graph."""
    torch._dynamo.reset()
    graphs = Graphs()
    result = torch.compile(fn, fullgraph=True, backend=graphs)(*args)
    assert graphs.count == 1
    return result


def exported(fn: Callable[..., Any], *args: Any) -> Any:
    """The result of the program of ``torch.export``."""

    class Called(torch.nn.Module):
        def forward(self, *args: Any) -> Any:
            return fn(*args)

    return torch.export.export(Called(), args, strict=False).module()(*args)


TOOLS = {"compile": compiled, "export": exported}


def check(tool: str, fn: Callable[..., Any], *args: Any) -> Any:
    with disable_jit():
        expected = fn(*args)
    result = TOOLS[tool](fn, *args)
    assert tree_flatten(result)[1] == tree_flatten(expected)[1]
    for got, value in zip(tree_leaves(result), tree_leaves(expected), strict=True):
        np.testing.assert_allclose(got, value, rtol=1e-5, atol=1e-6)
    return result


def cases(names: list[str], *quick: str) -> list[Any]:
    """The names with each tool; those that are not quick are marked slow."""
    return [
        pytest.param(name, tool, marks=[] if name in quick else [pytest.mark.slow])
        for name in names
        for tool in TOOLS
    ]


# --- learners ---------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "tool"), cases([*DIFFUSION, *STATE_LEARNERS], "bc"))
def test_update_is_one_graph_and_equals_eager(name: str, tool: str) -> None:
    check(tool, update(name), make(name), make_batch())


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize(
    ("name", "tool"), cases([*DIFFUSION, "iql", "bc", "sac", "td3"], "simple", "iql")
)
def test_action_choice_is_one_graph_and_equals_eager(name: str, action: str, tool: str) -> None:
    actions, _ = check(tool, ACTIONS[action], make(name), OBSERVATION)
    assert isinstance(actions, np.ndarray if tool == "compile" else Tensor)


@pytest.mark.parametrize(("name", "tool"), cases(["drq", "bc"]))
def test_pixel_learner_is_one_graph_and_equals_eager(name: str, tool: str) -> None:
    check(tool, lambda learner, batch: learner.update(batch), create(name), batch_of(name))


def test_result_of_torch_compile_is_a_learner_like_any_other() -> None:
    learner, batch = make("bc"), make_batch()
    step = torch.compile(update("bc"), fullgraph=True, backend="aot_eager")
    result = step(step(learner, batch)[0], batch)[0]
    with disable_jit():
        expected = learner.update(batch)[0].update(batch)[0]
    assert same(result, expected)
    assert same(result.update(batch), expected.update(batch))  # compiled by jit


# --- functions --------------------------------------------------------------------------


KEY, X = random.PRNGKey(3), torch.linspace(-1, 1, 6).reshape(3, 2)
_gradient = grad(lambda tree: (tree["a"] ** 3).sum())
_mapped = vmap(lambda x, k: x * random.normal(k, (2,)), in_axes=(0, None))
_both = jit(lambda x, k: value_and_grad(lambda y: (y * random.uniform(k, (2,))).sum())(x))
FUNCTIONS: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "split": lambda x, k: random.split(k, 3),
    "normal": lambda x, k: random.normal(k, (4,)),
    "uniform": lambda x, k: random.uniform(k, (4,)),
    "randint": lambda x, k: random.randint(k, (4,), 0, 9),
    "permutation": lambda x, k: random.permutation(k, x),
    "choice": lambda x, k: random.choice(k, 5, (2,)),
    "fold_in": lambda x, k: random.fold_in(k, 7),
    "tree_map": lambda x, k: tree_map(lambda y: y + 1, {"a": x, "b": (x, x)}),
    "grad": lambda x, k: _gradient({"a": x}),
    "vmap": _mapped,
    "jit": _both,
}


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_function_is_one_graph_and_equals_eager(name: str, tool: str) -> None:
    check(tool, FUNCTIONS[name], X, KEY)


def test_torch_compile_notices_a_switch() -> None:
    torch._dynamo.reset()
    draw = torch.compile(lambda key: random.normal(key, (2,)), fullgraph=True, backend="aot_eager")
    for _ in range(2):
        assert torch.equal(draw(KEY), random.normal(KEY, (2,)))
        with enable_x64():
            assert torch.equal(draw(KEY), random.normal(KEY, (2,)))
        with random.threefry_partitionable(True):
            assert torch.equal(draw(KEY), random.normal(KEY, (2,)))


def test_jitted_function_inside_torch_compile_notices_a_switch() -> None:
    torch._dynamo.reset()
    draw = jit(lambda key: {"x": random.normal(key, (2,))})
    outer = torch.compile(draw, fullgraph=True, backend="aot_eager")
    for layout in (False, True, False):
        with random.threefry_partitionable(layout):
            assert torch.equal(outer(KEY)["x"], random.normal(KEY, (2,)))


def test_gradient_passes_through_a_jitted_function_inside_torch_compile() -> None:
    torch._dynamo.reset()
    square = jit(lambda tree: {"b": tree["a"] ** 2})
    total = torch.compile(
        lambda x: square({"a": x})["b"].sum(), fullgraph=True, backend="aot_eager"
    )
    x = torch.tensor([1.0, -2.0], requires_grad=True)
    total(x).backward()
    assert x.grad is not None and x.grad.tolist() == [2.0, -4.0]
