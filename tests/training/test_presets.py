"""Every preset equals upstream's file, builds its learner and makes an update."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from idql_func import agents
from idql_func.training.configs.catalogue import CatalogueEntry, catalogue, presets_called
from idql_func.training.configs.learners import LEARNERS, DDPMIQLConfig, GeneralDDPMIQLConfig
from idql_func.training.configs.presets import (
    DESCRIPTIONS,
    FINETUNE_PRESETS,
    ONLINE_PRESETS,
    PRESETS,
    preset_for,
)
from idql_func.training.configs.settings import settings_from_dict, settings_to_dict
from idql_func.training.configs.sweeps import LAUNCHERS, cells_of
from idql_func.training.offline import learner_keywords
from idql_func.tree import tree_leaves, tree_paths
from idql_func.types import InputError

UPSTREAM = json.loads(
    (Path(__file__).parent / "reference" / "upstream_settings.json").read_text(encoding="utf-8")
)
ENTRIES = {entry.line: entry for entry in catalogue()}


def plain(values: dict[str, Any]) -> dict[str, Any]:
    """The values after a round trip through JSON: lists instead of tuples."""
    return json.loads(json.dumps(values))


def learner_of(entry: CatalogueEntry) -> Any:
    return getattr(entry.config, "offline", entry.config).learner


# --- the values ---------------------------------------------------------------------------


def test_every_file_of_upstream_has_a_preset() -> None:
    named = {file for entry in ENTRIES.values() for file in entry.upstream}
    assert named == {*UPSTREAM["configs"], *UPSTREAM["launchers"]}


@pytest.mark.parametrize(
    ("line", "file"),
    [
        (line, file)
        for line, entry in ENTRIES.items()
        for file in entry.upstream
        if file in UPSTREAM["configs"]
    ],
)
def test_presets_equal_upstreams_configuration_files(line: str, file: str) -> None:
    """The files that this file imports count too, except for values that it changes."""
    entry = ENTRIES[line]
    first, *others = entry.upstream
    wanted = dict(UPSTREAM["configs"][file])
    if file in others:
        changed = UPSTREAM["configs"][first]
        wanted = {k: v for k, v in wanted.items() if changed[k] == v}
        assert len(wanted) >= 5
    class_name = wanted.pop("model_cls", entry.learner)
    decay = wanted.pop("cosine_decay", None)
    keywords = plain(learner_of(entry).keywords())
    assert entry.learner == class_name
    assert {k: keywords[k] for k in wanted} == wanted
    if decay is not None:
        assert entry.config.cosine_decay is decay
    if file == first:
        defaults = plain(LEARNERS[class_name]().keywords())
        rest = {k: v for k, v in keywords.items() if k not in wanted}
        assert rest == {k: v for k, v in defaults.items() if k not in wanted}


def offline_settings(config: Any) -> dict[str, Any]:
    """A preset's settings under the names of a launcher."""
    return {
        "max_steps": config.max_steps,
        "batch_size": config.batch_size,
        "log_interval": config.log_interval,
        "eval_interval": config.evaluation.interval,
        "eval_episodes": config.evaluation.episodes,
        "filter_threshold": config.dataset.filter_threshold,
        "take_top": config.dataset.take_top,
        **{f"rl_config.{k}": v for k, v in plain(config.learner.keywords()).items()},
        "rl_config.model_cls": config.learner.class_name,
    }


def shared_settings(launcher: str) -> dict[str, Any]:
    shared = dict(UPSTREAM["launchers"][launcher]["shared"])
    for ignored in ("project", "experiment_name", "save_video", "unsquash_actions"):
        shared.pop(ignored, None)
    return shared


@pytest.mark.parametrize("name", ["locomotion", "antmaze"])
def test_idql_presets_equal_upstreams_launcher(name: str) -> None:
    config = PRESETS[name]
    shared = shared_settings("launcher/examples/train_ddpm_iql_offline.py")
    numbers = [variant["N"] for variant in shared.pop("inference_variants")]
    assert numbers == list(config.evaluation.N) == [16, 64, 256]
    assert shared.pop("training_time_inference_params") == {"N": 64, "clip_sampler": True, "M": 0}
    assert shared.pop("normalize_returns") is True
    assert shared.pop("online_max_steps") == 0
    settings = offline_settings(config)
    assert {k: settings[k] for k in shared} == shared
    assert config.evaluation.interval_episodes == config.evaluation.episodes
    assert config.dataset.train_fraction == 0.95


