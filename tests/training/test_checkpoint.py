"""Checkpoints: every leaf is restored bit for bit, and damage raises one sentence."""

from __future__ import annotations

import json
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from idql_func import agents, optim
from idql_func.agents import DDPMIQLLearner, GeneralDDPMIQLLearner
from idql_func.files import add_digest, system
from idql_func.training.runs.checkpoint import (
    METADATA,
    TENSORS,
    CheckpointMetadata,
    find_checkpoint,
    load_checkpoint,
    read_metadata,
    restore_learner,
    save_checkpoint,
)
from idql_func.tree import tree_leaves, tree_paths
from idql_func.types import InputError

OBSERVATIONS = gym.spaces.Box(-np.inf, np.array([1, 2, 3], np.float32), (3,), np.float32)
ACTIONS = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
TINY = {"critic_hidden_dims": (8,), "time_dim": 4, "T": 2, "N": 3, "discount": 0.1 + 0.2}
SIMPLE = {**TINY, "actor_num_blocks": 1}
GENERAL = {**TINY, "actor_hidden_dims": (8,), "actor_objective": "exp_adv"}


def make(cls: Any = DDPMIQLLearner, **changes: Any) -> tuple[Any, CheckpointMetadata]:
    keywords = {**(SIMPLE if cls is DDPMIQLLearner else GENERAL), **changes}
    metadata = CheckpointMetadata(
        updates=3,
        seed=5,
        create=keywords,
        observation_space=OBSERVATIONS,
        action_space=ACTIONS,
        extra={"note": [1, 2.5, None]},
    )
    return cls.create(5, OBSERVATIONS, ACTIONS, **keywords), metadata


def batch(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "observations": torch.randn(6, 3, generator=generator),
        "next_observations": torch.randn(6, 3, generator=generator),
        "actions": torch.rand(6, 2, generator=generator) * 2 - 1,
        "rewards": torch.randn(6, generator=generator),
        "masks": torch.ones(6),
        "dones": torch.zeros(6),
    }


def assert_identical(left: Any, right: Any) -> None:
    assert type(left) is type(right)
    assert tree_paths(left) == tree_paths(right)
    for name, a, b in zip(tree_paths(left), tree_leaves(left), tree_leaves(right), strict=True):
        assert type(a) is type(b), name
        if isinstance(a, torch.Tensor):
            assert a.dtype == b.dtype and torch.equal(a, b), name
        else:
            assert a == b, name


@pytest.mark.parametrize("cls", [DDPMIQLLearner, GeneralDDPMIQLLearner])
def test_loaded_learner_has_every_leaf_and_trains_with_the_same_bits(
    tmp_path: Path, cls: Any
) -> None:
    learner, metadata = make(cls)
    for seed in range(3):
        learner, _ = learner.update(batch(seed))
    save_checkpoint(tmp_path / "c", learner, metadata)
    loaded, found = load_checkpoint(tmp_path / "c")
    assert_identical(learner, loaded)
    assert loaded.discount == 0.1 + 0.2 and type(loaded.N) is int
    assert_identical(learner.update(batch(9))[0], loaded.update(batch(9))[0])
    np.testing.assert_array_equal(
        learner.eval_actions(np.ones(3, np.float32))[0],
        loaded.eval_actions(np.ones(3, np.float32))[0],
    )
    assert (found.updates, found.seed, found.extra) == (3, 5, {"note": [1, 2.5, None]})
    assert found.create == metadata.create
    assert found.observation_space == OBSERVATIONS and found.action_space == ACTIONS
    assert found.versions["torch"] == torch.__version__
    assert read_metadata(tmp_path / "c") == found


