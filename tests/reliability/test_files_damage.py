"""Flipped bits in every byte class of every file kind: found, or without effect; none silent."""

from __future__ import annotations

import dataclasses
import io
import json
import random
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from killed_process import offline, write_data
from rich.console import Console
from trials import AtMost, Tally, spread

from idql_func import disable_jit, interop
from idql_func.agents import IQLLearner
from idql_func.data import MinariDataset, ReplayBuffer
from idql_func.data.hdf5 import read_d4rl_hdf5, write_d4rl_hdf5
from idql_func.data.minari_writer import write_minari_dataset
from idql_func.errors import InputError
from idql_func.kernels import library_cache
from idql_func.training.configs.learners import BCConfig
from idql_func.training.configs.offline import EvaluationConfig
from idql_func.training.configs.settings import flat_settings
from idql_func.training.offline import train_offline
from idql_func.training.runs.checkpoint import load_checkpoint
from idql_func.training.runs.console import Reporter
from idql_func.training.runs.directory import RunDirectory
from idql_func.training.runs.opening import open_run
from idql_func.transforms import tree_flatten

pytestmark = [pytest.mark.reliability, pytest.mark.usefixtures("blank_pictures")]
BOX = gym.spaces.Box(-1, 1, (2,))
BOUNDED = 200
"""Flips of each kind of file in the long form, if not all are made."""
Kind = tuple[Path, Callable[[Path], Any]]


def _leaves(tree: Any) -> list[bytes]:
    """The bytes of all arrays, and the text of everything else, in a comparable form."""
    leaves, spec = tree_flatten(tree)
    found = [str(spec).encode()]
    for leaf in leaves:
        array = leaf.numpy() if isinstance(leaf, torch.Tensor) else leaf
        is_array = isinstance(array, np.ndarray)
        found.append(
            str((array.dtype, array.shape)).encode() + array.tobytes() if is_array
            else repr(array).encode()
        )  # fmt: skip
    return found


def _hdf5(folder: Path) -> Kind:
    draws = np.random.default_rng(0)
    arrays = {"observations": draws.random((3000, 4)), "rewards": np.ones(3000, np.float32)}
    path = write_d4rl_hdf5(folder / "a.hdf5", {**arrays, "infos/b": np.arange(9)}, {"env": "x"})
    return path, lambda p: _leaves(list(read_d4rl_hdf5(p)))


def _buffer(folder: Path) -> Kind:
    buffer = ReplayBuffer(BOX, BOX, capacity=9, seed=3)
    for step in range(5):
        buffer.insert({
            "observations": np.full(2, step), "next_observations": np.full(2, step + 1),
            "actions": np.zeros(2), "rewards": step, "masks": 1.0, "dones": False,
        })  # fmt: skip

    def read(path: Path) -> list[bytes]:
        loaded = ReplayBuffer.load(path)
        return _leaves([loaded.dataset_dict, loaded._description()])

    return buffer.save(folder / "b.safetensors"), read


def _policy(folder: Path) -> Kind:
    learner = IQLLearner.create(0, BOX, BOX, hidden_dims=(4,))

    def read(path: Path) -> list[bytes]:
        policy = interop.load_policy(path)
        return _leaves([dict(policy.state_dict()), policy.config])

    return interop.save_policy(interop.policy_module(learner), folder / "p.safetensors"), read


def _minari(folder: Path, file: str) -> Kind:
    episode = {
        "observations": np.arange(8.0).reshape(4, 2) / 9, "actions": np.zeros((3, 2)),
        "rewards": np.arange(3.0), "terminations": np.zeros(3, bool),
        "truncations": np.array([False, False, True]),
    }  # fmt: skip
    path = write_minari_dataset(
        folder / "toy-v0", [episode], observation_space=BOX, action_space=BOX,
        attributes={"ref_min_score": 0.0, "ref_max_score": 9.0},
    )  # fmt: skip

    def read(_: Path) -> list[bytes]:
        loaded = MinariDataset(path)
        return _leaves([loaded.dataset_dict, loaded.attributes])

    return path / "data" / file, read


def _run(folder: Path) -> Path:
    """A run of four updates that waits for its last evaluation."""
    data = folder / "data.hdf5"
    if not data.exists():
        write_data(data)
        learner = BCConfig(hidden_dims=(4,))
        config = dataclasses.replace(
            offline(folder / "runs"),
            learner=learner,
            max_steps=4,
            evaluation=EvaluationConfig(env="none"),
        )
        with disable_jit():
            train_offline(config, reporter=Reporter(quiet=True)).run.summary.unlink()
    return folder / "runs" / "run"


