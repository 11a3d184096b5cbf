"""Learners to and from Flax's checkpoints, without JAX, with checkpoints of upstream's learners.

``tests/reference`` was recorded by ``upstream_flax.py``; with ``-m live`` (``IDQL_UPSTREAM`` and
``IDQL_REFERENCE_PYTHON`` set) the tests record new checkpoints, and Flax reads the exported ones.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from upstream_flax import ACT, CASES, FRAMES, OBS, PIXELS, RECORDED, make_batch

from idql_func import agents, disable_jit, interop, tree_leaves, tree_map, tree_stack
from idql_func.struct import TrainState
from idql_func.transforms import tree_paths
from idql_func.types import InputError

REFERENCE = Path(__file__).parent / "reference"


@pytest.fixture(autouse=True)
def eager() -> Iterator[None]:
    with disable_jit():
        yield


def make_learner(name: str, seed: int = 1, **keywords: Any) -> Any:
    """The port's learner of a case, with a seed that differs from upstream's."""
    class_name, settings = CASES[name]
    space: Any = gym.spaces.Box(-1, 1, (OBS,))
    if name in PIXELS:
        space = gym.spaces.Dict({"pixels": gym.spaces.Box(0, 255, FRAMES, np.uint8)})
    cls = getattr(agents, class_name)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "beta_schedule='linear'")  # quirk N10
        return cls.create(seed, space, gym.spaces.Box(-1, 1, (ACT,)), **{**settings, **keywords})


@functools.cache
def state_of(name: str) -> Any:
    return interop.msgpack_restore((REFERENCE / f"{name}.msgpack").read_bytes())


def loaded(name: str) -> Any:
    return interop.from_state_dict(make_learner(name), state_of(name))


def leaves(tree: Any, path: str = "") -> dict[str, Any]:
    """Leaves of nested dicts by path; an empty dict counts as a leaf."""
    if isinstance(tree, dict) and tree:
        return {k: v for key, x in tree.items() for k, v in leaves(x, f"{path}/{key}").items()}
    return {path: tree}


def as_tensors(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {name: as_tensors(value) for name, value in tree.items()}
    return torch.from_numpy(tree)


def gain(learner: Any) -> float:
    """The factor of rounding errors in IDQL's sampler: 12 with ``vp`` and T = 2."""
    alpha_hats = getattr(learner, "alpha_hats", None)
    return 1.0 if alpha_hats is None else float(1 / alpha_hats[-1].sqrt())


def check_against_upstream(learner: Any, name: str, after: dict[str, np.ndarray]) -> None:
    """The losses of the next update, eight actions and the final key equal upstream's."""
    batch = as_tensors(make_batch(2, name in PIXELS))
    _, info = learner.update(batch)
    prefix = f"{name}/info/"
    expected = {k.removeprefix(prefix): v for k, v in after.items() if k.startswith(prefix)}
    assert expected
    for key, value in expected.items():
        if value.ndim == 0:  # IQL's advantages are a vector upstream (quirk U20)
            np.testing.assert_allclose(info[key].item(), value, rtol=2e-5, atol=1e-6, err_msg=key)
    expected_actions = after[f"{name}/actions"]
    assert (np.abs(expected_actions) < 1).any()  # actions at the bounds would hide an error
    for i, expected_action in enumerate(expected_actions):
        one = tree_map(lambda x, i=i: x[i], batch["observations"])
        action, learner = learner.eval_actions(one)
        np.testing.assert_allclose(action, expected_action, rtol=0, atol=1e-6 * gain(learner))
    assert learner.rng.tolist() == after[f"{name}/rng"].tolist()


# --- equality with upstream and Flax --------------------------------------------------------------


@pytest.mark.parametrize("name", RECORDED)
def test_upstream_checkpoint_continues_equally(name: str) -> None:
    check_against_upstream(loaded(name), name, load_file(REFERENCE / "after.safetensors"))