IMAGES = gym.spaces.Dict(
    {
        "pixels": gym.spaces.Box(0, 255, (8, 8, 3, 2), np.uint8),
        "depth": gym.spaces.Box(0.0, np.inf, (8, 8, 1, 2), np.float32),
        "state": gym.spaces.Box(-1.0, np.array([1, 2], np.float32), (2,), np.float32),
    }
)
LAYERS: dict[str, Any] = {"hidden_dims": (8,)}
VISION: dict[str, Any] = {
    **LAYERS,
    "cnn_features": (3,),
    "cnn_filters": (3,),
    "cnn_strides": (2,),
    "latent_dim": 4,
    "depth_keys": ("depth",),
}
WARM_UP = optim.join_schedules(
    [optim.linear_schedule(0.0, 1e-3, 2), optim.constant_schedule(1e-3)], [2]
)
OTHERS: list[tuple[str, dict[str, Any]]] = [
    ("IQLLearner", {**LAYERS, "num_qs": 3}),
    ("BCLearner", {**LAYERS, "weight_decay": 0.1, "entropy_bonus": 0.1, "dropout_rate": 0.1}),
    ("BCLearner", {**LAYERS, "actor_lr": optim.cosine_decay_schedule(1e-3, 7)}),
    ("BCLearner", {**LAYERS, "actor_lr": WARM_UP}),
    ("SACLearner", LAYERS),
    ("SACLearner", {**LAYERS, "num_qs": 4, "num_min_qs": 2, "critic_dropout_rate": 0.01}),
    ("TD3Learner", {**LAYERS, "exploration_noise": 0.3}),
    ("DrQLearner", VISION),
    ("DrQLearner", {**VISION, "num_min_qs": 1, "critic_layer_norm": True}),
    ("PixelBCLearner", {**VISION, "actor_lr": optim.cosine_decay_schedule(1e-3, 7)}),
]


@pytest.mark.parametrize(("name", "keywords"), OTHERS, ids=lambda value: str(value)[:40])
def test_other_loaded_learners_train_with_the_same_bits(
    tmp_path: Path, name: str, keywords: dict[str, Any]
) -> None:
    cls = getattr(agents, name)
    images = name in ("DrQLearner", "PixelBCLearner")
    space: gym.spaces.Space = IMAGES if images else OBSERVATIONS
    generator = np.random.default_rng(0)

    def observations() -> Any:
        if not images:
            return torch.from_numpy(generator.standard_normal((6, 3)).astype(np.float32))
        return {
            "pixels": torch.from_numpy(generator.integers(0, 256, (6, 8, 8, 3, 2), np.uint8)),
            "depth": torch.from_numpy(generator.random((6, 8, 8, 1, 2), np.float32)),
            "state": torch.from_numpy(generator.random((6, 2), np.float32)),
        }

    batches = [
        {**batch(), "observations": observations(), "next_observations": observations()}
        for _ in range(4)
    ]
    learner = cls.create(5, space, ACTIONS, **keywords)
    for number in range(3):
        learner, _ = learner.update(batches[number])
    metadata = CheckpointMetadata(3, 5, keywords, space, ACTIONS)
    save_checkpoint(tmp_path / "c", learner, metadata)
    loaded, found = load_checkpoint(tmp_path / "c")
    assert_identical(learner, loaded)
    assert found.create == keywords and found.observation_space == space
    assert (tmp_path / "c" / METADATA).stat().st_size < 8_000
    left, right = (x.update(batches[3]) for x in (learner, loaded))
    assert_identical(left[0], right[0])
    row = (
        {k: v[0].numpy() for k, v in batches[0]["observations"].items()}
        if images
        else (batches[0]["observations"][0].numpy())
    )
    for method in ("eval_actions", "sample_actions"):
        actions = [getattr(x, method)(row)[0] for x in (learner, loaded)]
        np.testing.assert_array_equal(*actions)
        assert actions[0].shape == (2,)


def test_new_learner_and_its_targets_share_no_memory_on_disk(tmp_path: Path) -> None:
    learner, metadata = make()
    save_checkpoint(tmp_path / "c", learner, metadata)
    assert_identical(learner, load_checkpoint(tmp_path / "c")[0])


def test_changed_scalars_and_static_fields_are_restored(tmp_path: Path) -> None:
    learner, metadata = make(GeneralDDPMIQLLearner)
    changed = learner.replace(N=7, ddpm_temperature=1e-17 / 3, M=2, critic_objective="quantile")
    save_checkpoint(tmp_path / "c", changed, metadata)
    loaded, _ = load_checkpoint(tmp_path / "c")
    assert_identical(changed, loaded)
    assert (loaded.M, loaded.critic_objective) == (2, "quantile")


