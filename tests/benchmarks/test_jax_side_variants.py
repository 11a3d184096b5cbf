"""Every variant on JAX runs in a tiny size, and its module imports without JAX."""

# pyright: reportMissingImports=false
from __future__ import annotations

import importlib
import json
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks.case import Plan, is_external
from benchmarks.jax_side import variants
from benchmarks.workloads import NAMES, load

_MISSING = variants.missing_packages()
needs_jax = pytest.mark.skipif(_MISSING is not None, reason=_MISSING or "JAX is installed")
"""Skips with the reason if JAX is not installed."""

_TINY = {"batch": 8, "hidden": 8, "rows": 30, "blocks": 1, "T": 2, "N": 4, "image": 16}


def _settings(workload: str, **changes: Any) -> SimpleNamespace:
    """The workload's own settings made tiny, with the fields that it has."""
    made = importlib.import_module(f"benchmarks.workloads.{workload}").Settings()
    fields = {name: getattr(made, name) for name in made.__dataclass_fields__}
    small = {name: value for name, value in _TINY.items() if name in fields}
    assert set(changes) <= set(fields)
    return SimpleNamespace(**{**fields, **small, **changes})


def _two_calls(variant: Any) -> tuple[Any, Any]:
    with variant.scope():
        step = variant.make()
        first = step(0)
        variant.wait(first)
        second = step(1)
        variant.wait(second)
    return first, second


def test_imports_without_jax() -> None:
    """The module imports without JAX, and does not import torch."""
    code = (
        "import sys\n"
        "for name in ('jax', 'flax', 'optax'):\n"
        "    sys.modules[name] = None\n"
        "import benchmarks.jax_side.variants as v\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(variants, "NEEDED", ("numpy", "no_such_package"))
    assert variants.missing_packages() == (
        "The JAX side needs no_such_package: pip install jax flax optax."
    )


@needs_jax
@pytest.mark.parametrize(
    ("make", "workload", "changes"),
    [
        (variants.update, "update", {}),
        pytest.param(variants.scan, "scan", {"steps": 3}, marks=pytest.mark.slow),
        pytest.param(variants.seeds, "seeds", {"seeds": 2}, marks=pytest.mark.slow),
    ],
)
def test_training_variants_have_finite_losses(
    make: Any, workload: str, changes: dict[str, Any]
) -> None:
    first, second = _two_calls(make(_settings(workload, **changes)))
    shape = (changes["seeds"],) if "seeds" in changes else ()
    for info in (first, second):
        assert np.shape(info["actor_loss"]) == shape
        assert np.all(np.isfinite(info["critic_loss"]))
    # the second call continues from the new state, with other rows
    assert not np.array_equal(first["critic_loss"], second["critic_loss"])


@needs_jax
@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("iql", {}),
        pytest.param("redq", {"utd": 4}, marks=pytest.mark.slow),
        *(
            pytest.param(name, {}, marks=pytest.mark.slow)
            for name in ("idql", "idql-general", "bc", "sac", "td3", "droq", "drq", "pixel-bc")
        ),
    ],
)
def test_learner_variants_have_finite_losses(name: str, changes: dict[str, Any]) -> None:
    info, _ = _two_calls(variants.learner(_settings("learners", learner=name, **changes)))
    assert all(np.all(np.isfinite(value)) for value in info.values())


@needs_jax
def test_scanned_updates_equal_single_calls() -> None:
    settings = _settings("learners", learner="bc", inputs=3)
    single, scanned = variants.learner(settings), variants.learner_scanned(settings)
    assert (single.units, scanned.units) == (1, variants.SCANNED)
    with single.scope():
        step = single.make()
        losses = [np.asarray(step(i)["nll"]) for i in range(variants.SCANNED)]
    first, second = _two_calls(scanned)
    np.testing.assert_allclose(first["nll"], losses, rtol=1e-4)
    assert np.all(np.isfinite(second["nll"])) and not np.array_equal(first["nll"], second["nll"])


