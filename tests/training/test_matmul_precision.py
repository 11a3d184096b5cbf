"""The route of matrix products: measured, chosen by error, and restored."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import pytest
import torch

from idql_func import disable_jit, grad, jit, random, vmap
from idql_func.networks import MLP, products
from idql_func.switches import native_matmul
from idql_func.training.offline import train_offline
from idql_func.training.runtime import matmul_precision as module
from idql_func.training.runtime.matmul_precision import matmul_precision, probe_matmul
from idql_func.tree import tree_leaves
from idql_func.types import InputError

SHAPES = ((40, 30), (30, 20), (40, 20))


def test_setting_is_restored_even_after_an_error() -> None:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        with pytest.raises(RuntimeError), matmul_precision("strict"):
            assert torch.get_float32_matmul_precision() == "highest"
            raise RuntimeError
        assert torch.get_float32_matmul_precision() == "high"
        with matmul_precision("auto") as choice:
            assert torch.get_float32_matmul_precision() == choice.setting.removesuffix("+own")
            assert native_matmul() == choice.setting.endswith("+own")
        assert not native_matmul()
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)


def test_chosen_route_has_the_error_of_float32() -> None:
    start = time.perf_counter()
    choice = probe_matmul()
    assert time.perf_counter() - start < 5.0  # tens of milliseconds on an idle machine
    assert 0 < choice.error_strict < 1e-6
    with matmul_precision("auto", setting=choice.setting):
        a, b = torch.randn(64, 512), torch.randn(512, 64)
        error = ((a @ b).double() - a.double() @ b.double()).norm() / (a @ b).norm()
    assert error < 1e-6


@pytest.mark.parametrize(
    ("errors", "seconds", "expected"),
    [
        ((2e-7, 3e-7), (2.0, 1.0), "medium"),
        ((2e-7, 2e-3), (2.0, 1.0), "highest"),  # "medium" computes in bfloat16
        ((2e-7, 2e-7), (1.0, 1.1), "medium"),  # 10 % may be load, which must not change the bits
        ((2e-7, 2e-7), (1.0, 2.0), "highest"),  # clearly slower
        ((2e-7, 2e-7, 3e-7), (2.0, 1.0, 1.1), "medium+own"),
        ((2e-7, 2e-7, 3e-7), (2.0, 1.0, 1.5), "medium"),
        ((2e-7, 2e-3, 3e-7), (2.0, 1.0, 2.1), "highest+own"),
        ((2e-7, 2e-7, 2e-6), (2.0, 1.0, 1.0), "medium"),
    ],
)
def test_choice_follows_error_and_speed(
    monkeypatch: pytest.MonkeyPatch,
    errors: tuple[float, ...],
    seconds: tuple[float, ...],
    expected: str,
) -> None:
    routes = ("highest", "medium", "+own")[: len(errors)]

    def measured(requested: tuple[str, ...]) -> tuple[dict[str, float], dict[str, float]]:
        assert requested == routes
        return dict(zip(routes, errors, strict=True)), dict(zip(routes, seconds, strict=True))

    monkeypatch.setattr(module, "_measure", measured)
    monkeypatch.setattr(module.own_matmul, "available", lambda: len(routes) == 3)
    choice = probe_matmul()
    assert choice.setting == expected
    fast = 2 if expected.endswith("+own") else 1
    assert choice.error_fast == pytest.approx(errors[fast])
    assert choice.speedup == pytest.approx(seconds[0] / seconds[fast])


@pytest.mark.parametrize("slow", ["highest", "medium"])
def test_error_and_time_of_each_route_are_measured(
    monkeypatch: pytest.MonkeyPatch, slow: str
) -> None:
    """The clock and the product are replaced by ones with known speed and error."""
    clock = [0.0]

    def multiply(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        route = torch.get_float32_matmul_precision()
        clock[0] += 2.0 if route == slow else 1.0
        return (a.double() @ b.double()) * (1 + 1e-3 * (route == slow))

    monkeypatch.setattr(module, "matmul", multiply)
    monkeypatch.setattr(module.time, "perf_counter", lambda: clock[0])
    errors, seconds = module._measure(("highest", "medium"))
    assert {route for route, error in errors.items() if error > 5e-4} == {slow}
    assert {route for route, found in seconds.items() if found == 2.0} == {slow}


def test_earlier_setting_is_used_without_measuring(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "probe_matmul", lambda: pytest.fail("probed"))
    with matmul_precision("auto", setting="medium") as choice:
        assert choice.setting == torch.get_float32_matmul_precision() == "medium"
    with matmul_precision("auto", device="cuda") as choice:
        assert choice.setting == "highest"


def test_unknown_modes_raise() -> None:
    with pytest.raises(InputError, match="matmul is 'fast'"), matmul_precision("fast"):
        pass
    with pytest.raises(InputError, match="'low'"), matmul_precision("auto", setting="low"):
        pass


def test_bfloat16_is_scoped_and_reports_its_error() -> None:
    layer = MLP(64, [32])
    params = layer.init(random.PRNGKey(0))
    x = random.normal(random.PRNGKey(1), (16, 64))
    apply = jit(layer.apply)
    exact, compiled = layer.apply(params, x), apply(params, x)
    before = torch.get_float32_matmul_precision()
    with matmul_precision("bf16") as choice:
        rounded, rounded_jit = layer.apply(params, x), apply(params, x)
    assert torch.get_float32_matmul_precision() == before
    # programs compiled outside of the block are not used inside it, and vice versa
    assert torch.equal(layer.apply(params, x), exact)
    assert torch.equal(apply(params, x), compiled)
    for found in (rounded, rounded_jit):
        assert found.dtype == torch.float32
        assert 1e-4 < (found - exact).norm() / exact.norm() < 1e-2
    assert choice.setting == "bf16"
    assert 1e-3 < choice.error_fast < 1e-2 and choice.error_strict < 1e-6
    assert f"error {choice.error_fast:.1e}" in choice.reason
    assert ("no faster" in choice.reason) == (choice.speedup < 1.15)


def test_gradients_are_computed_in_bfloat16() -> None:
    x, kernel, weight = (torch.randn(n, generator=torch.Generator().manual_seed(3)) for n in SHAPES)

    def loss(kernel: torch.Tensor) -> torch.Tensor:
        return (products.matmul(x, kernel) * weight).sum()

    exact = grad(loss)(kernel)
    assert torch.allclose(exact, x.T @ weight, rtol=1e-5, atol=1e-5)
    with matmul_precision("bf16", setting="bf16") as choice:
        rounded = grad(loss)(kernel)
        stacked = vmap(grad(loss))(torch.stack([kernel, 2 * kernel]))
        double = products.matmul(x.double(), kernel.double())
    assert "as at the start of the run" in choice.reason
    assert rounded.dtype == torch.float32
    expected = (x.bfloat16().T @ weight.bfloat16()).float()
    assert torch.allclose(rounded, expected, rtol=1e-2)
    assert 1e-4 < (rounded - exact).norm() / exact.norm() < 1e-2
    assert torch.allclose(stacked[1], expected, rtol=1e-2)
    assert torch.equal(double, x.double() @ kernel.double())


def test_bfloat16_on_other_devices_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "probe_bfloat16", lambda: pytest.fail("probed"))
    with matmul_precision("bf16", device="cuda") as choice:
        assert choice.setting == "bf16" and "not measured" in choice.reason


@pytest.mark.parametrize(
    ("seconds", "message"), [((3.0, 2.0, 1.0), "2.00x the speed"), ((3.0, 2.0, 1.9), "no faster")]
)
def test_bfloat16_without_units_reports_no_speedup(
    monkeypatch: pytest.MonkeyPatch, seconds: tuple[float, ...], message: str
) -> None:
    times = dict(zip(("highest", "medium", "bf16"), seconds, strict=True))
    errors = {"highest": 3e-7, "medium": 3e-7, "bf16": 3e-3}
    monkeypatch.setattr(module, "_measure", lambda settings: (errors, times))
    assert message in module.probe_bfloat16().reason
    # a float32 setting that computes in bfloat16 is not a baseline
    errors["medium"], times["medium"] = 3e-3, 1.0
    assert module.probe_bfloat16().speedup == times["highest"] / times["bf16"]


def test_run_in_bfloat16_resumes_in_bfloat16(tiny, quiet) -> None:
    config = dataclasses.replace(tiny, matmul="bf16", max_steps=5)
    with disable_jit():
        first = train_offline(config, reporter=quiet)
        resumed = train_offline(
            dataclasses.replace(config, max_steps=7), resume=first.run.path, reporter=quiet
        )
        whole = train_offline(
            dataclasses.replace(config, name="whole", max_steps=7), reporter=quiet
        )
    assert first.summary["matmul"]["setting"] == resumed.summary["matmul"]["setting"] == "bf16"
    assert "error" in first.summary["matmul"]["reason"]
    assert "as at the start of the run" in resumed.summary["matmul"]["reason"]
    assert _same(resumed.learner, whole.learner)
    with disable_jit():
        strict = dataclasses.replace(config, name="strict", matmul="strict")
        assert not _same(first.learner, train_offline(strict, reporter=quiet).learner)


def _same(one: Any, other: Any) -> bool:
    pairs = zip(tree_leaves(one), tree_leaves(other), strict=True)
    return all(torch.equal(torch.as_tensor(a), torch.as_tensor(b)) for a, b in pairs)