@pytest.mark.parametrize("name", RECORDED)
def test_loaded_learner_exports_the_same_bits(name: str) -> None:
    data = interop.to_bytes(loaded(name))
    ours, theirs = (leaves(x) for x in (interop.msgpack_restore(data), state_of(name)))
    assert set(ours) == set(theirs)
    hyper_parameters = set()
    for path, expected in theirs.items():
        value = ours[path]
        if isinstance(value, float | int) and not isinstance(expected, float | int):
            hyper_parameters.add(path)  # a decimal that rounds to JAX's float32
            value = expected.dtype.type(value)
        if isinstance(expected, np.ndarray):
            assert np.asarray(value).dtype == expected.dtype, path
            assert np.asarray(value).tobytes() == expected.tobytes(), path
        else:
            assert value == expected, path
    assert all(path.count("/") == 1 for path in hyper_parameters)


@pytest.mark.live
def test_flax_reads_exported_learners(tmp_path: Path) -> None:
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    theirs.mkdir()
    ours.mkdir()
    _run_upstream("write", theirs)
    after = load_file(theirs / "after.safetensors")
    for name in CASES:
        data = (theirs / f"{name}.msgpack").read_bytes()
        learner = interop.from_bytes(make_learner(name), data)
        check_against_upstream(learner, name, after)
        (ours / f"{name}.msgpack").write_bytes(interop.to_bytes(learner))
    found = json.loads(_run_upstream("compare", theirs, ours).splitlines()[-1])
    assert sorted(found) == sorted(CASES)
    print({name: result["leaves"] for name, result in found.items()})
    assert {name: r["different"] for name, r in found.items()} == {name: [] for name in CASES}


def _run_upstream(*arguments: Any) -> str:
    missing = [n for n in ("IDQL_UPSTREAM", "IDQL_REFERENCE_PYTHON") if n not in os.environ]
    if missing:
        pytest.fail(f"-m live needs environment variables, but {' and '.join(missing)} not set")
    script = Path(__file__).parent / "upstream_flax.py"
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment["PYTHONPATH"] = os.environ["IDQL_UPSTREAM"]
    run = subprocess.run(
        [os.environ["IDQL_REFERENCE_PYTHON"], str(script), *map(str, arguments)],
        capture_output=True, text=True, check=False, timeout=900, env=environment,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-2000:]
    return run.stdout


def test_import_and_load_without_jax_and_flax() -> None:
    program = (
        "import sys; sys.modules.update(dict.fromkeys(['jax', 'flax', 'orbax', 'optax']))\n"
        "import gymnasium as gym, idql_func.interop as interop\n"
        "from idql_func.agents import DDPMIQLLearner\n"
        "box = lambda n: gym.spaces.Box(-1, 1, (n,))\n"
        "learner = DDPMIQLLearner.create(0, box(3), box(2), critic_hidden_dims=(8,), time_dim=2,\n"
        "    T=2, N=4, actor_num_blocks=0, decay_steps=10)\n"
        f"data = open({str(REFERENCE / 'ddpm_iql.msgpack')!r}, 'rb').read()\n"
        "print(interop.from_bytes(learner, data).critic.step.item())\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120
    )
    assert run.stdout.strip() == "2"


# --- loaded values --------------------------------------------------------------------------------


def test_optimiser_states_and_targets_are_loaded() -> None:
    learner = loaded("ddpm_iql")
    state = state_of("ddpm_iql")
    adam, decay, schedule = learner.score_model.opt_state
    assert (learner.score_model.step.item(), adam.count.item(), schedule.count.item()) == (2, 2, 2)
    assert learner.score_model.step.dtype == adam.count.dtype == torch.int32
    assert decay == () and learner.target_critic.opt_state == ()
    moments = state["score_model"]["opt_state"]["0"]["nu"]["MLPResNet_0"]["Dense_0"]["kernel"]
    assert np.array_equal(adam.nu["MLPResNet_0"]["Dense_0"]["kernel"], moments)
    target = state["target_critic"]["params"]["VmapStateActionValue_0"]["Dense_0"]["kernel"]
    assert np.array_equal(
        learner.target_critic.params["VmapStateActionValue_0"]["Dense_0"]["kernel"], target
    )
    assert learner.rng.dtype == torch.int64 and learner.rng.tolist() == state["rng"].tolist()


