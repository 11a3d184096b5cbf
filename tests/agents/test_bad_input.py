"""Wrong settings and batches raise one sentence: what is wrong, where, what would be right."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from tiny_learners import ACT, OBS, SMALL, TINY, box, make_batch, same

from idql_func import disable_jit, optim, tree_stack, tree_unstack
from idql_func.agents import DDPMIQLLearner, GeneralDDPMIQLLearner
from idql_func.types import InputError


@pytest.fixture(autouse=True)
def eager() -> Iterator[None]:
    with disable_jit():
        yield


def one_sentence(error: pytest.ExceptionInfo[BaseException]) -> bool:
    text = str(error.value)
    return text.endswith(".") and "\n" not in text and len(text) < 250


# --- create ---------------------------------------------------------------------------------

nan = float("nan")


@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        ({"T": 0}, "T must be an integer of at least 1, got 0"),
        ({"T": 2.5}, "T must be an integer of at least 1, got 2.5"),
        ({"T": "five"}, "T must be an integer of at least 1, got 'five'"),
        ({"T": None}, "T must be an integer of at least 1, got None"),
        ({"N": 0}, "N must be an integer of at least 1, got 0"),
        ({"N": nan}, "N must be an integer of at least 1, got nan"),
        ({"M": -1}, "M must be an integer of at least 0, got -1"),
        ({"num_qs": 0}, "num_qs must be an integer of at least 1, got 0"),
        ({"num_qs": None}, "num_qs must be an integer"),
        ({"actor_num_blocks": -1}, "actor_num_blocks must be an integer of at least 0, got -1"),
        ({"decay_steps": 0}, "decay_steps must be an integer of at least 1, got 0"),
        ({"time_dim": 7}, "time_dim must be even and at least 2, got 7"),
        ({"time_dim": 0}, "time_dim must be .* at least 2, got 0"),
        ({"time_dim": 8.0}, "time_dim must be an integer"),
        ({"critic_hidden_dims": ()}, "critic_hidden_dims must name at least one layer"),
        ({"critic_hidden_dims": (16, 0)}, r"critic_hidden_dims .* at least 1 unit, got \(16, 0\)"),
        ({"critic_hidden_dims": 16}, "critic_hidden_dims must name at least one layer.*got 16"),
        ({"critic_hidden_dims": (16.5,)}, "critic_hidden_dims must name"),
        ({"discount": 1.5}, r"discount must lie in \[0, 1\], got 1.5"),
        ({"discount": nan}, "discount must be a finite number, got nan"),
        ({"discount": "high"}, "discount must be a finite number, got 'high'"),
        ({"tau": -0.1}, r"tau must lie in \[0, 1\], got -0.1"),
        ({"actor_tau": 2}, r"actor_tau must lie in \[0, 1\], got 2"),
        (
            {"critic_hyperparam": 0},
            "critic_hyperparam must be between 0 and 1 .*'expectile', got 0",
        ),
        ({"critic_hyperparam": 1.0}, "critic_hyperparam must be between 0 and 1"),
        ({"critic_hyperparam": "a"}, "critic_hyperparam must be a finite number, got 'a'"),
        ({"ddpm_temperature": nan}, "ddpm_temperature must be a finite number, got nan"),
        ({"policy_temperature": float("inf")}, "policy_temperature must be a finite number"),
        ({"actor_dropout_rate": 1.0}, r"actor_dropout_rate must lie in \[0, 1\), got 1.0"),
        ({"actor_lr": 0.0}, "actor_lr must be above 0, got 0.0"),
        ({"critic_lr": -1e-3}, "critic_lr must be above 0, got -0.001"),
        ({"value_lr": "fast"}, "value_lr must be a finite number, got 'fast'"),
        ({"beta_schedule": "sqrt"}, "beta_schedule must be one of cosine, linear, vp, got 'sqrt'"),
        ({"actor_lr": optim.constant_schedule(0.1)}, "already a schedule: pass decay_steps=None"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_settings_out_of_range_raise(
    create: Callable[..., Any], keywords: dict[str, Any], words: str
) -> None:
    if "actor_dropout_rate" in keywords or "actor_num_blocks" in keywords:
        create = lambda **kw: DDPMIQLLearner.create(0, box(OBS), box(ACT), **{**SMALL, **kw})  # noqa: E731
    with pytest.raises(InputError, match=words) as error:
        create(**keywords)
    assert one_sentence(error)


@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        (
            {"actor_objective": "awr"},
            "actor_objective must be one of bc, soft_adv, hard_adv, exp_adv, got 'awr'",
        ),
        (
            {"critic_objective": "l2"},
            "critic_objective must be one of expectile, quantile, exponential, got 'l2'",
        ),
        ({"actor_architecture": "unet"}, "actor_architecture must be one of mlp, ln_resnet"),
        ({"critic_objective": "exponential", "critic_hyperparam": 0}, "must be above 0"),
        ({"actor_hidden_dims": ()}, "actor_hidden_dims must name at least one layer"),
        (
            {"actor_architecture": "ln_resnet", "actor_hidden_dims": (8,)},
            "actor_hidden_dims has no effect with actor_architecture='ln_resnet'",
        ),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_general_learner_settings_out_of_range_raise(keywords: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words) as error:
        GeneralDDPMIQLLearner.create(0, box(OBS), box(ACT), **{**SMALL, **keywords})
    assert one_sentence(error)


def test_exponential_levels_may_exceed_one() -> None:
    learner = GeneralDDPMIQLLearner.create(
        0, box(OBS), box(ACT), **SMALL, critic_objective="exponential", critic_hyperparam=2.0
    )
    assert learner.critic_hyperparam == 2.0


def test_unknown_keywords_raise(create: Callable[..., Any]) -> None:
    with pytest.raises(TypeError, match="'hidden_dims'"):
        create(hidden_dims=(4,))
    # keywords that only the other learner has
    with pytest.raises(TypeError, match="'actor_objective'"):
        DDPMIQLLearner.create(0, box(OBS), box(ACT), actor_objective="bc")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="'value_layer_norm'"):
        GeneralDDPMIQLLearner.create(0, box(OBS), box(ACT), value_layer_norm=True)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    "space",
    [
        gym.spaces.Discrete(3),
        gym.spaces.Box(-1, 1, (2, 2)),
        gym.spaces.Box(-1, 1, ()),
        gym.spaces.Dict({"a": gym.spaces.Box(-1, 1, (2,))}),
        None,
    ],
    ids=str,
)
def test_spaces_must_be_boxes_of_one_axis(space: Any) -> None:
    for learner in (DDPMIQLLearner, GeneralDDPMIQLLearner):
        with pytest.raises(InputError, match=r"^observation_space must be a Box with one axis"):
            learner.create(0, space, box(ACT), **TINY[learner])
        with pytest.raises(InputError, match=r"^action_space must be a Box with one axis"):
            learner.create(0, box(OBS), space, **TINY[learner])


def test_non_integer_seed_raises(create: Callable[..., Any]) -> None:
    with pytest.raises(TypeError, match="seed must be an integer, got float"):
        create(1.5)


# --- batches --------------------------------------------------------------------------------

METHODS = ["update", "critic_update", "eval_loss"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"observations": torch.ones(8, OBS + 1)},
            r"'observations'\] must have shape .*, 3\).* \(8, 4\)",
        ),
        ({"observations": torch.ones(8)}, r"'observations'\] must have shape"),
        ({"actions": torch.ones(8, ACT + 1)}, r"'actions'\] must have shape \(8, 2\).*\(8, 3\)"),
        ({"actions": torch.ones(7, ACT)}, r"'actions'\] must have shape \(8, 2\).*\(7, 2\)"),
        ({"rewards": torch.ones(8, 1)}, r"'rewards'\] must have shape \(8\).*\(8, 1\)"),
        ({"rewards": 1.0}, r"'rewards'\] must have shape \(8\).*\(\)"),
        ({"masks": torch.ones(9)}, r"'masks'\] must have shape \(8\).*\(9,\)"),
        ({"next_observations": torch.ones(8, 1)}, r"'next_observations'\] must .*\(8, 3\)"),
        ({"observations": torch.ones(8, OBS).double()}, "must be torch.float32 .*torch.float64"),
        (
            {"masks": torch.ones(8, dtype=torch.bool)},
            r"'masks'\] must be torch.float32.*torch.bool",
        ),
        ({"rewards": torch.ones(8, dtype=torch.int64)}, "must be torch.float32.*torch.int64"),
        ({"rewards": "high"}, "must be a tensor or an array of real numbers, got str"),
        ({"observations": {"pixels": torch.ones(8, 3)}}, r"'observations'\].*got dict"),
        ({"observations": None}, r"'observations'\].*got NoneType"),
        ({"actions": np.ones((8, ACT), complex)}, r"'actions'\] must .* real numbers"),
    ],
    ids=lambda value: None if isinstance(value, str) else next(iter(value)),
)
@pytest.mark.parametrize("method", METHODS)
def test_wrong_entries_raise(
    create: Callable[..., Any], method: str, changes: dict[str, Any], words: str
) -> None:
    learner = create()
    with pytest.raises(InputError, match=rf"^{type(learner).__name__}: .*{words}") as error:
        getattr(learner, method)({**make_batch(), **changes})
    assert one_sentence(error)


@pytest.mark.parametrize(
    "name", ["observations", "actions", "rewards", "masks", "next_observations"]
)
def test_missing_entries_raise_and_list_those_present(
    create: Callable[..., Any], name: str
) -> None:
    batch = make_batch()
    del batch[name]
    learner = create()
    for method in METHODS:
        with pytest.raises(InputError, match=f"the batch has no '{name}'; it has .*dones") as error:
            getattr(learner, method)(batch)
        assert one_sentence(error)


def test_actor_update_needs_only_the_fields_it_reads(create: Callable[..., Any]) -> None:
    batch = make_batch()
    short = {name: batch[name] for name in ("observations", "actions")}
    learner = create()
    if isinstance(learner, DDPMIQLLearner):
        learner.actor_update(short)
    with pytest.raises(InputError, match="the batch has no 'actions'; it has observations"):
        learner.actor_update({"observations": batch["observations"]})
    with pytest.raises(InputError, match="it has nothing"):
        learner.actor_update({})


def test_update_without_dones_gives_the_same_learner(create: Callable[..., Any]) -> None:
    batch = make_batch()
    expected = create().update(batch)
    del batch["dones"]
    assert same(create().update(batch), expected)
    with pytest.raises(InputError, match="the batch has no 'masks'"):
        create().update({name: value for name, value in batch.items() if name != "masks"})


def test_empty_batch_raises(create: Callable[..., Any]) -> None:
    with pytest.raises(InputError, match="at least one row"):
        create().update(make_batch(rows=0))


@pytest.mark.parametrize("batch", [None, [torch.ones(8, 3)], torch.ones(8, 3)], ids=type)
def test_non_dict_batch_raises(create: Callable[..., Any], batch: Any) -> None:
    with pytest.raises(
        TypeError, match=f"a batch is a dict of tensors, got {type(batch).__name__}"
    ):
        create().update(batch)


def test_rejected_batch_changes_nothing(create: Callable[..., Any]) -> None:
    learner = create()
    key = learner.rng.clone()
    with pytest.raises(InputError):
        learner.update({**make_batch(), "rewards": torch.ones(3)})
    assert torch.equal(learner.rng, key)


# --- observations, candidates ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("observation", "words"),
    [
        (np.ones(OBS + 1), r"must have shape \(3,\) or \(batch, 3\), got \(4,\)"),
        (np.ones((2, OBS - 1)), r"must have shape \(3,\) or \(batch, 3\), got \(2, 2\)"),
        (np.ones((2, 2, OBS)), r"got \(2, 2, 3\)"),
        (5.0, r"got \(\)"),
        (None, "must be a tensor or an array of real numbers, got NoneType"),
        ({"state": np.ones(OBS)}, "must be a tensor or an array of real numbers, got dict"),
        (np.array(["a", "b", "c"]), "must be a tensor or an array of real numbers"),
        (np.ones(OBS, complex), "must be a tensor or an array of real numbers"),
    ],
    ids=["long", "short", "axes", "number", "none", "dict", "text", "complex"],
)
@pytest.mark.parametrize("method", ["eval_actions", "sample_actions", "sample_implicit_policy"])
def test_wrong_observations_raise(
    create: Callable[..., Any], method: str, observation: Any, words: str
) -> None:
    with pytest.raises(InputError, match=f"Learner: observations .*{words}") as error:
        getattr(create(), method)(observation)
    assert one_sentence(error)


@pytest.mark.parametrize("count", [0, -3, 2.5, "many"])
def test_invalid_number_of_candidates_raises(create: Callable[..., Any], count: Any) -> None:
    learner = create().replace(N=count)
    for method in ("eval_actions", "sample_implicit_policy"):
        with pytest.raises(InputError, match=f"N, .* integer of at least 1, got {count!r}"):
            getattr(learner, method)(np.ones(OBS))


def test_unstacked_learner_chooses_the_same_actions(create: Callable[..., Any]) -> None:
    """Stacking turns a learner's Python numbers into tensors."""
    learner = create()
    unstacked = tree_unstack(tree_stack([learner, create(1)]))[0]
    assert isinstance(unstacked.N, torch.Tensor)
    a, b = learner.eval_actions(np.ones(OBS))[0], unstacked.eval_actions(np.ones(OBS))[0]
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_replace_of_an_unknown_field_raises(create: Callable[..., Any]) -> None:
    with pytest.raises(TypeError, match=r"replace: there is no field 'n'.*\bN\b"):
        create().replace(n=16)
