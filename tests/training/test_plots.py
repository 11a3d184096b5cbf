"""The learning curve shows the numbers that were logged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from idql_func.training.runs.plots import frames_figure, learning_curve, save_figure

pytestmark = pytest.mark.usefixtures("drawn")

RECORDS = [
    {"updates": 1, "train/actor_loss": 3.0, "val/actor_loss": 4.0, "train/critic_loss": None},
    {"updates": 101, "train/actor_loss": 2.0, "val/actor_loss": 3.0},
    {"updates": 101, "eval/N=1/return": 10.0, "eval/N=1/return_std_error": 1.0},
    {"updates": 200, "eval/N=1/return": 20.0, "eval/N=64/return": 80.0},
]


def test_curve_shows_the_records() -> None:
    figure = learning_curve(RECORDS, behaviour_return=25.0, title="a run")
    actor, critic, _, returns = figure.axes
    assert [line.get_label() for line in actor.get_lines()] == [
        "held out (dropout off)",
        "training",
    ]
    np.testing.assert_array_equal(actor.get_lines()[1].get_xydata(), [[1, 3], [101, 2]])
    assert not critic.get_lines()
    labels = returns.get_legend_handles_labels()[1]
    assert labels == ["behaviour in the data: 25.0", "N = 1", "N = 64"]
    n1 = returns.get_lines()[0]
    np.testing.assert_array_equal(n1.get_xydata(), [[101, 10], [200, 20]])


def test_learner_without_n_has_one_return_line_and_its_losses() -> None:
    records = [
        {"updates": 1, "train/nll": 3.0, "train/entropy": 0.5, "val/nll": 4.0},
        {"updates": 2, "eval/return": 10.0, "eval/return_std_error": 1.0},
    ]
    likelihood, entropy, returns = learning_curve(records).axes
    assert "likelihood" in likelihood.get_title() and "Entropy" in entropy.get_title()
    assert len(likelihood.get_lines()) == 2 and len(entropy.get_lines()) == 1
    assert returns.get_legend_handles_labels()[1] == ["policy"]
    named = learning_curve(RECORDS, labels={"actor_loss": "Noise"}).axes[0]
    assert named.get_title() == "Noise"


def test_run_without_records_writes_an_image(tmp_path: Path) -> None:
    path = save_figure(learning_curve([]), tmp_path / "curve.png")
    assert imread(path).shape[2] == 4
    assert list(tmp_path.iterdir()) == [path]


def test_outlier_makes_the_axis_logarithmic() -> None:
    records = [{"updates": i, "train/critic_loss": 1.0 if i else 1e6} for i in range(10)]
    assert learning_curve(records).axes[1].get_yscale() == "log"


def test_curve_of_an_online_run_marks_its_start_and_episodes() -> None:
    records = [
        {"step": 10, "updates": 10, "eval/N=2/return": 1.0, "train/q": 0.0},
        {"step": 14, "updates": 11, "episode/return": 4.0},
        {"step": 20, "updates": 12, "eval/N=2/return": 3.0, "episode/return": 6.0},
    ]
    figure = learning_curve(records, x="step", solved_return=2.5, handover=10)
    returns = figure.axes[-1]
    lines = {str(line.get_label()): line for line in returns.get_lines()}
    assert np.asarray(lines["episodes of the training"].get_ydata()).tolist() == [4.0, 6.0]
    assert np.asarray(lines["counts as solved: 2.5"].get_ydata()).tolist() == [2.5, 2.5]
    for axes in figure.axes:
        marks = [line for line in axes.get_lines() if line.get_label() == "online from here"]
        assert [np.asarray(mark.get_xdata()).tolist() for mark in marks] == [[10, 10]]
        assert axes.get_xlim() == pytest.approx((0, 20.4))


def test_frames_are_shown_oldest_first() -> None:
    stacks = np.zeros((1, 4, 4, 3, 2), np.uint8)
    stacks[..., 1] = 200
    figure = frames_figure(stacks)
    shown = [np.asarray(axes.get_images()[0].get_array()).max() for axes in figure.axes]
    assert shown == [0, 200]