@pytest.mark.parametrize("workload", [name for name in NAMES if name != "compile"])
def test_every_variant_is_made_from_plain_data(workload: str) -> None:
    for case in load(workload).cases(Plan("full", jax=True)):
        external = [variant for variant in case.variants if is_external(variant.name)]
        assert external
        for variant in external:
            settings = json.loads(json.dumps(case.settings_dict()))
            made = variants.make_variant(variant.name, workload, settings, {"device": "cpu"})
            assert (made.name, made.units) == (variant.name, variant.units)


@needs_jax
@pytest.mark.slow
def test_pixel_variant_has_finite_losses() -> None:
    first, second = _two_calls(variants.pixels(_settings("pixels")))
    assert np.isfinite(first["critic_loss"]) and np.isfinite(second["critic_loss"])


@needs_jax
def test_packed_frames_are_successive() -> None:
    import jax

    from benchmarks.jax_side import pixels

    buffer = pixels.episode(9, 4, 2, seed=0)
    batch = pixels.packed(jax.random.PRNGKey(0), buffer, 5, 3)
    seen, frames = np.asarray(batch["observations"]["pixels"]), np.asarray(buffer["frames"])
    assert seen.shape == (5, 4, 4, 3, 4)
    for row, action in zip(seen, np.asarray(batch["actions"]), strict=True):
        now = int(np.argmax((np.asarray(buffer["actions"]) == action).all(axis=1)))
        # the action belongs to the observation's last frame; the next frame follows it
        np.testing.assert_array_equal(np.moveaxis(row, -1, 0), frames[now - 2 : now + 2])


@needs_jax
@pytest.mark.slow
def test_act_variants_return_actions_in_bounds() -> None:
    settings = _settings("act", num_envs=3)
    for make in (variants.act, variants.act_each, variants.act_vmapped):
        variant = make(settings)
        first, second = _two_calls(variant)
        assert first.shape == (3, settings.actions) and variant.units == 3
        assert np.abs(first).max() <= 1 and not np.array_equal(first, second)


@needs_jax
@pytest.mark.parametrize("draw", ["normal", "dropout", "split", "randint"])
@pytest.mark.parametrize("partitionable", [False, True])
def test_draws_equal_the_ports(draw: str, partitionable: bool) -> None:
    from idql_func import random

    settings = _settings("random", draw=draw, count=64, partitionable=partitionable, inputs=2)
    _, second = _two_calls(variants.random(settings))
    with random.threefry_partitionable(partitionable):
        key = random.split(random.PRNGKey(0), 2)[1]
        expected = {
            "normal": lambda: random.normal(key, (64,)),
            "dropout": lambda: random.bernoulli(key, 0.9, (64,)),
            "split": lambda: random.split(key, 64),
            "randint": lambda: random.randint(key, (64,), 0, 100_000),
        }[draw]()
    if draw == "normal":
        np.testing.assert_allclose(second, expected.numpy(), rtol=5e-7)
    else:
        assert np.array_equal(second, expected.numpy())


@needs_jax
def test_ensemble_returns_loss_and_gradient() -> None:
    settings = _settings("ensemble", members=3)
    (loss, grads), _ = _two_calls(variants.ensemble(settings))
    assert np.isfinite(loss)
    kernel = grads["params"]["VmapStateActionValue_0"]["MLP_0"]["Dense_1"]["kernel"]
    assert kernel.shape == (3, 8, 8)


@needs_jax
@pytest.mark.slow
def test_donated_state_is_freed() -> None:
    """The number of live arrays does not grow from call to call."""
    import jax

    variant = variants.update(_settings("update"))
    with variant.scope():
        step = variant.make()
        variant.wait(step(0))
        before = len(jax.live_arrays())
        for i in range(3):
            result = step(i)
        variant.wait(result)
        assert len(jax.live_arrays()) <= before + len(result)
