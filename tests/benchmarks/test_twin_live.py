"""The JAX twin and the port side by side in one process: same numbers in, same numbers out."""

# pyright: reportMissingImports=false
# ruff: noqa: E402 (what needs JAX comes after the question whether it is there)
from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

for _name in ("jax", "flax", "optax"):
    pytest.importorskip(_name, reason=f"the benchmark's JAX side needs {_name}")

import jax
import jax.numpy as jnp
import twin_side

from benchmarks.twin import loop
from benchmarks.twin.actor_critic import SAC
from benchmarks.twin.idql import IDQL
from benchmarks.twin.steps import adopt
from idql_func import disable_jit, random
from idql_func.agents import DDPMIQLLearner, SACLearner

_OBS, _ACT, _BATCH, _STEPS = 5, 3, 16, 4
_SPACES = gym.spaces.Box(-1, 1, (_OBS,)), gym.spaces.Box(-1, 1, (_ACT,))
_KWARGS = {"critic_hidden_dims": (16, 16), "actor_num_blocks": 1, "actor_dropout_rate": 0.1}


@pytest.fixture(autouse=True)
def _layout() -> Any:
    with jax.threefry_partitionable(False), disable_jit():
        yield


def _batch(step: int) -> dict[str, np.ndarray]:
    draws = np.random.default_rng(step)
    columns = {
        "observations": draws.standard_normal((_BATCH, _OBS)),
        "actions": draws.uniform(-1, 1, (_BATCH, _ACT)),
        "rewards": draws.uniform(-1, 1, _BATCH),
        "masks": np.ones(_BATCH),
        "next_observations": draws.standard_normal((_BATCH, _OBS)),
    }
    return {name: column.astype(np.float32) for name, column in columns.items()}


def _tensors(batch: dict[str, Any]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(np.array(column)) for name, column in batch.items()}


def _adopted(learner: Any, port: Any, *names: str) -> Any:
    return adopt(learner, twin_side.port_trees(port, names), port.rng.numpy().astype(np.uint32))


def _idql() -> tuple[Any, IDQL]:
    port = DDPMIQLLearner.create(3, *_SPACES, N=8, **_KWARGS)
    twin = IDQL.create(0, _OBS, _ACT, N=8, **_KWARGS)
    return port, _adopted(twin, port, "score_model", "critic", "value")


def _assert_equal_params(twin: Any, port: Any, names: tuple[str, ...]) -> None:
    for name in names:
        leaves = jax.tree.leaves_with_path(getattr(twin, name).params)
        for path, leaf in leaves:
            there = getattr(port, name).params
            for part in path:
                there = there[part.key]
            np.testing.assert_allclose(leaf, there.numpy(), rtol=2e-4, atol=2e-6)


def test_idql_updates_and_acts_as_the_port() -> None:
    port, twin = _idql()
    update = jax.jit(IDQL.update)
    for step in range(_STEPS):
        batch = _batch(step)
        port, info = port.update(_tensors(batch))
        twin, twin_info = update(twin, batch)
        assert set(twin_info) == set(info)
        for name, value in info.items():
            np.testing.assert_allclose(twin_info[name], value.numpy(), rtol=1e-3, atol=1e-6)
    _assert_equal_params(twin, port, ("target_score_model", "value", "target_critic"))
    assert np.array_equal(twin.rng, port.rng.numpy())

    observations = _batch(9)["observations"][:3]
    actions, port = port.eval_actions(observations)
    chosen, key = jax.jit(IDQL.act)(twin.acting(), observations)
    np.testing.assert_allclose(chosen, actions, atol=1e-4)
    assert np.array_equal(key, port.rng.numpy())


@pytest.mark.slow
def test_redq_updates_as_the_port() -> None:
    kwargs = {"hidden_dims": (16, 16), "num_qs": 4, "num_min_qs": 2}
    port = SACLearner.create(1, *_SPACES, **kwargs)
    twin = _adopted(SAC.create(0, _OBS, _ACT, **kwargs), port, "actor", "critic", "temp")
    update = jax.jit(SAC.update, static_argnames="utd_ratio")
    for step in range(2):
        batch = _batch(step)
        port, info = port.update(_tensors(batch), 4)
        twin, twin_info = update(twin, batch, utd_ratio=4)
        for name, value in info.items():
            np.testing.assert_allclose(twin_info[name], value.numpy(), rtol=1e-3, atol=1e-6)
    _assert_equal_params(twin, port, ("actor", "target_critic", "temp"))


@pytest.mark.slow
def test_first_parameters_are_those_of_the_port() -> None:
    """Flax draws from a seed what the port draws: within 4 ulp of a unit normal's scale."""
    port = DDPMIQLLearner.create(3, *_SPACES, **_KWARGS)
    twin = IDQL.create(3, _OBS, _ACT, **_KWARGS)
    assert np.array_equal(twin.rng, port.rng.numpy())
    for name in ("score_model", "critic", "value"):
        nested = twin_side.TwinBackend().nested(getattr(twin, name).params)
        mine = twin_side.port_trees(port, (name,))[name]
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-8), nested, mine
        )


@pytest.mark.slow
def test_rows_are_drawn_inside_as_the_port_draws_them() -> None:
    port, twin = _idql()
    data = loop.transitions(40, _OBS, _ACT)
    step = jax.jit(loop.repeated(loop.sampled(IDQL.update, _BATCH), _STEPS))
    (twin, key), info = step((twin, jax.random.PRNGKey(7)), data)

    port_key, columns, values = random.PRNGKey(7), _tensors(data), []
    for _ in range(_STEPS):
        draw, port_key = random.split(port_key)
        rows = random.randint(draw, (_BATCH,), 0, 40)
        port, port_info = port.update({name: x[rows] for name, x in columns.items()})
        values.append(port_info["critic_loss"].item())
    assert np.array_equal(key, port_key.numpy())
    np.testing.assert_allclose(info["critic_loss"], np.mean(values), rtol=1e-3)
    _assert_equal_params(twin, port, ("score_model", "critic"))


@pytest.mark.slow
def test_stacked_learners_are_each_their_own() -> None:
    data = loop.transitions(40, _OBS, _ACT)
    step = loop.sampled(IDQL.update, _BATCH)

    def start(seed: Any) -> Any:
        return IDQL.create(seed, _OBS, _ACT, **_KWARGS), jax.random.PRNGKey(seed)

    carries = jax.jit(jax.vmap(start))(jnp.arange(2))
    (many, keys), infos = jax.jit(loop.stacked(step))(carries, data)
    for seed in range(2):
        (alone, key), info = jax.jit(step)(jax.jit(start)(seed), data)
        assert np.array_equal(keys[seed], key)
        np.testing.assert_allclose(infos["actor_loss"][seed], info["actor_loss"], rtol=1e-5)
        jax.tree.map(
            lambda stack, leaf, i=seed: np.testing.assert_allclose(stack[i], leaf, atol=1e-5),
            many.value.params,
            alone.value.params,
        )
