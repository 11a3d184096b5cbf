"""The port and the original, compared while both run. ``-m live`` needs two variables:

``IDQL_UPSTREAM`` (a checkout of the original) and ``IDQL_REFERENCE_PYTHON`` (the Python of the
JAX environment).
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from parity.__main__ import main
from parity.compare import Result, attempt
from parity.curve import curve_table, write_curve
from parity.live import live, live_cases, live_learners, progress_line
from parity.port.backend import TorchBackend
from parity.random_settings import LEARNERS as LEARNERS_DRAWN
from parity.random_settings import random_case
from parity.report import CURVES
from parity.tables import as_json, failures

SETTINGS_OF_12 = {
    "learner": "bc",
    "seed": 2395496496,
    "batch_seed": 12,
    "method": "update",
    "observations": 3,
    "together": True,
    "keep": 2**62,
    "x64": False,
    "partitionable": False,
    "obs_dim": 9,
    "act_dim": 3,
    "batch": 8,
    "steps": 4,
    "kwargs": {
        "actor_lr": 0.000301,
        "hidden_dims": [32],
        "use_layer_norm": False,
        "dropout_rate": None,
        "weight_decay": 0.011769,
        "entropy_bonus": 0.176138,
    },
}


def _environment() -> tuple[Path, Path]:
    names = ("IDQL_UPSTREAM", "IDQL_REFERENCE_PYTHON")
    missing = [name for name in names if name not in os.environ]
    if missing:
        pytest.fail(f"-m live needs environment variables, but {' and '.join(missing)} not set")
    upstream, python = (Path(os.environ[name]) for name in names)
    return upstream, python


LEARNERS = sorted({name.partition("-")[0] for name in live_learners("small")})


@pytest.mark.live
@pytest.mark.parametrize("learner", LEARNERS)
def test_both_sides_agree_from_the_same_seed(learner: str) -> None:
    cases = live_cases("small", 25, 100, 5, learner)
    results = live(cases, *_environment())
    assert all(r.passed for r in results), "\n".join(failures(results))


def test_live_cases_cover_every_learner_and_precision() -> None:
    upstream = {"simple", "general", "bc", "iql", "sac", "redq", "droq", "td3", "drq", "pixel_bc"}
    assert set(LEARNERS) == upstream
    cases = live_cases("small", 25, 1000, 5)
    assert len({case.name for case in cases}) == len(cases)
    for name, settings in live_learners("small").items():
        widths = {case.settings["x64"] for case in cases if case.group == f"live-{name}"}
        # of the learners on pixels, only those with the residual encoder run in float64 too
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


def test_default_networks_equal_the_original() -> None:
    for name, settings in live_learners("default").items():
        assert not {"hidden_dims", "critic_hidden_dims", "cnn_features"} & set(settings["kwargs"])
        assert set(settings) <= set(live_learners("small")[name])


def _python(tmp_path: Path, text: str) -> Path:
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{text}\n")
    python.chmod(0o755)
    return python


def test_missing_python_raises(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no Python of the JAX environment"):
        live([], tmp_path, tmp_path / "python")


def test_error_of_the_other_process_is_reported(tmp_path: Path) -> None:
    python = _python(tmp_path, "echo first >&2\necho 'no such module: jax' >&2\nexit 3")
    with pytest.raises(RuntimeError, match="ended with 3: no such module: jax"):
        live([random_case(2)], tmp_path, python)


@pytest.fixture
def fake_original(tmp_path: Path) -> Path:
    """A Python that runs the port in place of the original and logs each case that it runs."""
    code = (
        "import sys; from pathlib import Path; import parity.original.process as process; "
        "from parity.port.backend import TorchBackend; "
        "from types import SimpleNamespace; "
        "fake = SimpleNamespace(checked_backend=lambda upstream: TorchBackend()); "
        "process.original_of = lambda upstream: fake; "
        "from parity.__main__ import main; sys.exit(main(sys.argv[1:]))"
    )
    log = tmp_path / "ran"
    script = f'shift 2\nexec "{sys.executable}" -W ignore -c "{code}" "$@" 2>>"{log}"'
    return _python(tmp_path, script)


def test_live_comparison_reuses_saved_tensors(fake_original: Path, tmp_path: Path) -> None:
    cases, kept = [random_case(2), random_case(3)], tmp_path / "kept"
    seen: list[Result] = []
    for _ in range(2):
        results = live(cases, tmp_path, fake_original, folder=kept, each=seen.append)
        assert [r.passed for r in results] == [True, True]
    assert [r.case for r in seen] == cases * 2
    assert progress_line(seen[0]).startswith(
        "ok random-bc/seed-2: 28 tensors, the nearest to its bound "
    )
    assert len(list(kept.iterdir())) == 2
    ran = (tmp_path / "ran").read_text()
    assert ran.count("random-bc/seed-2: ") == ran.count("random-iql/seed-3: ") == 1


def test_settings_that_the_original_rejects_fail(fake_original: Path, tmp_path: Path) -> None:
    drawn = random_case(2)
    kwargs = {**drawn.settings["kwargs"], "dropout_rate": 2.0}
    case = dataclasses.replace(drawn, settings={**drawn.settings, "kwargs": kwargs})
    (result,) = live([case], tmp_path, fake_original)
    assert not result.passed
    assert "the original rejects these settings: " in progress_line(result)
    assert "dropout_rate must lie in [0, 1)" in progress_line(result)


# --- settings drawn at random ---------------------------------------------------------------


def test_settings_of_a_seed_are_pinned() -> None:
    case = random_case(12)
    assert case.id == "random-bc/seed-12"
    assert json.loads(json.dumps(case.settings)) == case.settings
    assert case.settings == SETTINGS_OF_12
    assert random_case(12) == case
    with pytest.raises(ValueError, match="seeds of 0 and more, got -1"):
        random_case(-1)


def test_random_settings_cover_learners_precisions_and_sizes() -> None:
    groups = [random_case(seed).group for seed in range(20)]
    assert sorted(groups[:10]) == sorted(f"random-{name}" for name in LEARNERS_DRAWN)
    assert groups[:10] == groups[10:]
    many = [random_case(seed).settings for seed in range(100)]
    assert {s["learner"] for s in many} == {
        c.settings["learner"] for c in live_cases("small", 1, 1, 1)
    }
    for name in ("x64", "partitionable"):
        assert 20 < sum(s[name] for s in many) < 60
    assert {s["batch"] for s in many} > {1, 64}
    assert {s["act_dim"] for s in many} == set(range(1, 9))
    resnets = [s for s in many if s["kwargs"].get("encoder") == "resnet"]
    assert 1 <= len(resnets) <= 3
    assert all(s["x64"] for s in resnets)


@pytest.mark.parametrize("seed", range(19))  # seed 19 has the residual encoder, which is slow
def test_random_settings_are_valid_for_the_port(seed: int) -> None:
    case = random_case(seed)
    once = dataclasses.replace(case, settings={**case.settings, "steps": 1, "observations": 1})
    run = attempt(TorchBackend(), once)
    assert not isinstance(run, str), run
    assert all(np.isfinite(array).all() for array in run.values())
    assert {name.partition("/")[0] for name in run} <= set(case.kinds)


def test_seeds_option_excludes_learner(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    common = ["live", "--upstream", str(tmp_path), "--reference-python", str(tmp_path / "python")]
    assert main([*common, "--seeds", "1", "--learner", "td3"]) == 2
    assert "--seeds draws all settings: omit --learner." in capsys.readouterr().err
    assert main([*common, "--seeds", "0"]) == 2
    assert "--seeds must be at least 1, got 0." in capsys.readouterr().err


@pytest.mark.live
@pytest.mark.parametrize("seed", [2, 7, 13])
def test_both_sides_agree_with_random_settings(seed: int) -> None:
    results = live([random_case(seed)], *_environment())
    assert all(r.passed for r in results), "\n".join(failures(results))


# --- the error along a long run -------------------------------------------------------------


def test_curve_has_every_parameter_at_every_point(fake_original: Path, tmp_path: Path) -> None:
    (long,) = live_cases("small", 1, 5, 1, "bc", "bc-double", curve=True)
    assert long.settings["curve"] == [1, 2, 5]
    results = live([long], tmp_path, fake_original)
    (result,) = results
    points = {f.tensor for f in result.findings if f.tensor.startswith("curve/")}
    leaves = {name.partition("/")[2].partition("/")[2] for name in points}
    assert points == {f"curve/{step}/{leaf}" for step in (1, 2, 5) for leaf in leaves}
    assert "actor/MLP_0/Dense_1/kernel" in leaves
    assert result.passed
    path, figures = tmp_path / "curve.json", as_json(results, {"upstream": {}, "versions": {}})
    for _ in range(2):  # the figures of a case replace older ones
        write_curve(path, results, figures, "python -m parity live")
        (entry,) = json.loads(path.read_text())["results"]
    assert entry["case"] == long.id
    names = [tensor["tensor"] for tensor in entry["tensors"]]
    assert names[:3] == ["curve/1/actor", "curve/2/actor", "curve/5/actor"]
    lines = curve_table(results)
    assert [line.split()[0] for line in lines[-3:]] == ["1", "2", "5"]
    assert max(map(len, lines)) <= 80
    path.write_text("[]")
    with pytest.raises(ValueError, match="holds no curves"):
        write_curve(path, results, figures, "python -m parity live")


def test_errors_of_ten_thousand_updates_are_within_bounds() -> None:
    entries = json.loads(CURVES.read_text())["results"]
    assert entries
    for entry in entries:
        errors = [t["error"] for t in entry["tensors"] if t["tensor"].startswith("curve/10000/")]
        assert len(errors) == 5  # the networks of IDQL
        assert entry["settings"]["kwargs"]["actor_dropout_rate"] == 0.1
        assert max(t["error"] for t in entry["tensors"]) <= 1e-8
