"""Functions that read traced values are refused in one sentence; traced indices work."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from idql_func import jit, vmap
from idql_func.compiler.inductor import without_code_generation

X, PLACES = torch.arange(6.0).reshape(2, 3), torch.tensor([2, 0])


def read_item(x: Tensor, i: Tensor) -> Any:
    return x.sum().item()


def read_float(x: Tensor, i: Tensor) -> Any:
    return float(x[0])


def read_int(x: Tensor, i: Tensor) -> Any:
    return torch.zeros(int(i))


def read_list(x: Tensor, i: Tensor) -> Any:
    return x.tolist()


def read_numpy(x: Tensor, i: Tensor) -> Any:
    return x.numpy()


def read_index(x: Tensor, i: Tensor) -> Any:
    return [1, 2, 3][i]


def read_range(x: Tensor, i: Tensor) -> Any:
    return list(range(i))  # type: ignore[arg-type]


def read_branch(x: Tensor, i: Tensor) -> Any:
    return 1 if x.sum() > 0 else 2


def read_loop(x: Tensor, i: Tensor) -> Any:
    while i < 3:
        i = i + 1
    return i


def read_mask(x: Tensor, i: Tensor) -> Any:
    return x[x > 1]


def read_nonzero(x: Tensor, i: Tensor) -> Any:
    return x.nonzero()


def read_unique(x: Tensor, i: Tensor) -> Any:
    return x.unique()


def read_arange(x: Tensor, i: Tensor) -> Any:
    return torch.arange(i)  # type: ignore[arg-type]


def read_end(x: Tensor, i: Tensor) -> Any:
    return x[:i]


def read_begin(x: Tensor, i: Tensor) -> Any:
    return x[i:]


ADVICE: dict[Callable[[Tensor, Tensor], Any], str] = {
    read_item: "keep it a tensor",
    read_float: "keep it a tensor",
    read_int: "keep it a tensor",
    read_list: "keep it a tensor",
    read_numpy: "use operations of torch",
    read_index: "index with the tensor",
    read_range: "index with the tensor",
    read_branch: r"write torch\.where\(condition, x, y\) instead of a branch",
    read_loop: r"write torch\.where\(condition, x, y\) instead of a branch",
    read_mask: r"write torch\.where\(mask, x, other\)",
    read_nonzero: "the shape of its result depends on values",
    read_unique: "the shape of its result depends on values",
    read_arange: "the shape of its result depends on values",
    read_end: r"index with start \+ torch\.arange\(length\)",
    read_begin: r"index with start \+ torch\.arange\(length\)",
}
TRANSFORMS = {
    "jit": lambda f: lambda: jit(f)(X[0], PLACES[0]),
    "vmap": lambda f: lambda: vmap(f)(X, PLACES),
    "jit of vmap": lambda f: lambda: jit(vmap(f))(X, PLACES),
    "vmap of jit": lambda f: lambda: vmap(jit(f))(X, PLACES),
}


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("function", ADVICE, ids=lambda f: f.__name__)
def test_reading_is_refused_with_the_line_and_advice(function: Any, transform: str) -> None:
    with without_code_generation(), pytest.raises(TypeError) as raised:
        TRANSFORMS[transform](function)()
    text = str(raised.value)
    assert re.match(rf"(jit|vmap)\({function.__name__}\)|jit\(", text)
    line = re.search(r"(\S+), line (\d+), in (\w+) reads the value of a traced tensor", text)
    assert line and line[3] == function.__name__ and Path(line[1]) == Path(__file__)
    code = function.__code__
    assert code.co_firstlineno < int(line[2]) <= max(n or 0 for *_, n in code.co_lines())
    assert re.search(ADVICE[function], text) and "\n" not in text


@given(st.lists(st.integers(-2, 1), min_size=1, max_size=4), st.integers(0, 5))
def test_traced_integers_are_indices(places: list[int], kind: int) -> None:
    rows = torch.arange(24.0).reshape(2, 3, 4)

    def pick(i: Any) -> Tensor:
        forms = (rows[i], rows[:, i], rows[..., i], rows[i, 1:], rows[None, i], rows[i, ..., i])
        return forms[kind]

    index = torch.tensor(places)
    expected = torch.stack([pick(place) for place in places])
    assert torch.equal(vmap(pick)(index), expected)
    with without_code_generation():
        assert torch.equal(jit(vmap(pick))(index), expected)
        assert torch.equal(jit(pick)(index[0]), expected[0])


def test_index_past_the_end_selects_the_last_row() -> None:
    with without_code_generation():
        pick = jit(lambda x, i: x[i])
        assert pick(torch.arange(3), torch.tensor(7)).item() == 2
        assert pick(torch.arange(3), 2).item() == 2


def test_shapes_that_follow_from_known_sizes_are_not_reads() -> None:
    with without_code_generation():
        sized = jit(lambda x: torch.zeros(x.shape[0]) + torch.arange(x.shape[0]))
        assert sized(torch.zeros(3)).tolist() == [0.0, 1.0, 2.0]
