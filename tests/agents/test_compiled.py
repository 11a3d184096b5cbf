"""One update of each learner: eager, compiled and mapped over stacked seeds agree.

Compiling an update takes tens of seconds of CPU. So each learner is compiled once here, and the
mapped update is compiled only with ``-m slow``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny_learners import ACT, OBS, SMALL, box, make_batch, make_state_learner
from torch._dynamo.utils import counters

from idql_func import disable_jit, jit, tree_leaves, tree_map, tree_stack, tree_unstack, vmap
from idql_func.agents import (
    DDPMIQLLearner,
    GeneralDDPMIQLLearner,
    bc,
    candidates,
    ddpm_iql,
    iql,
    joint,
    rebrac,
    sac,
    td3,
)
from idql_func.transforms import compiler_problem
from idql_func.tree import tree_paths

SEEDS = 4
TOLERANCE = 1e-5


def make_simple(seed: int) -> Any:
    settings = {**SMALL, "actor_num_blocks": 1, "actor_dropout_rate": 0.1}
    return DDPMIQLLearner.create(seed, box(OBS), box(ACT), **settings, discount=0.9 + seed / 100)


def make_general(seed: int) -> Any:
    return GeneralDDPMIQLLearner.create(
        seed,
        box(OBS),
        box(ACT),
        **SMALL,
        actor_hidden_dims=(16,),
        actor_objective="exp_adv",
        critic_objective="quantile",
        discount=0.9 + seed / 100,
    )


def maker(name: str) -> Callable[[int], Any]:
    return lambda seed: make_state_learner(name, seed)


# the learner of a seed, and the compiled function behind its update
LEARNERS: dict[str, tuple[Callable[[int], Any], Any]] = {
    "simple": (make_simple, ddpm_iql._update),
    "general": (make_general, ddpm_iql._update),
    "bc-full": (maker("bc-full"), bc._update),
    "iql": (maker("iql"), iql._update),
    "sac": (maker("sac"), sac._update),
    "droq": (maker("droq"), sac._update),
    "td3-full": (maker("td3-full"), td3._update),
    "fql": (maker("fql"), joint._update),
    "ifql": (maker("ifql"), joint._update),
    "rebrac": (maker("rebrac"), rebrac._update),
}
# these take the longest to compile; the others share most of the code of the last two, and
# tests/parity compiles the updates of the first and the last three
SLOW = ("simple", "droq", "td3-full", "fql", "ifql", "rebrac")

needs_compiler = pytest.mark.skipif(
    compiler_problem(torch.device("cpu")) is not None, reason="needs a C++ compiler"
)


@pytest.fixture(
    scope="module",
    params=[pytest.param(n, marks=pytest.mark.slow if n in SLOW else ()) for n in LEARNERS],
)
def eager(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Four learners of different seeds, four batches, the eager updates."""
    make, program = LEARNERS[request.param]
    learners = [make(seed) for seed in range(SEEDS)]
    batches = [make_batch(seed) for seed in range(SEEDS)]
    with disable_jit():
        results = [learner.update(b) for learner, b in zip(learners, batches, strict=True)]
    return {
        "cls": type(learners[0]),
        "learners": learners,
        "batches": batches,
        "results": results,
        "program": program,
    }


@pytest.fixture(scope="module")
def compiled(eager: dict[str, Any]) -> dict[str, Any]:
    """The same updates compiled, and the compiler's counters after each of them."""
    programs = eager["program"].cache_size()
    counters.clear()
    results, counted = [], []
    for learner, batch in zip(eager["learners"], eager["batches"], strict=True):
        results.append(learner.update(batch))
        counted.append({name: dict(counts) for name, counts in counters.items()})
    return {
        "results": results,
        "counted": counted,
        "programs": eager["program"].cache_size() - programs,
    }


def assert_agree(actual: Any, expected: Any) -> None:
    """Keys and counts equal; every other leaf within the tolerance, relative in norm."""
    actual, expected = (tree_map(torch.as_tensor, tree) for tree in (actual, expected))
    for path, a, b in zip(
        tree_paths(expected), tree_leaves(actual), tree_leaves(expected), strict=True
    ):
        assert a.shape == b.shape, path
        if not b.is_floating_point():
            assert torch.equal(a.to(b.dtype), b), path
        else:
            error = (a.double() - b.double()).norm()
            assert error <= TOLERANCE * b.double().norm() + 1e-12, path


@needs_compiler
def test_compiled_equals_eager(eager: dict[str, Any], compiled: dict[str, Any]) -> None:
    for actual, expected in zip(compiled["results"], eager["results"], strict=True):
        assert_agree(actual, expected)
        numbers = [x for x in tree_leaves(expected[0]) if not isinstance(x, torch.Tensor)]
        kept = [x for x in tree_leaves(actual[0]) if not isinstance(x, torch.Tensor)]
        assert kept == numbers  # hyper-parameters stay Python numbers


@needs_compiler
def test_update_is_one_graph_without_recompiles(compiled: dict[str, Any]) -> None:
    first, last = compiled["counted"][0], compiled["counted"][-1]
    assert first["aot_autograd"]["total"] == 1
    # other seeds, batches and discounts cause no recompilation
    assert last == first
    assert compiled["programs"] == 1


def test_vmapped_updates_equal_eager(eager: dict[str, Any]) -> None:
    with disable_jit():
        mapped = vmap(eager["cls"].update)(
            tree_stack(eager["learners"]), tree_stack(eager["batches"])
        )
    for actual, expected in zip(tree_unstack(mapped), eager["results"], strict=True):
        assert_agree(actual, expected)


@pytest.mark.slow
@needs_compiler
def test_compiled_vmapped_updates_equal_eager(eager: dict[str, Any]) -> None:
    update = jit(vmap(eager["cls"].update))
    counters.clear()
    stacked, batches = tree_stack(eager["learners"]), tree_stack(eager["batches"])
    mapped = update(stacked, batches)
    for actual, expected in zip(tree_unstack(mapped), eager["results"], strict=True):
        assert_agree(actual, expected)
    first = {name: dict(counts) for name, counts in counters.items()}
    assert first["aot_autograd"]["total"] == 1
    update(mapped[0], batches)
    assert {name: dict(counts) for name, counts in counters.items()} == first


@needs_compiler
@pytest.mark.parametrize("rows", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_compiled_actions_equal_eager(rows: int) -> None:
    """There are enough candidates that each time is encoded only once, in one program."""
    learner = make_simple(0).replace(N=8)
    observations = torch.linspace(-1, 1, rows * OBS).reshape(rows, OBS)
    with disable_jit():
        expected, after = learner.eval_actions(observations)
    programs = candidates._greedy_actions.cache_size()
    actions, compiled_after = learner.eval_actions(observations)
    assert candidates._greedy_actions.cache_size() == programs + 1
    assert torch.equal(compiled_after.rng, after.rng)
    torch.testing.assert_close(
        torch.from_numpy(actions), torch.from_numpy(expected), atol=1e-5, rtol=0
    )
    # another learner of the same shapes and another key do not compile a second program
    make_simple(1).replace(N=8, rng=compiled_after.rng).eval_actions(observations)
    assert candidates._greedy_actions.cache_size() == programs + 1
