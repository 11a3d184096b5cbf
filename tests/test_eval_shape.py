"""``eval_shape``: shapes and dtypes of real calls, without running them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from idql_func import (
    ShapeDtypeStruct,
    disable_jit,
    dynamic_slice_in_dim,
    enable_x64,
    eval_shape,
    grad,
    jit,
    networks,
    optim,
    random,
    scan,
    tree_map,
    vmap,
)
from idql_func.agents import BCLearner, DDPMIQLLearner, IQLLearner, SACLearner, TD3Learner
from idql_func.compiler import torch_internals
from idql_func.distributions import Categorical

KEY = random.PRNGKey(0)
NET = networks.MLP(3, [4, 2])
PARAMS = NET.init(KEY)
F32 = torch.float32


def struct(x: Tensor) -> ShapeDtypeStruct:
    return ShapeDtypeStruct(tuple(x.shape), x.dtype)


def draws(key: Tensor) -> Any:
    first, second = random.split(key)
    return {
        "normal": random.normal(first, (2, 3)),
        "int": random.randint(second, (4,), 0, 9),
        "choice": random.choice(first, 9, (2,), replace=False),
        "permutation": random.permutation(second, 5),
        "category": Categorical(logits=torch.zeros(2, 3)).sample(first),
    }


def step(params: Any, x: Tensor) -> Any:
    tx = optim.adam(0.1)
    slopes = grad(lambda p: NET.apply(p, x).square().sum())(params)
    return optim.step(tx, slopes, tx.init(params), params)


FUNCTIONS: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "draws": (draws, (KEY,)),
    "key of a seed": (random.PRNGKey, (3,)),
    "numbers": (lambda n, x: {"sum": n + x, "n": n}, (3, 0.5)),
    "constants": (lambda x: (1, 2.0, np.float32(3), x > 0, None), (torch.ones(2),)),
    "network": (NET.apply, (PARAMS, torch.ones(5, 3))),
    "init": (NET.init, (KEY,)),
    "step": (step, (PARAMS, torch.ones(5, 3))),
    "jit of vmap": (jit(vmap(lambda x: x.sum())), (torch.ones(4, 2),)),
    "scan": (lambda x: scan(lambda c, y: (c + y, c), torch.tensor(0.0), x), (torch.ones(3),)),
    "slice": (lambda x, i: dynamic_slice_in_dim(x, i, 2), (torch.ones(3, 2), torch.tensor(1))),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("x64", [False, True])
def test_shapes_are_those_of_a_call(name: str, x64: bool) -> None:
    fn, args = FUNCTIONS[name]
    with enable_x64(x64), disable_jit():
        made = vmap(lambda _: fn(*args), axis_size=1)(torch.zeros(1))  # constants become tensors
        expected = tree_map(lambda x: ShapeDtypeStruct(tuple(x.shape[1:]), x.dtype), made)
        assert eval_shape(fn, *args) == expected


SMALL = {"hidden_dims": (4,)}
LEARNERS: dict[Any, dict[str, Any]] = {
    BCLearner: SMALL,
    IQLLearner: SMALL,
    SACLearner: SMALL,
    TD3Learner: SMALL,
    DDPMIQLLearner: {"critic_hidden_dims": (4,), "actor_num_blocks": 1, "time_dim": 4},
}


@pytest.mark.parametrize("cls", LEARNERS, ids=lambda cls: cls.__name__)
def test_learners(cls: Any) -> None:
    box = gym.spaces.Box(-1, 1, (2,))
    learner = cls.create(0, box, box, **LEARNERS[cls])
    names = ("observations", "actions", "next_observations", "rewards", "masks", "dones")
    batch = {name: torch.ones(8, 2) if k < 3 else torch.ones(8) for k, name in enumerate(names)}
    new, info = eval_shape(cls.update, learner, batch)
    assert type(new) is cls
    with disable_jit():
        expected, logged = learner.update(batch)
    tree_map(_same, new, expected)
    assert info.keys() == logged.keys()
    assert all(leaf == ShapeDtypeStruct((), F32) for leaf in info.values())


def _same(found: ShapeDtypeStruct, x: Any) -> None:
    assert isinstance(found, ShapeDtypeStruct)
    if isinstance(x, Tensor):
        assert found == struct(x)
    else:
        assert found.shape == ()


def test_nothing_runs_and_nothing_is_allocated() -> None:
    huge = ShapeDtypeStruct((10**6, 10**6), F32)  # four terabytes
    found = eval_shape(lambda x: (x @ x.mT, torch.tanh(x)[0], x.sum()), huge)
    assert [leaf.shape for leaf in found] == [(10**6, 10**6), (10**6,), ()]
    calls: list[Tensor] = []

    def noted(x: Tensor) -> Tensor:
        calls.append(x)
        return x

    eval_shape(noted, torch.ones(3))
    assert len(calls) == 1 and type(calls[0]) is not Tensor


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 4), max_size=3), st.sampled_from([np.float32, "int32", torch.bool]))
def test_a_struct_stands_for_its_tensor(shape: list[int], dtype: Any) -> None:
    x = ShapeDtypeStruct(shape, dtype)
    assert eval_shape(lambda t: t, x) == x and x.ndim == len(shape)
    assert x.size == np.prod(shape, dtype=int)
    assert eval_shape(lambda t: t[None], x).shape == (1, *shape)
    assert {x: 1}[ShapeDtypeStruct(tuple(shape), x.dtype)] == 1


def test_inside_other_transforms() -> None:
    def f(x: Tensor) -> Tensor:
        return x * len(eval_shape(lambda y: y[1:], x))

    x = torch.ones(2, 4)
    assert vmap(f)(x).tolist() == [[3.0] * 4] * 2
    assert grad(lambda x: f(x).sum())(x[0]).tolist() == [3.0] * 4
    assert jit(f)(x[0]).tolist() == [3.0] * 4
    nested = eval_shape(lambda x: eval_shape(f, x) and x, x)
    assert nested == struct(x)


def test_without_the_private_part_it_runs_on_zeros(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_internals, "fake_tensor_mode", lambda: None)
    found = eval_shape(step, PARAMS, torch.ones(5, 3))
    assert found[0] == tree_map(struct, PARAMS)


# --- bad input ----------------------------------------------------------------------------------


X = torch.ones(3)
BAD: dict[str, tuple[Callable[[], Any], str]] = {
    "text": (
        lambda: eval_shape(lambda x: x, {"a": "text"}),
        "argument leaf '0/a' is 'text'; leaves must be tensors, arrays, numbers or Shape",
    ),
    "result": (
        lambda: eval_shape(lambda x: {"a": "text"}, X),
        "the function returns 'a' as 'text'; the leaves of a result must be tensors",
    ),
    "value": (
        lambda: eval_shape(lambda x: x if x.sum() > 0 else -x, X),
        "reads the value of a traced tensor",
    ),
    "no function": (lambda: eval_shape(3, X), "eval_shape: fun must be a function, got 3."),  # type: ignore
    "shape": (lambda: ShapeDtypeStruct((-1,), F32), "shape must be a sequence of integers of 0"),
    "dtype": (lambda: ShapeDtypeStruct((1,), "text"), "dtype must be one of torch, got 'text'."),
    "length": (lambda: len(ShapeDtypeStruct((), F32)), "one without axes has no length"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence(name: str) -> None:
    call, message = BAD[name]
    with pytest.raises(TypeError, match=re.escape(message)) as found:
        call()
    assert "\n" not in str(found.value)


def test_a_wrong_shape_raises_as_in_a_call() -> None:
    with pytest.raises(RuntimeError):
        eval_shape(lambda x: x @ torch.ones(4), X)
