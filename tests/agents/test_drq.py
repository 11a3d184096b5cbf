"""DrQ: equality with upstream, shared encoders, kinds of batches, transforms, bad input."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from pixel_cases import CASES, SMALL, make_observations
from pixel_learners import ACTIONS, batch_of, check_case, create, space
from tensordict import TensorDict
from tiny_learners import box, same

from idql_func import disable_jit, tree_leaves, tree_map, tree_stack, tree_unstack, vmap
from idql_func.agents import DrQLearner
from idql_func.transforms import compiler_problem
from idql_func.types import InputError

DRQ = [name for name, case in CASES.items() if case[0] == "DrQLearner"]
SEVERAL = CASES["drq-cameras"][1]


@pytest.fixture(autouse=True)
def eager() -> Iterator[None]:
    with disable_jit():
        yield


def close(a: Any, b: Any, rtol: float = 1e-5, atol: float = 1e-6) -> None:
    for x, y in zip(tree_leaves(a), tree_leaves(b), strict=True):
        torch.testing.assert_close(torch.as_tensor(x), torch.as_tensor(y), rtol=rtol, atol=atol)


# --- upstream's numbers -----------------------------------------------------------------------


@pytest.mark.parametrize("name", DRQ)
def test_five_updates_equal_upstream(name: str) -> None:
    check_case(name)


# --- what an update does -----------------------------------------------------------------------


def test_actor_uses_the_critics_encoder_before_its_step() -> None:
    """The convolutions are copied before the critic's step; the latents are not (quirk A12)."""
    learner = create("drq")
    assert not same(learner.actor.params["encoder_0"], learner.critic.params["encoder_0"])
    new, _ = learner.update(batch_of("drq"))
    assert same(new.actor.params["encoder_0"], learner.critic.params["encoder_0"])
    assert not same(new.critic.params["encoder_0"], learner.critic.params["encoder_0"])
    assert not same(new.actor.params["Dense_0"], new.critic.params["Dense_0"])
    # the old learner is unchanged
    assert same(learner, create("drq"))


def test_packed_batches_give_the_same_update() -> None:
    packed = batch_of("drq-packed")
    images = packed["observations"]["pixels"]
    plain = {
        **packed,
        "observations": {"pixels": images[..., :-1]},
        "next_observations": {"pixels": images[..., 1:]},
    }
    learner = create("drq")
    assert same(learner.update(packed), learner.update(plain))


def test_several_packed_cameras_are_unpacked() -> None:
    """Upstream unpacks only the last one (quirk A10)."""
    learner, batch = create("drq-cameras"), batch_of("drq-cameras")
    packed = {
        name: value
        if name == "state"
        else torch.cat([value, batch["next_observations"][name][..., -1:]], dim=-1)
        for name, value in batch["observations"].items()
    }
    later = {"state": batch["next_observations"]["state"]}
    new, info = learner.update({**batch, "observations": packed, "next_observations": later}, 2)
    assert all(bool(value.isfinite()) for value in info.values())
    assert int(new.critic.step) == 2 and int(new.actor.step) == 1


def test_packed_camera_may_have_any_name() -> None:
    """Upstream looks for the key "pixels" whatever pixel_keys says (quirk A11)."""
    learner = DrQLearner.create(
        0, space({"front": (12, 11, 3, 2)}), ACTIONS, **SMALL, pixel_keys=("front",)
    )
    batch = batch_of("drq-packed")
    batch = {**batch, "observations": {"front": batch["observations"]["pixels"]}}
    batch["next_observations"] = {}
    _, info = learner.update(batch)
    assert bool(info["critic_loss"].isfinite())


def test_num_min_qs_keeps_the_full_target_ensemble() -> None:
    """Upstream's target network keeps the size of the full ensemble and crashes (quirk A8)."""
    learner = create("drq", num_qs=4, num_min_qs=2)
    learner, info = learner.update(batch_of("drq"))
    assert bool(info["critic_loss"].isfinite())
    kernel = learner.target_critic.params["Ensemble_0"]["VmapStateActionValue_0"]["Dense_0"]
    assert kernel["kernel"].shape[0] == 4


def test_resnet_encoder_trains() -> None:
    learner = create("drq", encoder="resnet")
    assert "ResNetV2Block_7" in learner.critic.params["encoder_0"]
    _, info = learner.update(batch_of("drq"))
    assert bool(info["critic_loss"].isfinite())


def test_arrays_and_tensordicts_are_accepted() -> None:
    learner, batch = create("drq"), batch_of("drq")
    expected = learner.update(batch)
    assert same(learner.update(tree_map(lambda x: x.numpy(), batch)), expected)
    assert same(learner.update(TensorDict(batch, batch_size=[4])), expected)