@pytest.mark.parametrize("name", ["iql-oneparam", "iql-oneparam-antmaze"])
def test_iql_presets_equal_upstreams_launcher(name: str) -> None:
    config = PRESETS[name]
    shared = shared_settings("launcher/iql/train_iql_oneparam.py")
    assert shared.pop("normalize_returns") is True
    settings = offline_settings(config)
    assert {k: settings[k] for k in shared} == shared
    assert not config.cosine_decay  # L11
    assert config.dataset.train_fraction == 1.0  # D5


@pytest.mark.parametrize("name", ["antmaze", "antmaze-actor"])
def test_finetune_presets_equal_upstreams_launcher(name: str) -> None:
    config = FINETUNE_PRESETS[name]
    shared = shared_settings("launcher/examples/train_ddpm_iql_finetune.py")
    for ignored in ("sample_implicit_policy", "train_actor_finetuning", "normalize_returns"):
        shared.pop(ignored)  # L3; the third matters to locomotion alone
    numbers = [variant["N"] for variant in shared.pop("inference_variants")]
    assert numbers == list(config.evaluation.N) == list(config.offline.evaluation.N) == [128]
    assert shared.pop("training_time_inference_params")["N"] == 64
    settings = {
        **offline_settings(config.offline),
        "online_max_steps": config.max_steps,
        "online_start_training": config.start_training,
        "online_eval_episodes": config.evaluation.episodes,
        "online_eval_interval": config.evaluation.interval,
    }
    if name == "antmaze-actor":
        # the launcher's comments give these values for the second variant
        assert shared.pop("rl_config.decay_steps") == 2_000_000
        assert settings.pop("rl_config.decay_steps") == 4_000_000
        assert config.train_actor
    class_name = shared.pop("rl_config.model_cls")  # L2: upstream's exported one rejects the rest
    assert (class_name, config.offline.learner.class_name) == (
        "DDPMIQLLearner",
        "GeneralDDPMIQLLearner",
    )
    assert {k: settings[k] for k in shared} == shared
    assert (config.online_batch, config.offline_batch) == (128, 128)  # L4


@pytest.mark.parametrize("name", ["sac", "td3", "redq", "droq", "drq", "pixel-bc"])
def test_loops_have_the_defaults_of_upstreams_flags(name: str) -> None:
    if name == "pixel-bc":
        config, flags = PRESETS[name], UPSTREAM["flags"]["examples/pixels/train_offline_pixels.py"]
    else:
        script = "pixels/train_online_pixels.py" if name == "drq" else "states/train_online.py"
        config, flags = ONLINE_PRESETS[name], UPSTREAM["flags"][f"examples/{script}"]
        assert config.start_training == flags["start_training"]
        assert config.utd_ratio == flags["utd_ratio"]
        assert config.env.rpartition("/")[2] == flags["env_name"]
    assert config.batch_size == flags["batch_size"]
    assert config.max_steps == flags["max_steps"]
    assert config.log_interval == flags["log_interval"]
    assert config.evaluation.interval == flags["eval_interval"]
    assert config.evaluation.interval_episodes == flags["eval_episodes"]
    if name == "drq":
        pixels = ONLINE_PRESETS[name].pixels
        assert pixels.image_size == flags["image_size"]
        assert pixels.num_stack == flags["num_stack"]
        assert pixels.action_repeat is flags["action_repeat"] is None
        assert pixels.memory_efficient is flags["memory_efficient_replay_buffer"]


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_sweep_of_a_launcher_equals_upstream(launcher: str) -> None:
    """The same runs in any order, each with the preset that has its settings."""
    [file] = [name for name in UPSTREAM["launchers"] if name.endswith(f"/{launcher}.py")]
    record = UPSTREAM["launchers"][file]
    cells = cells_of(LAUNCHERS[launcher])
    assert len(cells) == record["count"]
    assert {cell.seed for cell in cells} == set(range(record["seeds"]))
    ours = []
    for cell in cells[:: record["seeds"]]:
        settings = dict(cell.settings)
        learner = learner_of(ENTRIES[f"idql {cell.command} {cell.preset}"]).keywords()
        source = settings.get("dataset.source") or settings["offline.dataset.source"]
        rewards = settings.get("dataset.rewards") or dict(
            iql="normalize_returns", antmaze="minus_one"
        ).get("antmaze" if "antmaze" in source else "iql")
        assert rewards == (
            "minus_one"
            if source.startswith("antmaze")
            else "as_stored"
            if source.startswith("maze2d")
            else "normalize_returns"
        )
        run: dict[str, Any] = {"env_name": source}
        if "critic_hyperparam" in learner:
            run["rl_config.critic_hyperparam"] = learner["critic_hyperparam"]
        else:
            run["temperature"] = float(settings["learner.temperature"])
            run["rl_config.temperature"] = run["temperature"]
            run["rl_config.expectile"] = learner["expectile"]
        ours.append(run)
    theirs = record["variants"]
    if launcher == "train_ddpm_iql_finetune":
        shared = record["shared"]["rl_config.critic_hyperparam"]
        theirs = [{**variant, "rl_config.critic_hyperparam": shared} for variant in theirs]
    key = json.dumps
    assert sorted(key(run, sort_keys=True) for run in plain({"_": ours})["_"]) == sorted(
        key({k: float(v) if isinstance(v, int) else v for k, v in run.items()}, sort_keys=True)
        for run in theirs
    )


