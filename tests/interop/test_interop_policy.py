"""Exported policies: the learner's actions, Flax's names, files, and bad input."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import safetensors.torch
import torch
from test_interop import REFERENCE, make_learner, state_of
from upstream_flax import ACT, CASES, OBS, PIXELS, RECORDED, VISION, make_batch

from idql_func import agents, disable_jit, interop, random, tree_leaves, tree_map, tree_stack
from idql_func.networks import MLP
from idql_func.tree import flatten_params
from idql_func.types import InputError


@pytest.fixture(autouse=True)
def eager() -> Iterator[None]:
    with disable_jit():
        yield


# encoders, architectures and norms that the reference cases lack
MORE: dict[str, tuple[str, dict[str, Any]]] = {
    "resnet": ("ddpm_iql_general", {"actor_architecture": "ln_resnet", "actor_layer_norm": True,
                                    "actor_hidden_dims": (256, 256, 256), "actor_num_blocks": 1}),
    "dropout": ("ddpm_iql", {"actor_num_blocks": 1, "actor_dropout_rate": 0.1}),
    "norm": ("bc", {"use_layer_norm": True, "dropout_rate": 0.1}),
    "padded": ("drq", {"cnn_padding": ((1, 1), (0, 2)), "num_min_qs": 1}),
    "image-resnet": ("pixel_bc", {"encoder": "resnet", "distr_name": "Normal"}),
}  # fmt: skip


def learner_of(name: str) -> Any:
    case, keywords = MORE.get(name, (name, {}))
    return make_learner(case, **keywords)


def observations_of(name: str) -> Any:
    case = MORE.get(name, (name,))[0]
    observations = make_batch(2, case in PIXELS)["observations"]
    return tree_map(torch.from_numpy, observations)


@pytest.mark.parametrize("name", [*CASES, *MORE])
def test_actions_equal_the_learner(name: str, tmp_path: Path) -> None:
    learner, observations = learner_of(name), observations_of(name)
    policy = interop.load_policy(
        interop.save_policy(interop.policy_module(learner), tmp_path / "policy.safetensors")
    )
    expected, _ = learner.eval_actions(observations)
    assert policy(observations).shape == (len(expected), ACT)
    np.testing.assert_allclose(policy(observations), expected, rtol=0, atol=1e-6)
    one = tree_map(lambda x: x[0], observations)
    expected, _ = learner.eval_actions(one)
    assert policy(one).shape == (ACT,)
    np.testing.assert_allclose(policy(one), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", RECORDED)
def test_actions_equal_upstream(name: str) -> None:
    learner = interop.from_state_dict(make_learner(name), state_of(name))
    one = tree_map(lambda x: x[0], observations_of(name))
    after = safetensors.torch.load_file(REFERENCE / "after.safetensors")
    action = interop.policy_module(learner)(one)
    np.testing.assert_allclose(action, after[f"{name}/actions"][0], rtol=0, atol=1e-6)


def test_actions_from_cameras_depth_and_state_equal_the_learner() -> None:
    frames, depth = ((8, 8, channels, 2) for channels in (3, 1))
    spaces = {
        **{name: gym.spaces.Box(0, 255, frames, np.uint8) for name in ("left", "right")},
        **{f"{name}_depth": gym.spaces.Box(-1, 1, depth) for name in ("left", "right")},
        "state": gym.spaces.Box(-1, 1, (5,)),
    }
    learner = agents.PixelBCLearner.create(
        0, gym.spaces.Dict(spaces), gym.spaces.Box(-1, 1, (ACT,)), **VISION,
        pixel_keys=("left", "right"), depth_keys=("left_depth", "right_depth"),
    )  # fmt: skip
    rng = np.random.default_rng(0)
    rows: dict[str, torch.Tensor] = {}
    for name, space in spaces.items():
        values = rng.uniform(0, 256 if space.dtype == np.uint8 else 1, (3, *space.shape))
        rows[name] = torch.from_numpy(values.astype(space.dtype))
    policy = interop.policy_module(learner)
    np.testing.assert_allclose(policy(rows), learner.eval_actions(rows)[0], rtol=0, atol=1e-6)
    with pytest.raises(
        InputError, match=r"must all be single or all have the same batch size, got 'left'"
    ):
        policy({**rows, "state": rows["state"][0]})


# --- IDQL's key -----------------------------------------------------------------------------------


def test_actions_depend_on_the_given_key() -> None:
    learner, rows = make_learner("ddpm_iql"), observations_of("ddpm_iql")
    policy: Any = interop.policy_module(learner)
    assert torch.equal(policy(rows), policy(rows, learner.rng))
    assert torch.equal(policy(rows, 7), policy(rows, random.PRNGKey(7)))
    assert not torch.equal(policy(rows, 7), policy(rows, 8))
    expected, _ = learner.replace(rng=random.PRNGKey(7)).eval_actions(rows)
    np.testing.assert_allclose(policy(rows, 7), expected, rtol=0, atol=1e-6)


# --- the module -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "fields"),
    [("sac", ["actor"]), ("drq", ["actor"]), ("ddpm_iql", ["target_score_model", "target_critic"])],
)
def test_state_dict_has_flaxs_names_and_tensors(name: str, fields: list[str]) -> None:
    learner = make_learner(name)
    state = interop.policy_module(learner).state_dict()
    expected: dict[str, torch.Tensor] = {}
    for field in fields:
        expected |= flatten_params(getattr(learner, field).params, f"{field}.")
    if name == "ddpm_iql":
        expected |= {n: getattr(learner, n) for n in ("betas", "alphas", "alpha_hats")}
        expected["key"] = learner.rng
    assert set(state) == set(expected)
    for key, tensor in expected.items():
        assert type(state[key]) is torch.Tensor and torch.equal(state[key], tensor), key


def test_policy_shares_no_memory_and_requires_no_gradient() -> None:
    learner = make_learner("iql")
    before = [torch.as_tensor(x).clone() for x in tree_leaves(learner)]
    policy = interop.policy_module(learner)
    assert not any(p.requires_grad for p in policy.parameters())
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.fill_(1)
    for a, b in zip(before, tree_leaves(learner), strict=True):
        assert torch.equal(a, torch.as_tensor(b))


def test_policy_can_be_trained() -> None:
    policy = interop.policy_module(make_learner("td3")).requires_grad_()
    optimiser = torch.optim.SGD(policy.parameters(), lr=0.1)
    rows = observations_of("td3")
    first = ((policy(rows) - 0.5) ** 2).mean()
    first.backward()
    optimiser.step()
    assert ((policy(rows) - 0.5) ** 2).mean() < first


@pytest.mark.parametrize("name", ["sac", "ddpm_iql"])
def test_state_dict_round_trips_through_safetensors_and_torch_save(
    name: str, tmp_path: Path
) -> None:
    one, other = (interop.policy_module(make_learner(name, seed)) for seed in (1, 2))
    rows = observations_of(name)
    assert not torch.equal(one(rows), other(rows))
    safetensors.torch.save_file(one.state_dict(), tmp_path / "a.safetensors")
    other.load_state_dict(safetensors.torch.load_file(tmp_path / "a.safetensors"))
    assert torch.equal(one(rows), other(rows))
    torch.save({"config": one.config, "state": one.state_dict()}, tmp_path / "a.pt")
    saved = torch.load(tmp_path / "a.pt", weights_only=True)
    assert torch.equal(one(rows), interop.build_policy(saved["config"], saved["state"])(rows))


def test_double_precision_is_kept() -> None:
    def widen(x: Any) -> Any:
        return x.double() if isinstance(x, torch.Tensor) and x.is_floating_point() else x

    learner = tree_map(widen, make_learner("ddpm_iql"))
    policy = interop.policy_module(learner)
    rows = observations_of("ddpm_iql").double()
    assert policy(rows).dtype == torch.float64
    np.testing.assert_allclose(policy(rows), learner.eval_actions(rows)[0], rtol=0, atol=1e-12)


def test_policy_file_is_loaded_without_a_learner(tmp_path: Path) -> None:
    policy = interop.policy_module(make_learner("bc"))
    path = interop.save_policy(policy, tmp_path / "policy.safetensors")
    program = (
        "import torch, idql_func.interop as interop\n"
        f"print(interop.load_policy({str(path)!r})(torch.ones({OBS})).tolist())\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120
    )
    assert json.loads(run.stdout) == policy(torch.ones(OBS)).tolist()


@pytest.mark.parametrize("name", ["td3", "ddpm_iql"])
def test_policy_can_be_exported_with_torch_export(name: str) -> None:
    policy, rows = interop.policy_module(make_learner(name)), observations_of(name)
    program = torch.export.export(policy, (rows,))
    assert torch.allclose(program.module()(rows), policy(rows), rtol=0, atol=1e-6)


# --- bad input ------------------------------------------------------------------------------------


def test_observations_of_another_shape_raise() -> None:
    policy = interop.policy_module(make_learner("sac"))
    for shape in ((4,), (2, 4), (1, 2, 3), ()):
        with pytest.raises(InputError, match=r"must have shape \(3,\) or \(batch, 3\), got"):
            policy(torch.zeros(shape))
    pixels = interop.policy_module(make_learner("drq"))
    with pytest.raises(
        InputError, match=r"observations\['pixels'\] must have shape \(8, 8, 3, 2\)"
    ):
        pixels({"pixels": torch.zeros(8, 8, 3, 3)})
    with pytest.raises(InputError, match="observations must be a dict with the entries pixels"):
        pixels(torch.zeros(3))


def test_stacks_and_custom_networks_raise() -> None:
    stack = tree_stack([make_learner("iql", seed) for seed in (0, 1)])
    with pytest.raises(InputError, match="a stack of learners; export one of tree_unstack"):
        interop.policy_module(stack)
    learner = make_learner("iql")
    custom = learner.replace(actor=learner.actor.replace(apply_fn=lambda *_: None))
    with pytest.raises(InputError, match="actor cannot be exported: its apply_fn is not a method"):
        interop.policy_module(custom)

    class Other(MLP):
        pass

    other = Other(3, (2,), activations=torch.sin)
    with pytest.raises(
        InputError, match=r"with the activation .* cannot be exported; supported are"
    ):
        interop.policy_module(learner.replace(actor=learner.actor.replace(apply_fn=other.apply)))


def test_damaged_and_other_files_raise(tmp_path: Path) -> None:
    path = interop.save_policy(interop.policy_module(make_learner("iql")), tmp_path / "p")
    data = path.read_bytes()
    for damaged in (b"", data[:50], data[:-1], data[:40] + b"\xff" + data[41:]):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match="must be a safetensors file that save_policy wrote"):
            interop.load_policy(path)
    safetensors.torch.save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(InputError, match="that save_policy wrote"):
        interop.load_policy(path)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"kind": "random"}, r"must have a kind \(greedy, diffusion\) and a dtype, got 'random'"),
        ({"dtype": "float31"}, "got 'greedy' and 'float31'"),
        ({"networks": {}}, "these settings are not those of a policy: 'actor'"),
        ({"networks": {"actor": {"class": "Transformer"}}}, "no network has these settings"),
        ({"networks": {"actor": {"class": "MLP", "input_dim": 0, "hidden_dims": [2]}}}, "at least"),
    ],
)
def test_invalid_settings_raise(change: dict[str, Any], sentence: str) -> None:
    policy = interop.policy_module(make_learner("iql"))
    with pytest.raises(InputError, match=sentence):
        interop.build_policy({**policy.config, **change}, policy.state_dict())


def test_mismatched_tensors_raise_with_their_name() -> None:
    policy = interop.policy_module(make_learner("iql"))
    state = policy.state_dict()
    tensor = state.pop("actor.OutpuLogStd")
    state["actor.OutputLogStd"] = tensor
    sentence = "actor.OutpuLogStd is missing; actor.OutputLogStd is not expected"
    with pytest.raises(InputError, match=sentence):
        interop.build_policy(policy.config, state)
    assert agents.IQLLearner.__name__ == policy.config["learner"]
