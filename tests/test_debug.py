"""``debug.print``: which lines are printed, in which order, and one sentence for a wrong text."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from idql_func import debug, disable_jit, eval_shape, grad, jit, scan, value_and_grad, vmap
from idql_func.agents import BCLearner
from idql_func.compiler.inductor import without_code_generation

Lines = Callable[[], list[str]]


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str]) -> Lines:
    def read() -> list[str]:
        return capsys.readouterr().out.splitlines()

    return read


def shown(x: Tensor) -> Tensor:
    debug.print("first {x:.1f}", x=x)
    debug.print("then {}", 2 * x)
    return x * x


def test_values_are_shown_as_by_numpy(lines: Lines) -> None:
    debug.print("{0} {y} {0} {z}", torch.arange(3), y=0.1, z="text")
    debug.print("{} {} {}", np.float64(0.5), True, 3)
    debug.print("nothing {{}}")
    debug.print("{x[1]}", x=[1, 2])
    assert lines() == [
        "[0 1 2] 0.10000000149011612 [0 1 2] text",
        "0.5 True 3",
        "nothing {}",
        "2",
    ]


def test_vmap_prints_a_line_for_each_member(lines: Lines) -> None:
    def f(x: Tensor, y: Tensor) -> Tensor:
        debug.print("x {} y {}", x, y)
        debug.print("y {}", y)  # not mapped
        return x

    vmap(f, (0, None))(torch.arange(3), torch.tensor(7))
    assert lines() == ["x 0 y 7", "x 1 y 7", "x 2 y 7", "y 7"]
    vmap(vmap(lambda x: debug.print("{}", x) or x))(torch.arange(4).reshape(2, 2))
    assert sorted(lines()) == ["0", "1", "2", "3"]
    vmap(lambda x: debug.print("{}", x) or x, in_axes=1)(torch.tensor([[1, 2]]))
    assert lines() == ["[1]", "[2]"]


def test_derivatives_are_those_without_the_print(lines: Lines) -> None:
    x = torch.tensor(3.0)
    assert grad(shown)(x).item() == 6.0
    assert lines() == ["first 3.0", "then 6.0"]
    value, slope = value_and_grad(shown)(x)
    assert (value.item(), slope.item()) == (9.0, 6.0)
    assert grad(grad(shown))(x).item() == 2.0
    assert vmap(grad(shown))(torch.tensor([1.0, 2.0])).tolist() == [2.0, 4.0]
    assert torch.func.jvp(shown, (x,), (torch.ones(()),))[1].item() == 6.0
    lines()
    y = x.clone().requires_grad_()
    assert torch.autograd.grad(shown(y), y)[0].item() == 6.0
    assert lines() == ["first 3.0", "then 6.0"]


TRANSFORMS: dict[str, tuple[Callable[..., Any], Any, list[str]]] = {
    "jit": (jit(shown), torch.tensor(3.0), ["first 3.0", "then 6.0"]),
    "jit of grad": (jit(grad(shown)), torch.tensor(3.0), ["first 3.0", "then 6.0"]),
    "jit of vmap": (
        jit(vmap(shown)),
        torch.tensor([1.0, 2.0]),
        ["first 1.0", "first 2.0", "then 2.0", "then 4.0"],
    ),
    "jit of vmap of grad": (
        jit(vmap(grad(shown))),
        torch.tensor([1.0, 2.0]),
        ["first 1.0", "first 2.0", "then 2.0", "then 4.0"],
    ),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_jitted_function_prints_at_each_call(name: str, lines: Lines) -> None:
    f, x, expected = TRANSFORMS[name]
    with without_code_generation():
        first = f(x)
        assert lines() == expected
        assert torch.equal(f(x), first)
        f(2 * x)
    found = lines()
    assert found[: len(expected)] == expected and len(found) == 2 * len(expected)
    assert found[len(expected) :] != expected


def test_a_compiled_program_prints_at_each_call(lines: Lines) -> None:
    """Also equal lines, lines without values, and those whose values nobody else needs."""

    @jit
    def f(state: dict[str, Tensor], x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        debug.print("start")
        debug.print("sum {:.0f}", x.sum())
        debug.print("sum {:.0f}", x.sum())
        return {"w": state["w"] + x}, x.sum()

    state = {"w": torch.zeros(3)}
    for k in range(3):
        state, total = f(state, torch.full((3,), float(k)))
        assert total == 3 * k
        assert lines() == ["start", f"sum {3 * k}", f"sum {3 * k}"]
    assert state["w"].tolist() == [3.0] * 3
    donated = jit(f.fn, donate_argnums=0)
    for _ in range(3):
        state, _ = donated(state, torch.ones(3))
    assert state["w"].tolist() == [6.0] * 3
    assert lines() == ["start", "sum 3", "sum 3"] * 3


def test_scans_print_at_each_step(lines: Lines) -> None:
    def step(carry: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        debug.print("{}", carry)
        return carry + x, carry

    xs, expected = torch.arange(3), ["0", "0", "1"]
    for run in (step, jit(step)):
        with without_code_generation():
            scan(run, torch.tensor(0), xs)
        assert lines() == expected
    with without_code_generation():
        jit(lambda xs: scan(step, torch.tensor(0), xs)[0])(xs)
    assert lines() == expected


def test_a_learner_prints(lines: Lines) -> None:
    import gymnasium as gym

    box = gym.spaces.Box(-1, 1, (2,))
    learner = BCLearner.create(0, box, box, hidden_dims=(4,))
    batch = {name: torch.ones(8, 2) for name in ("observations", "actions")}

    def update(learner: BCLearner, batch: Any) -> Any:
        learner, info = learner.update(batch)
        debug.print("loss {:.3f}", next(iter(info.values())))
        return learner, info

    with disable_jit():
        _, info = update(learner, batch)
    with without_code_generation():
        jit(update)(learner, batch)
    assert lines() == [f"loss {next(iter(info.values())).item():.3f}"] * 2


def test_eval_shape_prints_nothing(lines: Lines) -> None:
    eval_shape(shown, torch.tensor(3.0))
    assert lines() == []


# --- bad input ------------------------------------------------------------------------------


X = torch.ones(3)
BAD: dict[str, tuple[Callable[[], Any], str]] = {
    "no argument": (
        lambda: debug.print("x = {y}", x=X),
        "in the text 'x = {y}' the placeholder {y} has no argument, there are x.",
    ),
    "no position": (lambda: debug.print("{} {}", X), "the placeholder {1} has no argument, there"),
    "no placeholder": (
        lambda: debug.print(f"x = {X}", x=X),
        "the argument x has no placeholder: write {x} where its value belongs, and no f-string.",
    ),
    "unused position": (lambda: debug.print("a", X), "the argument 0 has no placeholder"),
    "open brace": (lambda: debug.print("{x", x=X), "can't be filled in: "),
    "format of a vector": (lambda: debug.print("{x:.2f}", x=X), "can't be filled in: unsupported"),
    "format of a number": (lambda: debug.print("{x:d}", x=0.5), "can't be filled in: "),
    "attribute": (lambda: debug.print("{x.y}", x=X), "can't be filled in: "),
    "no text": (lambda: debug.print(X), "debug.print: fmt must be a text, got float32 (3,)."),  # type: ignore
    "no value": (lambda: debug.print("{x}", x=object()), "dense tensors, arrays, numbers or texts"),
    "large": (lambda: debug.print("{}", 2**40), "the number 1099511627776 has too many digits"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence(name: str, lines: Lines) -> None:
    call, message = BAD[name]
    with pytest.raises((TypeError, ValueError), match=re.escape(message)) as found:
        call()
    assert "\n" not in str(found.value) and str(found.value).startswith("debug.print: ")
    with without_code_generation(), pytest.raises((TypeError, ValueError)):
        jit(lambda x: call() or x)(X)
    assert lines() == []


shown_in_jit = jit(shown)


@pytest.mark.parametrize("fn", [shown, shown_in_jit])
def test_torch_compile_is_refused(fn: Callable[[Tensor], Tensor], lines: Lines) -> None:
    x = torch.ones(2).sum()
    with pytest.raises(RuntimeError):  # in words of torch
        torch.compile(lambda x: fn(x) + 1, fullgraph=True, backend="aot_eager")(x)
    with pytest.raises(NotImplementedError, match=r"use idql_func\.jit instead, or print outside"):
        torch.compile(lambda x: fn(x) + 1, backend="aot_eager")(x)
    assert lines() == []