def test_vmapped_learners_equal_single_ones() -> None:
    learners = [create("drq-cameras", seed) for seed in range(2)]
    batches = [batch_of("drq-cameras", seed) for seed in range(2)]
    update = vmap(lambda learner, batch: learner.update(batch, 2))
    mapped = tree_unstack(update(tree_stack(learners), tree_stack(batches)))
    for actual, learner, batch in zip(mapped, learners, batches, strict=True):
        close(actual, learner.update(batch, 2), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.skipif(
    compiler_problem(torch.device("cpu")) is not None, reason="needs a C++ compiler"
)
@pytest.mark.parametrize("name", ["drq-packed", "drq-cameras"])
def test_compiled_equals_eager(name: str) -> None:
    learner, batch = create(name), batch_of(name)
    ratio = CASES[name][3]["utd_ratio"]
    expected = learner.update(batch, ratio)
    with disable_jit(False):
        actual = learner.update(batch, ratio)
    close(actual, expected, rtol=1e-4, atol=1e-5)


# --- action choice ------------------------------------------------------------------------------


def test_actions_of_one_and_of_several_observations() -> None:
    learner = create("drq-cameras")
    seen = make_observations(SEVERAL, 0, (3,))
    actions, _ = learner.eval_actions(seen)
    assert isinstance(actions, np.ndarray) and actions.shape == (3, 2)
    one, _ = learner.eval_actions({name: value[1] for name, value in seen.items()})
    np.testing.assert_allclose(one, actions[1], atol=1e-6)
    drawn, new = learner.sample_actions(tree_map(torch.from_numpy, seen))
    assert drawn.shape == (3, 2) and np.all(np.abs(drawn) <= 1)
    assert not torch.equal(new.rng, learner.rng)


def test_unused_entries_are_ignored() -> None:
    learner = create("drq")
    seen = {**make_observations(CASES["drq"][1], 0), "time": "noon"}
    assert learner.eval_actions(seen)[0].shape == (2,)


# --- bad input ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        ({"encoder": "vgg"}, "encoder must be one of d4pg, resnet, got 'vgg'"),
        ({"pixel_keys": "pixels"}, "pixel_keys must be a tuple of names"),
        ({"pixel_keys": ("front",)}, "observation_space has no 'front'"),
        ({"pixel_keys": ("state",)}, r"observation_space\['state'\] must be of dtype uint8"),
        ({"depth_keys": ("near", "far")}, "depth_keys none or one per camera"),
        ({"depth_keys": ("state",)}, "'state' must have shape"),
        ({"latent_dim": 0}, "latent_dim must be an integer of at least 1, got 0"),
        ({"cnn_features": ()}, "cnn_features must name at least one layer"),
        ({"cnn_features": (4,)}, "features, filters and strides must have one entry per layer"),
        ({"cnn_padding": "FULL"}, "padding must be 'SAME', 'VALID'"),
        ({"cnn_padding": 3}, "padding must be 'SAME', 'VALID'"),
        ({"cnn_strides": (9, 9)}, "an image of 2x1 .* is smaller than the 3x3 window"),
        ({"num_min_qs": 3}, "num_min_qs must be at most num_qs=2, got 3"),
        ({"critic_lr": -1.0}, "critic_lr must be above 0"),
        ({"hidden_dims": ()}, "hidden_dims must name at least one layer"),
    ],
)
def test_bad_settings_raise(keywords: dict[str, Any], words: str) -> None:
    settings = {**SMALL, **keywords}
    with pytest.raises(InputError, match=words):
        DrQLearner.create(0, space(SEVERAL), ACTIONS, **settings)


def test_unknown_keywords_and_spaces_without_images_raise() -> None:
    with pytest.raises(TypeError, match="unexpected keyword"):
        create("drq", cnn_kernels=(3,))
    with pytest.raises(InputError, match="observation_space must be a Dict"):
        DrQLearner.create(0, box(3), ACTIONS)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("observations", None, r"batch\['observations'\] must be a dict with the entries pixels"),
        ("next_observations", torch.ones(4, 3), r"batch\['next_observations'\] must be a dict"),
        ("observations", {"state": torch.ones(4, 3)}, "must have an entry 'pixels'; it has state"),
        (
            "observations",
            {"pixels": torch.zeros(4, 12, 11, 3, 2)},
            r"batch\['observations.pixels'\] must be torch.uint8, got torch.float32",
        ),
        (
            "observations",
            {"pixels": torch.zeros(4, 11, 11, 3, 2, dtype=torch.uint8)},
            r"must have shape \(4, 12, 11, 3, 2\).*got \(4, 11, 11, 3, 2\)",
        ),
        (
            "next_observations",
            {"pixels": torch.zeros(3, 12, 11, 3, 2, dtype=torch.uint8)},
            r"must have shape \(4, 12, 11, 3, 2\)",
        ),
        ("next_observations", {}, "must hold 3 frames on its last axis"),
        ("actions", torch.zeros(4, 3), r"batch\['actions'\] must have shape \(4, 2\)"),
    ],
)
def test_bad_batches_raise(name: str, value: Any, words: str) -> None:
    batch = {**batch_of("drq"), name: value}
    with pytest.raises(InputError, match=words):
        create("drq").update(batch)


def test_utd_ratio_that_does_not_divide_the_batch_raises() -> None:
    with pytest.raises(InputError, match="utd_ratio must be an integer"):
        create("drq").update(batch_of("drq"), 3)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"pixels": np.zeros((12, 11, 3), np.uint8)}, r"\(12, 11, 3, 2\) or \(batch, 12, 11, 3, 2"),
        ({"pixels": np.zeros((12, 11, 3, 2), np.float32)}, "must be torch.uint8"),
        (
            {"pixels": np.zeros((1, 12, 11, 3, 2), np.uint8)},
            "must all be single or all have the same batch size",
        ),
        (
            {"state": "here"},
            r"observations\['state'\] must be a tensor or an array of real numbers",
        ),
        ({"near": None}, r"observations\['near'\] must be"),
    ],
)
def test_bad_observations_raise(changes: dict[str, Any], words: str) -> None:
    learner = create("drq-cameras")
    with pytest.raises(InputError, match=words):
        learner.eval_actions({**make_observations(SEVERAL, 0), **changes})
    with pytest.raises(InputError, match="observations must be a dict"):
        learner.sample_actions(np.zeros(3))
