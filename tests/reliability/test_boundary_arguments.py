"""Every public function with hostile values for every argument: one sentence, or a right result."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import hostile_values
import numpy as np
import public_calls
import pytest
import torch
from tiny_learners import ACT, OBS, box, make_batch, make_state_learner
from trials import AtMost, Tally, spread

import idql_func
from idql_func import (
    agents,
    data,
    disable_jit,
    distributions,
    envs,
    evaluation,
    interop,
    jit,
    losses,
    networks,
    optim,
    random,
    scan,
    struct,
    transforms,
)
from idql_func.compiler.inductor import without_code_generation
from idql_func.data.d4rl import qlearning_arrays
from idql_func.training import updates
from idql_func.training.runs import checkpoint

pytestmark = pytest.mark.reliability

EACH, BOUNDED = 3, 13
"""Hostile values for each argument in the short form, and in the long one unless all are given."""


@pytest.fixture(autouse=True)
def eager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)  # an empty path names the working directory
    with disable_jit():
        yield


def walk(group: str, each: int) -> Counter[str]:
    """Call each function of a group with hostile values; the counts of the outcomes."""
    counts: Counter[str] = Counter()
    bad: list[Any] = []
    labels = [*hostile_values.values()]
    every = [
        (name, call, argument, label)
        for name, call in public_calls.GROUPS[group]()
        for argument in call[1]
        for label in labels
    ]
    for name, (fn, arguments), argument, label in spread(every, each * len(every) // len(labels)):
        given = {**arguments, argument: hostile_values.values()[label]}
        kind, text = hostile_values.outcome(lambda fn=fn, given=given: fn(**given))
        counts["trials"] += 1
        counts[kind] += 1
        if kind in ("raw", "hang"):
            bad.append((name, argument, label, kind, text[:200]))
    assert not bad, bad
    return counts


@pytest.mark.parametrize("group", public_calls.GROUPS)
def test_hostile_arguments(group: str) -> None:
    walk(group, EACH)


@pytest.mark.slow
@pytest.mark.parametrize("group", public_calls.GROUPS)
def test_all_hostile_arguments(group: str, at_most: AtMost, tally: Tally) -> None:
    tally("arguments", group, walk(group, at_most(BOUNDED)))


def test_there_are_at_least_900_hostile_arguments() -> None:
    calls = [call for group in public_calls.GROUPS.values() for _, call in group()]
    assert EACH * sum(len(arguments) for _, arguments in calls) >= 900


NOT_CALLED = {
    "debug", "random", "struct", "initializers",  # modules
    "threefry_partitionable", "inside_transform", "compiler_problem", "Jitted",
    "Agent", "EnvSource", "EpisodeOptions", "Update", "ENV_NAME",  # base class, types, a constant
    "encoder_modules",  # names of encoders
    "training_update",  # takes a class
    "device_of", "explain_module", "explained_methods", "describe", "misfit",
    "PyTreeNode", "field", "GradientTransformation", "EmptyState", "MaskedState",
    "ScaleByAdamState", "ScaleByScheduleState", "ConstantSchedule", "CosineDecaySchedule",
    # made by functions that are called
    "ScaleByAdam", "AddDecayedWeights", "ScaleByLearningRate", "Chain", "Clip", "ClipByGlobalNorm",
    "Identity", "JoinedSchedules", "LinearSchedule", "ScaleBySchedule", "Trace", "TraceState",
    "OptState", "Schedule", "Distribution",
}  # fmt: skip
MODULES = [
    idql_func, agents, checkpoint, data, distributions, envs, evaluation, interop, losses,
    networks, networks.initializers, optim, random, struct, transforms, updates,
]  # fmt: skip


def public_names(module: Any) -> set[str]:
    """What a module names as public, or else its own functions and classes."""
    own = {k for k, v in vars(module).items() if getattr(v, "__module__", "") == module.__name__}
    return {name for name in getattr(module, "__all__", own) if not name.startswith("_")}


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_each_public_function_is_called(module: Any) -> None:
    names = {name for group in public_calls.GROUPS.values() for name, _ in group()}
    called = {part for name in names for part in name.replace(" ", ".").split(".")[:1]}
    missing = public_names(module) - called - NOT_CALLED
    assert not missing, missing


# --- what was taken silently ----------------------------------------------------------------

nan, inf = float("nan"), float("inf")
LEARNERS = public_calls.learners()


def transitions(**changes: Any) -> dict[str, Any]:
    n = 8
    steps = {
        "observations": np.zeros((n, 2)),
        "actions": np.zeros((n, 1)),
        "rewards": np.arange(n, dtype=float),
        "terminals": np.arange(n) % 4 == 3,
        "timeouts": np.zeros(n),
    }
    return {**steps, **changes}


def buffer_with(**changes: Any) -> None:
    row = {name: value[0] for name, value in public_calls.ARRAYS.items()}
    data.ReplayBuffer(box(OBS), box(ACT), 9).insert({**row, **changes})


def dataset() -> data.Dataset:
    return data.Dataset(dict(public_calls.ARRAYS))


def create(name: str, seed: Any = 0, observations: Any = None, actions: Any = None) -> Any:
    cls, settings = LEARNERS[name]
    observations = box(OBS) if observations is None else observations
    return cls.create(seed, observations, box(ACT) if actions is None else actions, **settings)


SPACES = {
    "MultiDiscrete": gym.spaces.MultiDiscrete([2, 3, 4]),
    "MultiBinary": gym.spaces.MultiBinary(3),
}
SILENT: dict[str, Callable[[], Any]] = {
    **{
        f"{name}: {kind} {what}": lambda name=name, space=space, what=what: create(
            name, **{what: space}
        )
        for name in LEARNERS
        for kind, space in SPACES.items()
        for what in ("observations", "actions")
    },
    **{
        f"{name}: seed {seed}": lambda name=name, seed=seed: create(name, seed)
        for name in LEARNERS
        for seed in (2**63, 2**32, -(2**31) - 1, True)
    },
    **{
        f"{key} {value}": lambda key=key, value=value: qlearning_arrays(
            transitions(**{key: np.full(8, value)})
        )
        for key in ("terminals", "timeouts")
        for value in (0.5, -1.0, 2.0)
    },
    **{f"done {value}": lambda value=value: buffer_with(dones=value) for value in (0.5, -1, 2)},
    **{
        f"normalize_returns({value})": lambda value=value: dataset().normalize_returns(value)
        for value in (nan, inf, 0, -1, True)
    },
    **{
        f"scan(length={value})": lambda value=value: scan(
            lambda c, x: (c, c),
            torch.tensor(0.0),
            None,
            value,  # type: ignore
        )
        for value in (-1, True, 2.5, nan)
    },
    "scan(reverse='no')": lambda: scan(
        lambda c, x: (c, c),
        torch.tensor(0.0),
        torch.ones(2),
        reverse="no",  # type: ignore
    ),
    "split(nan)": lambda: dataset().split(nan),
    "queue of 2**63": lambda: next(dataset().get_iterator(2**63, {"batch_size": 1})),
    "dones 0.5": lambda: data.Dataset({"rewards": np.ones(2), "dones": np.full(2, 0.5)}).filter(
        take_top=50
    ),
    **{f"Dropout({rate})": lambda rate=rate: networks.Dropout(rate) for rate in (-0.1, nan, 2)},
    **{
        f"MLP of {size}": lambda size=size: networks.MLP(size, [4])  # type: ignore
        for size in (True, 2.5)
    },
    **{
        f"{name}({steps})": lambda name=name, steps=steps: getattr(networks, name)(steps)
        for name in ("cosine_beta_schedule", "linear_beta_schedule", "vp_beta_schedule")
        for steps in (2.5, True)
    },
    **{
        f"decay_steps {steps}": lambda steps=steps: optim.cosine_decay_schedule(0.1, steps)  # type: ignore
        for steps in (2.5, nan, True)
    },
    "enable_x64('no')": lambda: idql_func.enable_x64("no").__enter__(),  # type: ignore[arg-type]
    "tree_stack([])": lambda: idql_func.tree_stack([]),
    "split(key, -1)": lambda: random.split(random.PRNGKey(0), -1),
    "meta batch": lambda: make_state_learner("bc").update(
        {name: value.to("meta") for name, value in make_batch().items()}
    ),
    "sparse batch": lambda: make_state_learner("bc").update(
        {name: value.to_sparse() for name, value in make_batch().items()}
    ),
}


@pytest.mark.parametrize("name", SILENT)
def test_what_was_taken_silently_is_refused(name: str) -> None:
    kind, text = hostile_values.outcome(SILENT[name])
    assert kind == "sentence", text


@pytest.mark.parametrize("step", ["../../x", "x", None])
def test_a_checkpoint_is_written_into_its_folder(step: Any, tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    save: Callable[..., Any] = interop.save_checkpoint
    for keywords in ({"step": step}, {"step": 1, "prefix": "../"}):
        kind, text = hostile_values.outcome(lambda k=keywords: save(folder, {"w": 1.0}, **k))
        assert kind == "sentence", text
    assert not [*tmp_path.rglob("*x*")]


def test_a_jitted_item_is_refused() -> None:
    with disable_jit(False), without_code_generation():
        kind, text = hostile_values.outcome(lambda: jit(lambda x: x.sum().item())(torch.ones(2)))
    assert kind == "sentence", text


@pytest.mark.parametrize("name", ["bc", "iql", "sac", "td3", "fql", "ifql", "rebrac"])
def test_actions_of_observations_that_require_a_gradient(name: str) -> None:
    learner = make_state_learner(name)
    observations = torch.ones(2, OBS, requires_grad=True)
    actions, _ = learner.eval_actions(observations)
    np.testing.assert_array_equal(actions, learner.eval_actions(observations.detach())[0])


# --- where errors pass unchanged --------------------------------------------------------------


@pytest.mark.parametrize("disabled", [False, True])
def test_a_scalar_tensor_stands_for_a_number(disabled: bool) -> None:
    """Also where a jitted function runs eagerly, so that ``disable_jit`` changes no outcome."""

    def step(rate: torch.Tensor) -> torch.Tensor:
        tx = optim.adam(rate, b1=rate * 900)  # type: ignore[arg-type]
        params = {"w": torch.ones(2)}
        return tx.update({"w": torch.ones(2)}, tx.init(params), params)[0]["w"]

    rate = torch.tensor(1e-3)
    with disable_jit() if disabled else contextlib.nullcontext():
        torch.testing.assert_close(jit(step)(rate), step(rate))
        torch.testing.assert_close(step(rate), torch.full((2,), -1e-3))
    assert losses.exp_w_clip(torch.ones(2), torch.tensor(5.0)).shape == (2,)  # type: ignore[arg-type]


def test_an_error_of_the_callers_function_passes() -> None:
    def fails(x: Any) -> Any:
        return {}["absent"]

    with pytest.raises(KeyError):
        idql_func.vmap(fails)(torch.ones(2))
    with pytest.raises(KeyError):
        idql_func.tree_map(fails, {"a": torch.ones(2)})
    with pytest.raises(ZeroDivisionError):
        optim.ScaleByLearningRate(lambda count: 1 // 0).update({}, optim.ScaleByScheduleState(0))  # type: ignore


def test_the_original_error_is_the_cause() -> None:
    with pytest.raises(ValueError, match="the shapes do not fit") as error:
        losses.expectile_loss(torch.ones(2), torch.ones(3))
    assert isinstance(error.value.__cause__, RuntimeError)