# --- the learners -------------------------------------------------------------------------


@pytest.mark.parametrize("line", ENTRIES)
def test_presets_build_their_learner_and_update_it(line: str) -> None:
    entry = ENTRIES[line]
    entry.config.validate()
    settings = plain(settings_to_dict(entry.config))
    assert settings_from_dict(type(entry.config), settings) == entry.config
    offline = getattr(entry.config, "offline", entry.config)
    keywords = (
        learner_keywords(offline) if hasattr(offline, "dataset") else offline.learner.keywords()
    )
    rng = np.random.default_rng(0)
    rows = 2
    actions = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
    if entry.learner in ("DrQLearner", "PixelBCLearner"):
        image = gym.spaces.Box(0, 255, (64, 64, 3, 3), np.uint8)
        space: gym.spaces.Space = gym.spaces.Dict({"pixels": image})

        def observations() -> Any:
            frames = rng.integers(0, 256, (rows, *image.shape), np.uint8)
            return {"pixels": torch.from_numpy(frames)}
    else:
        space = gym.spaces.Box(-1.0, 1.0, (3,), np.float32)

        def observations() -> Any:
            return torch.from_numpy(rng.standard_normal((rows, 3)).astype(np.float32))

    learner = getattr(agents, entry.learner).create(0, space, actions, **keywords)
    batch = {
        "observations": observations(),
        "next_observations": observations(),
        "actions": torch.from_numpy(rng.uniform(-0.9, 0.9, (rows, 2)).astype(np.float32)),
        "rewards": torch.ones(rows),
        "masks": torch.ones(rows),
    }
    updated, info = learner.update(batch)
    assert info and all(torch.isfinite(value).all() for value in info.values())
    before, after = tree_leaves(learner), tree_leaves(updated)
    changed = {
        path.split("/")[0]
        for path, x, y in zip(tree_paths(learner), before, after, strict=True)
        if "/params/" in path and not torch.equal(x, y)
    }
    # TD3's actor changes only in every second update.
    assert changed & {"actor", "score_model", "critic", "network"}


# --- by name ------------------------------------------------------------------------------


def test_every_preset_has_a_description_and_its_own_name() -> None:
    assert DESCRIPTIONS.keys() == PRESETS.keys()
    for name, config in PRESETS.items():
        assert config.preset == name
    assert [entry.command for entry in presets_called("antmaze")] == ["train", "finetune"]
    with pytest.raises(InputError, match="no preset is called 'mars'; there are pointmaze, "):
        presets_called("mars")


def test_preset_for_another_learner_keeps_shared_settings() -> None:
    config = preset_for("antmaze", "GeneralDDPMIQLLearner")
    assert isinstance(config.learner, GeneralDDPMIQLConfig)
    assert config.learner.actor_architecture == "ln_resnet"
    assert config.learner.actor_num_blocks == 3
    assert config.learner.actor_dropout_rate == 0.1
    assert config.learner.critic_hyperparam == 0.9
    assert config.learner.time_dim == GeneralDDPMIQLConfig().time_dim == 64
    iql: Any = preset_for("pointmaze", "IQLLearner").learner
    assert (iql.expectile, iql.discount, iql.tau) == (0.9, 0.98, 0.02)
    with pytest.raises(InputError, match="no preset is called 'mars'"):
        preset_for("mars")


def test_cosine_decay_becomes_decay_steps_of_idql() -> None:
    config = preset_for("iql-antmaze", "DDPMIQLLearner")
    assert isinstance(config.learner, DDPMIQLConfig)
    assert not config.cosine_decay
    assert config.learner.decay_steps == config.max_steps == 1_500_001
    assert (config.learner.actor_lr, config.learner.critic_hyperparam) == (3e-4, 0.9)
    config.validate()
