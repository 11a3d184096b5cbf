"""The port beside the original, live. Run with ``-m live`` and two variables set:

``IDQL_UPSTREAM`` (a checkout of the original) and ``IDQL_REFERENCE_PYTHON`` (the Python of the
JAX environment).
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from parity.live import live, live_cases, live_learners, run_upstream
from parity.tables import failures


def _environment() -> tuple[Path, Path]:
    names = ("IDQL_UPSTREAM", "IDQL_REFERENCE_PYTHON")
    missing = [name for name in names if name not in os.environ]
    if missing:
        pytest.fail(f"asked for by -m live, but {' and '.join(missing)} not set")
    upstream, python = (Path(os.environ[name]) for name in names)
    return upstream, python


LEARNERS = sorted({name.partition("-")[0] for name in live_learners("small")})


@pytest.mark.live
@pytest.mark.parametrize("learner", LEARNERS)
def test_both_sides_agree_from_the_same_seed(learner: str) -> None:
    cases = live_cases("small", 25, 100, 5, learner)
    results = live(cases, *_environment())
    assert all(r.passed for r in results), "\n".join(failures(results))


def test_every_learner_runs_live_and_over_states_in_double_precision_too() -> None:
    upstream = {"simple", "general", "bc", "iql", "sac", "redq", "droq", "td3", "drq", "pixel_bc"}
    assert set(LEARNERS) == upstream
    cases = live_cases("small", 25, 1000, 5)
    assert len({case.name for case in cases}) == len(cases)
    for name, settings in live_learners("small").items():
        widths = {case.settings["x64"] for case in cases if case.group == f"live-{name}"}
        # of learners over pixels those with the residual encoder run wide too
        narrow = "space" in settings and not settings.get("act_first")
        assert widths == ({False} if narrow else {False, True})


def test_cases_are_chosen_by_learner_and_by_name() -> None:
    names = {case.name for case in live_cases("small", 2, 3, 1, "td3")}
    assert names == {
        "td3-float32-2-updates",
        "td3-double-3-updates",
        "td3-dropout-float32-2-updates",
        "td3-dropout-double-3-updates",
    }
    (only,) = live_cases("small", 2, 3, 1, "td3", "td3-dropout-double")
    assert only.name == "td3-dropout-double-3-updates"
    with pytest.raises(ValueError, match=r"no run of learner 'ppo' .* the learners are simple, "):
        live_cases("small", 2, 3, 1, "ppo")


def test_default_networks_are_the_originals_own() -> None:
    for name, settings in live_learners("default").items():
        assert not {"hidden_dims", "critic_hidden_dims", "cnn_features"} & set(settings["kwargs"])
        assert set(settings) <= set(live_learners("small")[name])


def test_a_python_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no Python of the JAX environment"):
        run_upstream([], tmp_path, tmp_path / "python")


def test_a_side_that_fails_says_why(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho first >&2\necho 'no such module: jax' >&2\nexit 3\n")
    python.chmod(0o755)
    with pytest.raises(RuntimeError, match="ended with 3: no such module: jax"):
        run_upstream([], tmp_path, python)