def test_files_contain_names_and_no_code(tmp_path: Path) -> None:
    learner, metadata = make()
    save_checkpoint(tmp_path / "c", learner, metadata)
    assert sorted(os.listdir(tmp_path / "c")) == [METADATA, TENSORS]
    description = json.loads((tmp_path / "c" / METADATA).read_text())
    assert description["learner"] == "DDPMIQLLearner"
    assert description["scalars"]["discount"] == 0.1 + 0.2
    header_size = int.from_bytes((tmp_path / "c" / TENSORS).read_bytes()[:8], "little")
    header = json.loads((tmp_path / "c" / TENSORS).read_bytes()[8 : 8 + header_size])
    names = set(header) | set(description["scalars"])
    assert names - {"__metadata__"} == set(tree_paths(learner))
    assert header["critic/params/VmapStateActionValue_0/Dense_0/kernel"]["shape"] == [2, 8, 1]


def test_saving_replaces_and_leaves_no_other_files(tmp_path: Path) -> None:
    learner, metadata = make()
    save_checkpoint(tmp_path / "c", learner, metadata)
    updated, _ = learner.update(batch())
    save_checkpoint(tmp_path / "c", updated, metadata)
    assert_identical(updated, load_checkpoint(tmp_path / "c")[0])
    assert os.listdir(tmp_path) == ["c"]


@pytest.mark.parametrize("when", ["write", "rename"])
def test_failed_write_keeps_the_old_checkpoint_and_no_partial_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    learner, metadata = make()
    save_checkpoint(tmp_path / "c", learner, metadata)

    def full(*_: Any) -> None:
        raise OSError("No space left on device")

    if when == "write":
        monkeypatch.setattr(os, "fsync", full)
    else:
        monkeypatch.setattr(system, "exchange", full)
    with pytest.raises(OSError, match="No space"):
        save_checkpoint(tmp_path / "c", learner.update(batch())[0], metadata)
    monkeypatch.undo()
    assert os.listdir(tmp_path) == ["c"]
    assert_identical(learner, load_checkpoint(tmp_path / "c")[0])


