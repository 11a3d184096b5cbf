"""Checkpoints on disk: Flax's files, and Orbax's folders where Orbax is installed."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from test_interop import REFERENCE, make_learner, state_of

from idql_func import interop, tree_leaves
from idql_func.types import InputError

TREE = {"w": torch.arange(3.0), "n": torch.tensor(2, dtype=torch.int32)}
ZEROS = {"w": torch.zeros(3), "n": torch.tensor(0, dtype=torch.int32)}

with_orbax = pytest.mark.skipif(
    importlib.util.find_spec("orbax") is None, reason="orbax-checkpoint is not installed"
)


def same(a: Any, b: Any) -> bool:
    pairs = zip(tree_leaves(a), tree_leaves(b), strict=True)
    return all(torch.equal(torch.as_tensor(x), torch.as_tensor(y)) for x, y in pairs)


def test_latest_step_and_file_are_found(tmp_path: Path) -> None:
    for step in (2, 10, 9):
        interop.save_checkpoint(tmp_path, {**TREE, "n": torch.tensor(step).int()}, step)
    (tmp_path / "checkpoint_11.part").write_bytes(b"half")
    assert interop.restore_checkpoint(tmp_path, ZEROS)["n"] == 10
    assert interop.restore_checkpoint(tmp_path, ZEROS, step=2)["n"] == 2
    assert interop.restore_checkpoint(tmp_path / "checkpoint_9", ZEROS)["n"] == 9
    assert interop.latest_checkpoint(tmp_path, prefix="other_") is None


def test_flax_file_is_found_by_its_prefix(tmp_path: Path) -> None:
    (tmp_path / "best_7").write_bytes((REFERENCE / "td3.msgpack").read_bytes())
    learner = interop.restore_checkpoint(tmp_path, make_learner("td3"), prefix="best_")
    assert learner.critic.step == 2


def test_checkpoint_is_not_replaced_without_overwrite(tmp_path: Path) -> None:
    interop.save_checkpoint(tmp_path, ZEROS, 1)
    with pytest.raises(InputError, match="checkpoint_1 already exists; use another step"):
        interop.save_checkpoint(tmp_path, TREE, 1)
    interop.save_checkpoint(tmp_path, TREE, 1, overwrite=True)
    assert same(interop.restore_checkpoint(tmp_path, ZEROS), TREE)


def test_failed_write_leaves_no_partial_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interop.save_checkpoint(tmp_path, ZEROS, 1)

    def fail(descriptor: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        interop.save_checkpoint(tmp_path, TREE, 1, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint_1"]
    assert same(interop.restore_checkpoint(tmp_path, TREE), ZEROS)


def test_missing_checkpoint_raises(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at .*checkpoint_<number>"):
        interop.restore_checkpoint(tmp_path, TREE)
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at .*checkpoint_3"):
        interop.restore_checkpoint(tmp_path, TREE, step=3)


# --- Orbax ----------------------------------------------------------------------------------------


def as_orbax_tree(state: Any) -> Any:
    """A state dict in Orbax's form: tuples as lists, empty nodes as None."""
    if not isinstance(state, dict):
        return state
    if set(state) and set(state) == {str(i) for i in range(len(state))}:
        return [as_orbax_tree(value) for value in state.values()]
    return {k: as_orbax_tree(v) for k, v in state.items()} or None


def test_orbax_0_2_folder_is_read_without_orbax(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint_2"
    folder.mkdir()
    tree = as_orbax_tree(state_of("ddpm_iql"))
    assert tree["score_model"]["opt_state"][1] is None
    (folder / "checkpoint").write_bytes(interop.msgpack_serialize(tree))
    learner = interop.restore_checkpoint(tmp_path, make_learner("ddpm_iql"))
    assert same(learner, interop.from_state_dict(make_learner("ddpm_iql"), state_of("ddpm_iql")))
    assert same(interop.restore_checkpoint(folder, make_learner("ddpm_iql")), learner)


def orbax_folders(tmp_path: Path) -> list[Path]:
    database, step, split = (tmp_path / name for name in ("database", "step", "split"))
    for folder in (database, step / "default"):
        folder.mkdir(parents=True)
        (folder / "_METADATA").write_text("{}")
    split.mkdir()
    placeholder = interop.msgpack_serialize({"w": ["PLACEHOLDER://w"]})
    (split / "checkpoint").write_bytes(placeholder)
    return [database, step, split]


def test_missing_orbax_raises_with_the_package_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "orbax.checkpoint", None)
    sentence = (
        r"install orbax-checkpoint, which needs JAX \(.*\); checkpoints written by flax\.seria"
    )
    for folder in orbax_folders(tmp_path):
        with pytest.raises(InputError, match=sentence) as caught:
            interop.restore_checkpoint(folder, TREE)
        assert str(folder) in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(InputError, match=sentence):
        interop.save_orbax(tmp_path / "new", TREE)
    assert not (tmp_path / "new").exists()


@with_orbax
@pytest.mark.parametrize("name", ["ddpm_iql", "bc", "sac"])
def test_learner_round_trips_through_orbax(name: str, tmp_path: Path) -> None:
    learner = interop.from_state_dict(make_learner(name), state_of(name))
    path = interop.save_orbax(tmp_path / "checkpoint_5", learner)
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint_5"]
    assert same(interop.restore_checkpoint(tmp_path, make_learner(name)), learner)
    assert same(interop.restore_orbax(path, make_learner(name)), learner)
    with pytest.raises(InputError, match="already exists"):
        interop.save_orbax(path, learner)
    interop.save_orbax(path, make_learner(name), overwrite=True)
    assert same(interop.restore_orbax(path, learner), make_learner(name))


@with_orbax
def test_orbax_keeps_dtypes_and_mismatches_raise(tmp_path: Path) -> None:
    double = {"w": torch.arange(3.0, dtype=torch.float64) / 3}
    path = interop.save_orbax(tmp_path / "double", double)
    assert same(interop.restore_orbax(path, {"w": torch.zeros(3, dtype=torch.float64)}), double)
    with pytest.raises(InputError, match="w is float64, expected float32"):
        interop.restore_orbax(path, {"w": torch.zeros(3)})