def test_hyper_parameters_are_restored_as_decimals() -> None:
    state = state_of("ddpm_iql")
    assert state["discount"].dtype == np.float32
    learner = interop.from_state_dict(make_learner("ddpm_iql", discount=0.5, N=9), state)
    assert learner.discount == 0.99 and isinstance(learner.discount, float)
    assert learner.N == 4 and isinstance(learner.N, int)


def test_number_that_rounds_to_the_saved_one_is_kept() -> None:
    third = 1 / 3
    state = {**state_of("iql"), "temperature": np.float32(third)}
    assert interop.from_state_dict(make_learner("iql"), state).temperature == pytest.approx(third)
    kept = interop.from_state_dict(make_learner("iql", temperature=third), state)
    assert kept.temperature == third


@pytest.mark.parametrize("saved", [None, 0.25, np.float32(0.25), np.array(0.25, np.float32)])
@pytest.mark.parametrize("given", [None, 0.5])
def test_optional_hyper_parameter_may_be_none(saved: Any, given: Any) -> None:
    state = {**state_of("bc"), "entropy_bonus": saved}
    learner = interop.from_state_dict(make_learner("bc", entropy_bonus=given), state)
    assert learner.entropy_bonus == (None if saved is None else 0.25)


@pytest.mark.parametrize("name", CASES)
def test_new_learner_round_trips(name: str) -> None:
    learner = make_learner(name, seed=3)
    again = interop.from_bytes(make_learner(name, seed=4), interop.to_bytes(learner))
    assert tree_paths(again) == tree_paths(learner)
    for path, a, b in zip(
        tree_paths(learner), tree_leaves(learner), tree_leaves(again), strict=True
    ):
        assert type(a) is type(b), path
        assert torch.equal(torch.as_tensor(a), torch.as_tensor(b)), path


def test_stacked_and_double_precision_learners_round_trip() -> None:
    def wide(learner: Any) -> Any:
        def widen(x: Any) -> Any:
            return x.double() if isinstance(x, torch.Tensor) and x.is_floating_point() else x

        return tree_map(widen, learner)

    stack = [
        tree_stack([make_learner("td3", seed) for seed in seeds]) for seeds in ((0, 1), (2, 3))
    ]
    double = [wide(make_learner("ddpm_iql", seed)) for seed in (0, 1)]
    for source, target in (stack, double):
        again = interop.from_bytes(target, interop.to_bytes(source))
        for a, b in zip(tree_leaves(source), tree_leaves(again), strict=True):
            assert torch.equal(torch.as_tensor(a), torch.as_tensor(b))


def test_parts_of_a_learner_load_alone() -> None:
    learner, state = make_learner("iql"), state_of("iql")
    params = interop.from_state_dict(learner.value.params, state["value"]["params"])
    value = interop.from_state_dict(learner.value, state["value"])
    assert isinstance(value, TrainState)
    for one in (params, value.params):
        kernel = state["value"]["params"]["OutputVDense"]["kernel"]
        assert np.array_equal(one["OutputVDense"]["kernel"], kernel)


def test_target_is_unchanged_and_shares_no_memory() -> None:
    target = make_learner("iql")
    before = [torch.as_tensor(x).clone() for x in tree_leaves(target)]
    state = interop.to_state_dict(target)
    learner = interop.from_state_dict(target, state_of("iql"))
    state["value"]["params"]["OutputVDense"]["kernel"][:] = 7
    learner.value.params["OutputVDense"]["kernel"].fill_(8)
    for a, b in zip(before, tree_leaves(target), strict=True):
        assert torch.equal(a, torch.as_tensor(b))


# --- mismatches -----------------------------------------------------------------------------------


