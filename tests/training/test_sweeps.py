"""Sweeps: every combination occurs once, with the given seeds; arguments are not changed."""

from __future__ import annotations

import copy
import dataclasses
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idql_func.training.configs.sweeps import (
    LAUNCHERS,
    Axis,
    Sweep,
    cells_of,
    means_over_seeds,
    parse_axis,
)
from idql_func.types import InputError

VALUES = st.lists(st.sampled_from("abcdefg"), min_size=1, max_size=4, unique=True).map(tuple)


@given(first=VALUES, second=VALUES, seeds=st.integers(1, 3), start=st.integers(0, 5))
def test_every_cell_occurs_once_with_every_seed(
    first: tuple[str, ...], second: tuple[str, ...], seeds: int, start: int
) -> None:
    """Upstream overwrites its seeds at random (L6) and empties its dictionary (L7)."""
    sweeps = [Sweep("train", "bc", (Axis("x.one", first), Axis("x.two", second)), seeds)]
    before = copy.deepcopy(sweeps)
    cells = cells_of(sweeps, start)
    assert sweeps == before and cells == cells_of(sweeps, start)
    wanted = itertools.product(first, second, range(start, start + seeds))
    assert [(*(v for _, v in cell.settings), cell.seed) for cell in cells] == list(wanted)
    assert len({cell.name for cell in cells}) == len(cells)


def test_line_of_a_cell_is_a_shell_command() -> None:
    axes = (parse_axis("evaluation.N=1 64,256"), parse_axis("--dataset.source=a*.hdf5"))
    cells = cells_of([Sweep("train", "antmaze", axes)])
    assert [cell.line for cell in cells] == [
        "idql train antmaze --evaluation.N 1 64 --dataset.source 'a*.hdf5' --seed 0 "
        "--name antmaze-N=1+64-seed0",
        "idql train antmaze --evaluation.N 256 --dataset.source 'a*.hdf5' --seed 0 "
        "--name antmaze-N=256-seed0",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learner.tau", "must be written like learner.critic-hyperparam=0.7,0.9"),
        ("=1,2", "must be written like"),
        ("learner.tau=", "must be written like"),
        ("learner.tau=1,,2", "must be written like"),
        ("learner.tau=1,1", "a value twice"),
        ("seed=1,2", "which the sweep sets itself; use --seeds"),
    ],
)
def test_malformed_grids_raise(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_axis(text)


def test_sweeps_with_equal_runs_raise() -> None:
    axis = Axis("learner.tau", ("1", "2"))
    with pytest.raises(InputError, match="seeds is 0, but must be at least 1"):
        cells_of([Sweep("train", "bc", seeds=0)])
    with pytest.raises(InputError, match="names an option twice"):
        cells_of([Sweep("train", "bc", (axis, Axis("learner.tau", ("3",))))])
    with pytest.raises(InputError, match="the same name"):
        cells_of([Sweep("train", "bc", (axis,)), Sweep("train", "bc", (axis,))])
    with pytest.raises(InputError, match="the same name"):
        cells_of([Sweep("train", "bc", (Axis("learner.tau", ("a/b", "a_b")),))])


def test_returns_are_averaged_over_finished_seeds() -> None:
    cells = cells_of([Sweep("train", "antmaze", (Axis("learner.tau", ("1", "2")),), seeds=3)])
    returns = {cell.name: {"1": 1.0, "64": 10.0 * cell.seed} for cell in cells[:4]}
    means = means_over_seeds(returns, {cell.name: cell.label for cell in cells})
    assert [dataclasses.astuple(row) for row in means] == [
        ("antmaze-tau=1", "1", 1.0, 0.0, 3),
        ("antmaze-tau=1", "64", 10.0, 10.0 / 3**0.5, 3),
        ("antmaze-tau=2", "1", 1.0, None, 1),
        ("antmaze-tau=2", "64", 0.0, None, 1),
    ]


def test_upstreams_launchers_have_the_names_of_their_files() -> None:
    counts = {name: len(cells_of(sweeps)) for name, sweeps in LAUNCHERS.items()}
    assert counts == {
        "train_ddpm_iql_offline": 150,
        "train_ddpm_iql_finetune": 60,
        "train_iql_oneparam": 270,
    }
