"""The benchmarks' JAX side and the port in one process: equal inputs give equal outputs."""

# pyright: reportMissingImports=false
# ruff: noqa: E402 (imports that need JAX come after the skip)
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
import jax_side_backend

from benchmarks.jax_side import loop
from benchmarks.jax_side.actor_critic import SAC
from benchmarks.jax_side.idql import IDQL
from benchmarks.jax_side.steps import with_parameters
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


def _with_port_parameters(learner: Any, port: Any, *names: str) -> Any:
    return with_parameters(
        learner, jax_side_backend.port_trees(port, names), port.rng.numpy().astype(np.uint32)
    )


def _idql() -> tuple[Any, IDQL]:
    port = DDPMIQLLearner.create(3, *_SPACES, N=8, **_KWARGS)
    learner = IDQL.create(0, _OBS, _ACT, N=8, **_KWARGS)
    return port, _with_port_parameters(learner, port, "score_model", "critic", "value")


def _assert_equal_params(learner: Any, port: Any, names: tuple[str, ...]) -> None:
    for name in names:
        leaves = jax.tree.leaves_with_path(getattr(learner, name).params)
        for path, leaf in leaves:
            expected = getattr(port, name).params
            for part in path:
                expected = expected[part.key]
            np.testing.assert_allclose(leaf, expected.numpy(), rtol=2e-4, atol=2e-6)


def test_idql_updates_and_actions_equal_the_ports() -> None:
    port, learner = _idql()
    update = jax.jit(IDQL.update)
    for step in range(_STEPS):
        batch = _batch(step)
        port, info = port.update(_tensors(batch))
        learner, jax_info = update(learner, batch)
        assert set(jax_info) == set(info)
        for name, value in info.items():
            np.testing.assert_allclose(jax_info[name], value.numpy(), rtol=1e-3, atol=1e-6)
    _assert_equal_params(learner, port, ("target_score_model", "value", "target_critic"))
    assert np.array_equal(learner.rng, port.rng.numpy())

    observations = _batch(9)["observations"][:3]
    actions, port = port.eval_actions(observations)
    chosen, key = jax.jit(IDQL.act)(learner.to_act(), observations)
    np.testing.assert_allclose(chosen, actions, atol=1e-4)
    assert np.array_equal(key, port.rng.numpy())


@pytest.mark.slow
def test_redq_updates_equal_the_ports() -> None:
    kwargs = {"hidden_dims": (16, 16), "num_qs": 4, "num_min_qs": 2}
    port = SACLearner.create(1, *_SPACES, **kwargs)
    learner = _with_port_parameters(
        SAC.create(0, _OBS, _ACT, **kwargs), port, "actor", "critic", "temp"
    )
    update = jax.jit(SAC.update, static_argnames="utd_ratio")
    for step in range(2):
        batch = _batch(step)
        port, info = port.update(_tensors(batch), 4)
        learner, jax_info = update(learner, batch, utd_ratio=4)
        for name, value in info.items():
            np.testing.assert_allclose(jax_info[name], value.numpy(), rtol=1e-3, atol=1e-6)
    _assert_equal_params(learner, port, ("actor", "target_critic", "temp"))


@pytest.mark.slow
def test_initial_parameters_equal_the_ports() -> None:
    """From one seed, Flax and the port draw parameters within 4 ulp of a unit normal's scale."""
    port = DDPMIQLLearner.create(3, *_SPACES, **_KWARGS)
    learner = IDQL.create(3, _OBS, _ACT, **_KWARGS)
    assert np.array_equal(learner.rng, port.rng.numpy())
    for name in ("score_model", "critic", "value"):
        nested = jax_side_backend.JaxSideBackend().nested(getattr(learner, name).params)
        expected = jax_side_backend.port_trees(port, (name,))[name]
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-8), nested, expected
        )


@pytest.mark.slow
def test_sampled_rows_equal_the_ports() -> None:
    port, learner = _idql()
    data = loop.transitions(40, _OBS, _ACT)
    step = jax.jit(loop.repeated(loop.sampled(IDQL.update, _BATCH), _STEPS))
    (learner, key), info = step((learner, jax.random.PRNGKey(7)), data)

    port_key, columns, values = random.PRNGKey(7), _tensors(data), []
    for _ in range(_STEPS):
        draw, port_key = random.split(port_key)
        rows = random.randint(draw, (_BATCH,), 0, 40)
        port, port_info = port.update({name: x[rows] for name, x in columns.items()})
        values.append(port_info["critic_loss"].item())
    assert np.array_equal(key, port_key.numpy())
    np.testing.assert_allclose(info["critic_loss"], np.mean(values), rtol=1e-3)
    _assert_equal_params(learner, port, ("score_model", "critic"))


@pytest.mark.slow
def test_stacked_learners_equal_single_ones() -> None:
    data = loop.transitions(40, _OBS, _ACT)
    step = loop.sampled(IDQL.update, _BATCH)

    def start(seed: Any) -> Any:
        return IDQL.create(seed, _OBS, _ACT, **_KWARGS), jax.random.PRNGKey(seed)

    carries = jax.jit(jax.vmap(start))(jnp.arange(2))
    (many, keys), infos = jax.jit(loop.stacked(step))(carries, data)
    for seed in range(2):
        (single, key), info = jax.jit(step)(jax.jit(start)(seed), data)
        assert np.array_equal(keys[seed], key)
        np.testing.assert_allclose(infos["actor_loss"][seed], info["actor_loss"], rtol=1e-5)
        jax.tree.map(
            lambda stack, leaf, i=seed: np.testing.assert_allclose(stack[i], leaf, atol=1e-5),
            many.value.params,
            single.value.params,
        )