def shorten(path: Path) -> None:
    payload = path.read_bytes()
    path.write_bytes(payload[: len(payload) * 2 // 3])


def flip_last_bit(path: Path) -> None:
    payload = bytearray(path.read_bytes())
    payload[-1] ^= 1
    path.write_bytes(payload)


def edit(path: Path, **changes: Any) -> None:
    """Change values as somebody who knows the format, with the digest that belongs to them."""
    path.write_text(json.dumps(add_digest({**json.loads(path.read_text()), **changes})))


def without_digest(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (
            lambda c: shorten(c / TENSORS),
            InputError,
            "learner.safetensors is damaged or truncated",
        ),
        (lambda c: flip_last_bit(c / TENSORS), InputError, "learner.safetensors is damaged"),
        (lambda c: (c / TENSORS).unlink(), FileNotFoundError, "no learner.safetensors in it"),
        (lambda c: shorten(c / METADATA), InputError, "checkpoint.json is damaged: it is not JSON"),
        (lambda c: without_digest(c / METADATA, seed=4), InputError, "do not match their digest"),
        (lambda c: (c / METADATA).unlink(), FileNotFoundError, "no checkpoint.json in it"),
        (lambda c: edit(c / METADATA, format="x"), InputError, "does not describe a checkpoint"),
        (lambda c: edit(c / METADATA, format_version=99), InputError, "format version 99"),
        (lambda c: edit(c / METADATA, learner="Nobody"), InputError, "'Nobody', which is no"),
        (lambda c: edit(c / METADATA, create={}), InputError, "checkpoint.json is damaged"),
        (lambda c: edit(c / METADATA, scalars={}), InputError, "it has no "),
        (lambda c: (c / METADATA).write_text("[]"), InputError, "does not describe a checkpoint"),
    ],
)
def test_damaged_checkpoint_raises_one_sentence(
    tmp_path: Path, damage: Callable[[Path], None], error: type[Exception], message: str
) -> None:
    learner, metadata = make()
    damage(save_checkpoint(tmp_path / "c", learner, metadata))
    with pytest.raises(error, match=message) as caught:
        load_checkpoint(tmp_path / "c")
    assert "\n" not in str(caught.value)


def test_every_changed_bit_of_the_description_is_found_or_has_no_effect(tmp_path: Path) -> None:
    learner, metadata = make()
    path = save_checkpoint(tmp_path / "c", learner, metadata) / METADATA
    content, whole = path.read_bytes(), read_metadata(path.parent)
    found = 0
    for bit in range(0, 8 * len(content), 13):  # each of the bits of a byte in turn
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        try:
            assert read_metadata(path.parent) == whole, bit
        except InputError as error:
            found += 1
            assert "\n" not in str(error)
    assert found > len(content) // 2


HOSTILE = {
    "hidden_dims": {"keywords": {"critic_hidden_dims": [10**9]}},
    "two hidden_dims": {"keywords": {"critic_hidden_dims": [10**5, 10**5]}},
    "blocks": {"keywords": {"actor_num_blocks": 10**9}},
    "T": {"keywords": {"T": 10**12}},
    "name": {"keywords": {"nonsense": 1}},
    "type": {"keywords": {"critic_hidden_dims": "many"}},
    "space": {"observation_space": {"shape": [10**6] * 3, "dtype": "float32", "low": 0, "high": 1}},
    "object": {"observation_space": {"shape": [3], "dtype": "O", "low": 0, "high": 1}},
    "shape": {"observation_space": {"shape": 3, "dtype": "float32", "low": 0, "high": 1}},
    "seed": {"seed": [1]},
    "actions": {"action_space": {"dict": {}}},
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_sizes_are_refused_before_memory_is_asked_for(tmp_path: Path, case: str) -> None:
    learner, metadata = make()
    path = save_checkpoint(tmp_path / "c", learner, metadata) / METADATA
    create = json.loads(path.read_text())["create"]
    keywords = {**create["keywords"], **HOSTILE[case].get("keywords", {})}
    edit(path, create={**create, **HOSTILE[case], "keywords": keywords})
    tracemalloc.start()
    with pytest.raises(InputError) as caught:
        load_checkpoint(path.parent)
    assert tracemalloc.get_traced_memory()[1] < 2e7
    tracemalloc.stop()
    assert "\n" not in str(caught.value)


def test_checkpoint_of_version_1_is_read_with_a_warning(tmp_path: Path) -> None:
    learner, metadata = make()
    path = save_checkpoint(tmp_path / "c", learner, metadata) / METADATA
    old = {k: v for k, v in json.loads(path.read_text()).items() if k not in ("digest", "settings")}
    path.write_text(json.dumps({**old, "format_version": 1}))
    with pytest.warns(UserWarning, match="earlier version, whose values have no digest"):
        assert_identical(learner, load_checkpoint(path.parent)[0])
    path.write_text(json.dumps(old))
    with pytest.raises(InputError, match="it has no 'digest'"):
        load_checkpoint(path.parent)


def test_checkpoint_of_another_learner_or_size_raises(tmp_path: Path) -> None:
    learner, metadata = make()
    path = save_checkpoint(tmp_path / "c", learner, metadata)
    with pytest.raises(InputError, match="holds a DDPMIQLLearner, not a GeneralDDPMIQLLearner"):
        load_checkpoint(path, learner_class=GeneralDDPMIQLLearner)
    with pytest.raises(InputError, match="holds a DDPMIQLLearner, not a GeneralDDPMIQLLearner"):
        restore_learner(make(GeneralDDPMIQLLearner)[0], path)
    with pytest.raises(InputError, match=r"has another size: .* has the shape \(2, 8, 1\)"):
        restore_learner(make(critic_hidden_dims=(9,))[0], path)
    with pytest.raises(InputError, match="has another learner or size: it has no"):
        restore_learner(make(actor_num_blocks=2)[0], path)
    with pytest.raises(InputError, match="another learner or size: this learner has no"):
        restore_learner(make(actor_num_blocks=0)[0], path)
    assert_identical(learner, restore_learner(make(N=9)[0], path))


def test_find_checkpoint_returns_the_newest_of_a_run(tmp_path: Path) -> None:
    learner, metadata = make()
    newest = tmp_path / "checkpoints" / "step_000000010"
    for name in ("step_000000002", newest.name, ".step_000000011.abc.part"):
        save_checkpoint(tmp_path / "checkpoints" / name, learner, metadata)
    assert find_checkpoint(tmp_path) == newest
    assert find_checkpoint(tmp_path / "checkpoints") == newest
    assert find_checkpoint(newest) == newest
    assert find_checkpoint(newest / METADATA) == newest
    with pytest.raises(FileNotFoundError, match="holds no checkpoint"):
        (tmp_path / "empty").mkdir()
        find_checkpoint(tmp_path / "empty")
