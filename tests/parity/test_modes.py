"""Functions run in each mode, the modes of each case, and the device of created arrays."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from idql_func import optim, random
from idql_func.switches import jit_disabled
from parity.cases import Case, all_cases, flow_cases
from parity.checking import check_command
from parity.modes import COMPILED, MODES, UNCHECKED, Part, chosen, modes_of, seconds, unchecked
from parity.port.backend import TorchBackend
from parity.port.lift import Lift, decoy
from parity.programs import execute

CASES = {case.id: case for case in [*all_cases(), *flow_cases()]}


@pytest.mark.parametrize(
    "x",
    [
        torch.tensor([1.0, 2.0, 4.0]),
        torch.tensor(2.0),
        torch.tensor(3),
        torch.tensor([True, False]),
        torch.arange(6, dtype=torch.uint8).reshape(2, 3),
        random.PRNGKey(0),
        random.split(random.PRNGKey(1), 3),
    ],
    ids=["floats", "float", "count", "flags", "image", "key", "keys"],
)
def test_decoy_differs_but_has_the_same_shape_and_dtype(x: Tensor) -> None:
    other = decoy(x)
    assert other.shape == x.shape
    assert other.dtype == x.dtype
    assert not torch.equal(other, x)
    if x.dtype == torch.int64 and x.ndim:
        assert int(other.min()) >= 0 and int(other.max()) < 2**32


def test_wrong_vmap_rule_is_detected() -> None:
    class Broken(torch.autograd.Function):
        generate_vmap_rule = False

        @staticmethod
        def forward(x: Tensor) -> Tensor:
            return 2 * x

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None: ...

        @staticmethod
        def vmap(info: Any, in_dims: Any, x: Tensor) -> Any:
            return 2 * x[:1].expand(x.shape), 0

    x = torch.tensor([1.0, 3.0])
    assert Lift("eager")(Broken.apply)(x).tolist() == [2.0, 6.0]
    assert Lift("vmapped")(Broken.apply)(x).tolist() != [2.0, 6.0]


def test_vmapped_accepts_trees_keywords_and_constants() -> None:
    lift = Lift("vmapped")

    def step(params: dict[str, Tensor], *, rate: float, names: list[str]) -> Any:
        return {name: params[name] * rate for name in names}, "done", None

    found, word, nothing = lift(step)({"w": torch.tensor([3.0, 5.0])}, rate=2.0, names=["w"])
    assert found["w"].tolist() == [6.0, 10.0]
    assert (word, nothing, lift.calls) == ("done", None, 1)


def test_nested_lifted_function_is_called_directly() -> None:
    lift = Lift("vmapped")
    square = lift(lambda x: x**2)
    assert lift(lambda x: square(x).sum())(torch.ones(3)).item() == 3.0
    assert lift.calls == 1


def test_functions_without_tensors_are_not_lifted() -> None:
    lift = Lift("compiled")
    assert lift(lambda n: n + 1)(2) == 3
    assert lift.calls == 0


def test_compiled_programs_are_shared_between_tensor_values_only() -> None:
    lift, traced = Lift("compiled"), []

    def power(x: Tensor, n: int) -> Tensor:
        traced.append(n)
        return x**n

    results = [lift(power)(torch.tensor([x]), n).item() for x, n in ((2.0, 2), (3.0, 2), (2.0, 3))]
    assert results == [4.0, 9.0, 8.0]
    assert traced == [2, 3]


def test_decoys_of_second_moments_are_not_negative() -> None:
    state = optim.adam(0.1).init({"w": torch.ones(2)})
    moments = decoy(state[0].nu["w"] + torch.tensor([1.0, 2.0]))
    assert (moments >= 0).all()


def test_modes_depend_on_the_program_of_a_case() -> None:
    assert modes_of(CASES["create/simple"]) == ("eager",)
    assert modes_of(CASES["init/mlp"]) == ("eager", "vmapped")
    assert modes_of(CASES["sac/plain"]) == MODES
    assert modes_of(CASES["encoders/pass-resnet-stem"]) == ("eager", "compiled")
    assert modes_of(Case("mine", "one", "", {})) == ("eager",)


def test_compiled_cases_exist_and_cover_every_learner() -> None:
    assert set(COMPILED) <= set(CASES)
    assert all("compiled" in modes_of(CASES[name]) for name in COMPILED)
    learners = {CASES[name].settings.get("learner") for name in COMPILED} - {None}
    state = {"simple", "general", "bc", "iql", "sac", "td3", "fql", "ifql", "rebrac"}
    assert learners == {*state, "drq", "pixel_bc"}
    modules = {name.partition("/")[0] for name in COMPILED}
    assert modules >= {"random", "losses", "optim", "network", "encoders", "augmentation", "droq"}
    subset = CASES["droq/redq-heavy"].settings["kwargs"]
    assert subset["num_min_qs"] < subset["num_qs"]


def test_case_compiles_only_its_part_of_a_learner() -> None:
    parts: tuple[tuple[Part | None, int], ...] = (("update", 1), ("choice", 2), (None, 3))
    for part, counted in parts:
        backend = TorchBackend("compiled", part=part)
        learner = _Learner()
        with backend.flags(False, False):
            backend.updated(learner, "update", {})
            backend.choose(learner, "eval_actions", None)
            backend.choose(learner, "eval_actions", None)
        assert backend.lift.calls == counted
        assert learner.jitted == [part != "choice", *[part != "update"] * 2]


class _Learner:
    """Records for each call whether jit was enabled."""

    def __init__(self) -> None:
        self.jitted: list[bool] = []

    def update(self, batch: Any) -> None:
        self.jitted.append(not jit_disabled())

    eval_actions = update


def test_every_option_compiles_all_cases() -> None:
    compiled = [case for case in CASES.values() if "compiled" in modes_of(case)]
    assert all(chosen(case, "compiled", every=True) for case in compiled)
    assert sum(chosen(case, "compiled") for case in compiled) == len(COMPILED)


def test_long_runs_are_vmapped_only_with_every_option() -> None:
    long = CASES["double/simple-dropout"]
    assert not chosen(long, "vmapped")
    assert chosen(long, "vmapped", every=True)
    assert chosen(CASES["redq/utd-4-double"], "vmapped")
    assert all(chosen(case, "eager") for case in CASES.values())


def test_longest_jobs_start_first() -> None:
    long, short = CASES["double/simple-dropout"], CASES["losses/quantile-default"]
    assert seconds(CASES[COMPILED[0]], "compiled") > seconds(long, "vmapped")
    assert seconds(long, "vmapped") > seconds(long, "eager") > seconds(short, "eager")


class OnMeta(TorchBackend):
    """Put everything on the meta device, where using a host tensor is an error."""

    def __init__(self) -> None:
        super().__init__(device="meta")

    def numpy(self, value: Any) -> np.ndarray:
        if not isinstance(value, Tensor):
            return np.asarray(value)
        assert value.device.type == "meta"
        return np.zeros(tuple(value.shape), str(value.dtype).removeprefix("torch."))


ON_META = (
    *("random/keys-older-32", "random/normal-newer-64", "random/choice-p-older-32"),
    *("random/permutation-7-older-32", "random/categorical-shape-older-32"),
    *("network/ddpm-resnet", "network/ensemble-3-dropout", "encoders/pass-pixels-everything"),
    *("init/resnet-default_width", "distributions/tanh", "distributions/pass-normal-fixed"),
    *("diffusion/sampler-vp-warm-repeat", "diffusion/schedule-cosine-32"),
    *("losses/expectile-0.7", "losses/exponential-second-clip", "optim/adamw-cosine-32"),
    *("optim/ema-64", "optim/cosine_decay-32", "augmentation/crops"),
    *("update/simple-dropout", "update/general-quantile-soft_adv", "sac/newer", "drq/everything"),
    *("td3/redq", "bc/entropy-dropout", "iql/plain", "pixel_bc/everything"),
)


@pytest.mark.parametrize("name", ON_META)
def test_every_array_is_created_on_the_device(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASES[name]
    settings = {**case.settings, "choose": []}
    if "steps" in settings:
        settings["steps"] = settings["first_gradient"] = min(2, settings["steps"])
    outputs = execute(OnMeta(), case.program, settings)
    assert outputs


def test_unchecked_cases_are_reported(capsys: pytest.CaptureFixture[str], tmp_path) -> None:
    path = tmp_path / "figures.json"
    name = "encoders/pass-resnet-stem"
    assert check_command(case=name, mode="eager") == 0
    assert "is not checked" not in capsys.readouterr().out
    assert check_command(only="losses/expectile-0.7", mode="vmapped", json_path=path) == 0
    assert json.loads(path.read_text())["unchecked"] == []
    lines = unchecked([case for case in all_cases() if case.id == name], MODES)
    assert len(lines) == 1
    assert lines[0].startswith(f"{name} is not checked vmapped: 2.04e-6")
    assert {case for case, _ in UNCHECKED} <= set(CASES)
