"""Names of environments from files import nothing; the user may allow it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from idql_func import cli, disable_jit
from idql_func.agents import BCLearner
from idql_func.data.hdf5 import write_d4rl_hdf5
from idql_func.envs import allow_env_imports
from idql_func.training.configs.offline import DatasetConfig, TrainConfig
from idql_func.training.evaluate import evaluate_checkpoint
from idql_func.training.runs.checkpoint import CheckpointMetadata, save_checkpoint
from idql_func.training.task import environment_factory, prepare_task
from idql_func.types import InputError

pytestmark = pytest.mark.reliability

NAME = "imported_by_a_name:ImportedPendulum-v0"
MODULE = """
import gymnasium as gym
gym.register("ImportedPendulum-v0", "gymnasium.envs.classic_control:PendulumEnv",
             max_episode_steps=3)
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module that was not imported yet; the fixture's value says whether it is by now."""
    (tmp_path / "imported_by_a_name.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    yield lambda: "imported_by_a_name" in sys.modules
    sys.modules.pop("imported_by_a_name", None)
    gym.registry.pop("ImportedPendulum-v0", None)


def checkpoint(folder: Path) -> Path:
    spaces = gym.spaces.Box(-1, 1, (3,)), gym.spaces.Box(-1, 1, (1,))
    settings: dict[str, Any] = {"hidden_dims": (8,)}
    learner = BCLearner.create(0, *spaces, **settings)
    about = CheckpointMetadata(1, 0, settings, *spaces, extra={"env": NAME})
    return save_checkpoint(folder, learner, about)


def dataset(folder: Path) -> Path:
    rng, n = np.random.default_rng(0), 40
    fields = {
        name: rng.uniform(-0.9, 0.9, (n, size)).astype(np.float32)
        for name, size in (("observations", 3), ("next_observations", 3), ("actions", 1))
    }
    fields |= {"rewards": np.ones(n, np.float32), "terminals": np.zeros(n, bool)}
    fields["timeouts"] = np.arange(n) % 10 == 9
    return write_d4rl_hdf5(folder / "data.hdf5", fields, {"env": NAME})


def refused(error: BaseException | str) -> bool:
    text = str(error)
    return "a name from a file must not run code" in text and "--allow-env-imports" in text


def test_a_checkpoint_imports_nothing(tmp_path: Path, module: Any) -> None:
    folder = checkpoint(tmp_path / "1")
    with pytest.raises(InputError) as error:
        evaluate_checkpoint(folder, episodes=1)
    assert refused(error.value) and not module()
    with pytest.raises(InputError):
        environment_factory(NAME, {"image_size": 8})
    assert not module()


def test_a_dataset_imports_nothing(tmp_path: Path, module: Any) -> None:
    config = TrainConfig(dataset=DatasetConfig(source=str(dataset(tmp_path))))
    with pytest.raises(InputError) as error:
        prepare_task(config)
    assert refused(error.value) and not module()
    with allow_env_imports([NAME]):
        assert prepare_task(config).env_name == NAME
    assert module()


@pytest.mark.parametrize("command", ["evaluate", "collect"])
def test_commands_refuse_a_stored_name(
    command: str, tmp_path: Path, module: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [command, str(checkpoint(tmp_path / "1"))]
    words += ["--output", str(tmp_path / "out.hdf5")] if command == "collect" else []
    assert cli.main(words) == 2
    assert refused(capsys.readouterr().err) and not module()


@pytest.mark.parametrize("words", [["--env", NAME], [f"--env={NAME}"], ["--allow-env-imports"]])
def test_a_typed_name_or_the_flag_imports(words: list[str], tmp_path: Path, module: Any) -> None:
    output = tmp_path / "evaluation.json"
    line = ["evaluate", str(checkpoint(tmp_path / "1")), "--episodes", "1", "--matmul", "strict"]
    with disable_jit():
        assert cli.main([*line, "--output", str(output), *words]) == 0
    assert module() and json.loads(output.read_text())["env"] == NAME


def test_the_permission_ends_with_the_command(tmp_path: Path, module: Any) -> None:
    cli.main(["evaluate", str(tmp_path / "nothing"), "--allow-env-imports"])
    with pytest.raises(InputError):
        environment_factory(NAME)
    assert not module()