def changed(state: Any, path: str, value: Any = "removed") -> Any:
    name, _, rest = path.partition("/")
    if rest:
        return {**state, name: changed(state[name], rest, value)}
    kept = {k: v for k, v in state.items() if k != name}
    return kept if isinstance(value, str) else {**kept, name: value}


KERNEL = "critic/params/VmapStateActionValue_0/Dense_0/kernel"
MOMENT = "actor/opt_state/0/mu/OutpuLogStd"
PROBLEMS = [
    (KERNEL, "removed", f"{KERNEL} is missing"),
    (KERNEL, np.zeros((2, 9, 1), np.float32), r"has shape \(2, 9, 1\), expected \(2, 8, 1\)"),
    (KERNEL, np.zeros((2, 8, 1)), f"{KERNEL} is float64, expected float32"),
    (KERNEL, np.zeros((2, 8, 1), np.int32), f"{KERNEL} is int32, expected float32"),
    (KERNEL, {"a": np.zeros(1)}, f"{KERNEL} is a dict, expected an array"),
    (MOMENT, "removed", f"{MOMENT} is missing"),
    ("critic/opt_state", "removed", "critic/opt_state is missing"),
    ("critic/opt_state/1", {"count": np.int32(1)}, "critic/opt_state/1/count is not expected"),
    ("target_critic/opt_state", {"0": {"count": 0}}, "target_critic/opt_state/0 is not expected"),
    ("critic/extra", np.zeros(1), "critic/extra is not expected"),
    ("critic/step", 2**31, "critic/step has values beyond int32"),
    ("critic/step", np.array([1, 2]), r"critic/step has shape \(2,\), expected \(\)"),
    ("value", np.zeros(3), r"value is float64 \[3\], expected a dict"),
    ("rng", np.zeros(3, np.uint32), r"rng is uint32 \[3\], expected a uint32 key \[2\]"),
    ("rng", np.zeros(2, np.float32), r"rng is float32 \[2\], expected a uint32 key"),
    ("rng", np.array([-1, 2]), "rng has words that are not 32-bit unsigned integers"),
    ("discount", None, "discount is None, expected a number"),
    ("discount", np.zeros(2), r"discount has shape \(2,\), expected a number"),
]


@pytest.mark.parametrize(("path", "value", "sentence"), PROBLEMS)
def test_mismatched_leaves_raise_with_their_path(path: str, value: Any, sentence: str) -> None:
    state = changed(state_of("iql"), path, value)
    with pytest.raises(InputError, match=sentence) as caught:
        interop.from_state_dict(make_learner("iql"), state)
    assert str(caught.value).startswith("the checkpoint does not match this IQLLearner: ")
    assert str(caught.value).count(";") == 0


def test_fraction_for_an_integer_raises() -> None:
    state = {**state_of("ddpm_iql"), "N": 4.5}
    with pytest.raises(InputError, match=r"N is 4\.5, expected an integer"):
        interop.from_state_dict(make_learner("ddpm_iql"), state)


def test_many_problems_are_counted() -> None:
    with pytest.raises(InputError) as caught:
        interop.from_state_dict(make_learner("iql", hidden_dims=(9,)), state_of("iql"))
    message = str(caught.value)
    assert message.count("expected") == 8 and message.endswith("more like these.")
    assert "actor/params/MLP_0/Dense_0/kernel has shape (3, 8), expected (3, 9)" in message


def test_checkpoint_of_another_learner_or_optimiser_raises() -> None:
    with pytest.raises(InputError, match=r"IQLLearner: critic is missing; .*entropy_bonus is not"):
        interop.from_state_dict(make_learner("iql"), state_of("bc"))
    constant = make_learner("ddpm_iql", decay_steps=None)
    with pytest.raises(InputError, match="score_model/opt_state/2/count is not expected"):
        interop.from_state_dict(constant, state_of("ddpm_iql"))


def test_leaf_of_unsupported_type_raises() -> None:
    with pytest.raises(InputError, match="a/b is a function"):
        interop.to_bytes({"a": {"b": make_learner}})