def _checkpoint(folder: Path, file: str) -> Kind:
    path = _run(folder) / "checkpoints" / "step_000000004"

    def read(_: Path) -> list[bytes]:
        with disable_jit():
            learner, metadata = load_checkpoint(path)
        return _leaves([learner, vars(metadata)])

    return path / file, read


def _continued(folder: Path, file: str) -> Kind:
    """Settings and metrics as ``--resume`` takes them; what it says counts as found."""
    path = _run(folder)

    def read(_: Path) -> list[bytes]:
        said = io.StringIO()
        config: Any = RunDirectory(path).read_config()
        reporter = Reporter(Console(file=said, width=1000))
        with open_run(
            [config], last=max(config.max_steps, 4), resume=path, reporter=reporter
        ) as run:
            metrics = run._metrics_of(run.members[0], 4)
            metrics.close()
        if said.getvalue():
            raise InputError(f"{path} {said.getvalue().strip()}".replace("\n", " "))
        settings = flat_settings(config)
        for name in ("name", "runs_dir", "preset"):  # the resumed run does not use them
            del settings[name]
        return _leaves([settings, metrics.records])

    return path / file, read


def _library(folder: Path) -> Kind:
    source = folder / "number.c"
    source.write_text("int number(void) { return 41; }\n")
    built = folder / "number.so"
    if not built.exists():
        library_cache._build(["cc", "-O2"], source, built)

    def read(path: Path) -> list[bytes]:
        if not library_cache._is_whole(path):  # it is built again
            raise InputError(f"{path} is damaged")
        return [path.read_bytes().rpartition(library_cache._MARK)[0]]

    return built, read


KINDS: dict[str, Callable[[Path], Kind]] = {
    "hdf5": _hdf5,
    "buffer": _buffer,
    "policy": _policy,
    "minari": lambda folder: _minari(folder, "main_data.hdf5"),
    "metadata": lambda folder: _minari(folder, "metadata.json"),
    "checkpoint": lambda folder: _checkpoint(folder, "checkpoint.json"),
    "tensors": lambda folder: _checkpoint(folder, "learner.safetensors"),
    "settings": lambda folder: _continued(folder, "config.json"),
    "metrics": lambda folder: _continued(folder, "metrics.jsonl"),
    "library": _library,
}


def _outcomes(kind: Kind, places: list[int], draws: random.Random) -> dict[str, int]:
    """How many flips are found and how many have no effect; a silent one fails."""
    path, read = kind
    whole, right = path.read_bytes(), read(path)
    outcomes = {"found": 0, "no effect": 0}
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << draws.randrange(8)
        path.write_bytes(damaged)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                same = read(path) == right
        except (InputError, FileNotFoundError) as error:
            assert "\n" not in str(error)
            names = (path.parent.name, path.parent.parent.name, "device is", "threads is")
            assert any(name in str(error) for name in names)  # the file, or the setting
            outcomes["found"] += 1
        else:
            assert same, f"the flip in byte {place} of {path} is silent"
            outcomes["no effect"] += 1
    path.write_bytes(whole)
    assert read(path) == right
    return outcomes


def _places(size: int, count: int, draws: random.Random) -> list[int]:
    """Places in the header, at the end, and everywhere."""
    ends = [*range(min(16, size)), *range(max(0, size - 16), size)]
    return [*ends[:: max(1, 32 // count)], *(draws.randrange(size) for _ in range(count))]


@pytest.mark.parametrize("name", KINDS)
def test_flips_are_found_or_without_effect(name: str, tmp_path: Path) -> None:
    kind, draws = KINDS[name](tmp_path), random.Random(1)
    outcomes = _outcomes(kind, _places(kind[0].stat().st_size, 8, draws), draws)
    assert outcomes["found"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_many_flips_are_found_or_without_effect(
    name: str, tmp_path: Path, at_most: AtMost, tally: Tally
) -> None:
    kind, draws = KINDS[name](tmp_path), random.Random(2)
    places = spread(_places(kind[0].stat().st_size, 220, draws), at_most(BOUNDED))
    outcomes = _outcomes(kind, places, draws)
    tally("flips", name, {"trials": len(places), **outcomes})
    assert sum(outcomes.values()) == len(places) and outcomes["found"] > 0.4 * len(places)


def test_files_without_a_digest_are_read_with_a_sentence(tmp_path: Path) -> None:
    path, read = _policy(tmp_path)
    right = read(path)
    whole = path.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + length])
    for name in ("digest", "sha256"):
        del header["__metadata__"][name]
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + whole[8 + length :])
    with pytest.warns(UserWarning, match="without a digest of its header"):
        assert read(path) == right
