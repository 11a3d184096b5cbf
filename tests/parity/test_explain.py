"""Bugs planted in the port, and the first tensor that the explanation names for each."""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from idql_func import optim, random
from idql_func.agents import ddpm_iql
from idql_func.networks import layers, mlp
from parity.__main__ import main
from parity.cases import Case
from parity.compare import compare_case
from parity.explain import Replay, explain, first_failing_step, intermediate_cases, verdict
from parity.port.capture import array, unwrapped
from parity.store import RecordError, read_cases, read_manifest


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def _first(replay: Replay) -> tuple[str, int | None]:
    found = replay.first
    assert found is not None, verdict(replay)
    return found[0].tensor, found[1]


def _named(replays: list[Replay]) -> dict[str, str | None]:
    return {r.result.case.id: r.first and r.first[0].tensor for r in replays}


def test_correct_port_has_no_failing_tensor(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--case", "update/simple-dropout", "--explain"]) == 0
    printed = capsys.readouterr().out
    assert "tensors of calls/simple-dropout are within bounds" in printed
    assert "tensors of calls/simple-dropout-double are within bounds" in printed
    assert "tensors of update/simple-dropout are within bounds" in printed
    assert "FIRST" not in printed


def test_dropout_after_the_activation_is_located(monkeypatch: pytest.MonkeyPatch) -> None:
    def forward(self: Any, x: Any, training: bool = False, rng: Any = None) -> Any:
        x = x if self.norm is None else self.norm(x)
        for i, (dense, drop) in enumerate(self.layers):
            x = dense(x)
            if i + 1 < len(self.layers) or self.activate_final:
                x = self.activations(x)
                if drop is not None:
                    x = drop(x, training, rng and rng.push(f"Dropout_{i}"))
        return x

    monkeypatch.setattr(mlp.MLP, "forward", forward)
    found = _named(explain("network/mlp-dropout-layer_norm-swish"))
    assert found == {
        "layers/mlp-dropout-layer_norm-swish": "layers/eval/Dropout_0",
        "layers/mlp-dropout-layer_norm-swish-double": "layers/eval/Dropout_0",
        # without dropout, the order does not change the output
        "network/mlp-dropout-layer_norm-swish": "forward/train",
    }
    # With ReLU, both orders give the same network output; only the layer's output differs.
    layer = "calls/target_critic/0/VmapStateActionValue_0/MLP_0/Dropout_0"
    found = _named(explain("droq/plain"))
    assert found["calls/droq"] == found["calls/droq-double"] == layer
    assert found["droq/plain"] is None


def test_keys_split_in_the_other_order_are_located(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    swapped = types.SimpleNamespace(
        split=random.split,
        split_chain=lambda key, num, carry: random.split_chain(key, num, 1 - carry),
        randint=random.randint,
        normal=random.normal,
    )
    monkeypatch.setattr(ddpm_iql, "random", swapped)
    replays = explain("update25/simple")
    assert {_first(r) for r in replays} == {("rng/rng", None)}
    failing = [f.tensor for f in replays[0].result.findings if not f.passed]
    assert failing[:3] == [
        "rng/rng",
        "calls/score_model/0/in1",
        "calls/score_model/0/in2",
    ]
    assert main(["check", "--case", "update25/simple", "--explain"]) == 1
    printed = capsys.readouterr().out
    assert "rng/rng (the key at the end): first of" in printed
    assert "calls/score_model/0/in1 (noisy actions)" in printed


def test_layer_norm_with_another_epsilon_is_located(monkeypatch: pytest.MonkeyPatch) -> None:
    correct: Any = layers.LayerNorm.forward

    def forward(self: Any, x: Any, training: bool = False, rng: Any = None) -> Any:
        other = types.SimpleNamespace(
            scale=self.scale, bias=self.bias, epsilon=1e-5, _initializers={}
        )
        return correct(other, x)

    monkeypatch.setattr(layers.LayerNorm, "forward", forward)
    (single, double, run) = explain("update/simple-dropout")
    norm = "calls/score_model/0/MLPResNet_0/MLPResNetBlock_0/LayerNorm_0"
    assert _first(single) == _first(double) == (norm, None)
    assert "MLPResNet_0/MLPResNetBlock_0/Dropout_0" in verdict(single)
    assert not run.result.passed


def test_moving_average_with_swapped_arguments_is_located(monkeypatch: pytest.MonkeyPatch) -> None:
    correct = optim.incremental_update
    monkeypatch.setattr(optim, "incremental_update", lambda new, old, tau: correct(old, new, tau))
    _, double, run = explain("update25/simple")
    # Every call and every gradient of the first update holds; the target after it does not.
    assert _first(double) == ("norms/target_score_model", None)
    assert "gradient/critic/0" in verdict(double)
    assert verdict(double).endswith("means/v; norms/score_model; params/score_model")
    assert _first(run) == ("losses/value_loss", 1)
    assert "losses/value_loss at update 2: first of" in verdict(run)


def test_times_shifted_by_one_are_located(monkeypatch: pytest.MonkeyPatch) -> None:
    correct = ddpm_iql.score_loss

    def shifted(params: Any, fn: Any, obs: Any, noisy: Any, time: Any, *rest: Any) -> Any:
        return correct(params, fn, obs, noisy, time + 1, *rest)

    monkeypatch.setattr(ddpm_iql, "score_loss", shifted)
    single, *_ = explain("update/simple-dropout")
    assert _first(single) == ("calls/score_model/0/in2", None)
    assert verdict(single).startswith("calls/score_model/0/in2 (times): first of")
    assert verdict(single).endswith("of calls/score_model/0 itself in0, in1")


def test_swapped_noise_and_action_are_located(monkeypatch: pytest.MonkeyPatch) -> None:
    correct = ddpm_iql.diffuse
    monkeypatch.setattr(ddpm_iql, "diffuse", lambda a, noise, *rest: correct(noise, a, *rest))
    single, *_ = explain("update/general-expectile-soft_adv")
    # the weights of the actor's loss are computed first, from calls that hold
    assert _first(single) == ("calls/score_model/0/in1", None)
    assert "rng/rng; calls/value/0; calls/target_critic/0; of" in verdict(single)


def test_crashing_run_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any) -> Any:
        raise RuntimeError("no such noise")

    monkeypatch.setattr(ddpm_iql, "diffuse", broken)
    single, *_ = explain("update/simple")
    assert verdict(single).startswith("calls/simple-dropout did not run: RuntimeError at ")
    assert main(["check", "--case", "update/simple", "--explain"]) == 1


def test_unknown_case_raises(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RecordError, match=r"no case 'losses/expctile-0\.7'; did you mean losses/"):
        explain("losses/expctile-0.7")
    assert main(["check", "--case", "losses/expctile-0.7", "--explain"]) == 2
    assert main(["check", "--explain"]) == 2
    assert "--explain needs --case GROUP/NAME" in capsys.readouterr().err


def test_case_is_replayed_in_its_modes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--case", "calls/bc", "--explain", "--mode", "all"]) == 0
    assert capsys.readouterr().out.count("all 26 tensors of calls/bc are within bounds") == 1
    assert main(["check", "--case", "calls/bc", "--explain", "--mode", "compiled"]) == 2
    assert "calls/bc does not run compiled, only eager" in capsys.readouterr().err
    assert main(["check", "--case", "losses/expectile-0.7", "--explain", "--mode", "vmapped"]) == 0
    assert "tensors of losses/expectile-0.7 (vmapped) are within bounds" in capsys.readouterr().out


def test_check_runs_one_case(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--case", "losses/expectile-0.7"]) == 0
    assert "1 of 1 cases within bounds" in capsys.readouterr().out


def test_values_are_captured_under_grad_and_vmap() -> None:
    kept: list[Any] = []

    def recorded(x: torch.Tensor) -> torch.Tensor:
        kept.append(unwrapped({"x": 2 * x}))
        return x.sum()

    x = torch.arange(24.0).reshape(2, 3, 4)
    inner = torch.func.vmap(torch.func.grad(recorded), in_dims=1)
    torch.func.vmap(inner, in_dims=2)(x)
    # mapped axes in front, the outermost first
    assert np.array_equal(array(kept[0])["x"], 2 * x.permute(2, 1, 0).numpy())


def test_first_failure_of_series_is_the_earliest_step() -> None:
    case = Case("g", "n", "run", {}, {"losses": "loss", "means": "mean"})
    correct = np.ones(4, np.float32)
    first, later = correct.copy(), correct.copy()
    later[2:], first[1:] = 1.5, 1.2
    actual = {"losses/a": later, "means/b": first}
    expected = {"losses/a": correct, "means/b": correct}
    replay = Replay(compare_case(case, actual, expected), actual, expected)
    assert [first_failing_step(f) for f in replay.result.findings] == [2, 1]
    assert _first(replay) == ("means/b", 1)
    assert "means/b at update 2: first of 2 out of bound in g/n: 1.20000005, reference 1" in (
        verdict(replay)
    )


def test_every_run_has_a_case_of_intermediate_values() -> None:
    cases = read_cases(read_manifest())
    for case in cases:
        if case.program in ("run", "act", "course"):
            assert intermediate_cases(case, cases), case.id
    named = {case.id: [lead.id for lead in intermediate_cases(case, cases)] for case in cases}
    assert named["redq/utd-4"] == ["calls/redq", "calls/redq-double"]
    assert named["droq/utd-2-double"] == ["calls/droq-double", "calls/droq"]
    assert named["network/ddpm-resnet"] == ["layers/ddpm-resnet", "layers/ddpm-resnet-double"]
    assert named["calls/sac"] == []
