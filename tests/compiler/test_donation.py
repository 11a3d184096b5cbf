"""Donated arguments: results reuse their memory, later uses raise, no value changes."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, cast
from unittest import mock

import numpy as np
import pytest
import torch
from torch import Tensor

from idql_func import disable_jit, jit, optim, random, scan, struct, transforms, tree_leaves, vmap
from idql_func.compiler.cuda_graph import CudaGraph
from idql_func.compiler.donation import take_donated_memory
from idql_func.tree import tree_map, tree_stack


@pytest.fixture(params=["traced", "compiled"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Run the test with the traced graph, and with the graph compiled by Inductor."""
    if request.param == "traced":
        monkeypatch.setattr(
            "idql_func.compiler.jit.compiler_problem", lambda device: "No compiler."
        )
    elif transforms.compiler_problem(torch.device("cpu")) is not None:
        pytest.skip("needs a C++ compiler")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "jit: No compiler", RuntimeWarning)
        yield request.param


def train_state() -> struct.TrainState:
    params = {"w": torch.tensor([1.0, -2.0]), "b": torch.tensor(0.5)}
    return struct.TrainState.create(params=params, tx=optim.adam(0.1))


def step(state: struct.TrainState, x: Tensor) -> tuple[struct.TrainState, dict[str, Tensor]]:
    def loss(params: dict[str, Tensor]) -> Tensor:
        return ((params["w"] * x).sum() + params["b"]) ** 2

    value, grads = transforms.value_and_grad(loss)(state.params)
    return state.apply_gradients(grads=grads), {"loss": value}


X = torch.tensor([0.3, 0.7])


def addresses(tree: Any) -> list[int]:
    return [leaf.data_ptr() for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def test_donating_loop_has_equal_values_and_reuses_its_memory(backend: str) -> None:
    plain = jit(step)
    expected = train_state()
    state = train_state()
    kept = tree_map(torch.clone, state)
    state, _ = plain.donating()(state, X)  # the first call copies the caller's memory
    places = addresses(state)
    expected, _ = plain(expected, X)
    for _ in range(3):
        state, info = plain.donating()(state, X)
        expected, expected_info = plain(expected, X)
        assert addresses(state) == places
        assert torch.equal(info["loss"], expected_info["loss"])
    for ours, theirs in zip(tree_leaves(state), tree_leaves(expected), strict=True):
        assert torch.equal(ours, theirs)
    assert kept.params["w"].tolist() == [1.0, -2.0]


@pytest.mark.usefixtures("backend")
def test_use_of_a_donated_tensor_raises() -> None:
    state = train_state()
    weights = state.params["w"]
    new, _ = jit(step, donate_argnums=0)(state, X)
    for use in (
        lambda: weights + 1,
        lambda: weights.shape,
        lambda: weights.numpy().sum(),
        lambda: torch.dot(X, state.params["w"]),
        lambda: jit(step)(state, X),
        lambda: step(state, X),
    ):
        with pytest.raises(RuntimeError, match="This tensor was donated"):
            use()
    assert repr(weights) == "<donated tensor>"
    assert new.params["w"].shape == (2,)


@pytest.mark.usefixtures("backend")
def test_memory_of_the_caller_is_never_written() -> None:
    base = torch.arange(6.0).reshape(3, 2)
    rows = {"a": base[0], "b": base[1], "same": base[1]}
    new = jit(lambda t: tree_map(lambda x: 2 * x, t), donate_argnums=0)(rows)
    assert base.tolist() == [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]
    assert {k: v.tolist() for k, v in new.items()} == {
        "a": [0.0, 2.0],
        "b": [4.0, 6.0],
        "same": [4.0, 6.0],
    }


@pytest.mark.usefixtures("backend")
def test_results_that_share_memory_with_the_arguments_keep_their_values() -> None:
    """Swapped leaves, views of old values, the old value itself and one result given twice."""

    def shuffle(t: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[Tensor]]:
        doubled = 2 * t["a"]
        return {"a": t["b"], "b": doubled}, [t["a"].reshape(2, 1), t["b"], doubled, t["a"] + 0]

    donating = jit(shuffle, donate_argnums=0)
    state = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([10.0, 20.0])}
    plain = tree_map(torch.clone, state)
    history, expected = [], []
    for _ in range(4):
        state, seen = donating(state)
        plain, wanted = shuffle(plain)
        history.append([x.clone() for x in seen])
        expected.append(wanted)
    for ours, theirs in zip(history, expected, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            assert torch.equal(a, b)
    for name, value in plain.items():
        assert torch.equal(state[name], value)


@pytest.mark.usefixtures("backend")
def test_results_of_one_step_are_not_written_by_the_next() -> None:
    donating = jit(lambda c: (c + 1, c + 1), donate_argnums=0)
    c = torch.zeros(3)
    c, first = donating(c)
    c, second = donating(c)
    assert first.tolist() == [1.0] * 3 and second.tolist() == [2.0] * 3 and c.tolist() == [2.0] * 3


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("donate", [False, True])
def test_scan_of_a_jitted_step_equals_single_calls(donate: bool) -> None:
    xs = torch.linspace(-1, 1, 10).reshape(5, 2)
    single, losses = train_state(), []
    for x in xs:
        single, info = step(single, x)
        losses.append(info["loss"])
    program = jit(step).donating(donate)
    state, infos = scan(program, train_state(), xs)
    torch.testing.assert_close(infos["loss"], torch.stack(losses))
    for ours, theirs in zip(tree_leaves(state), tree_leaves(single), strict=True):
        torch.testing.assert_close(ours, theirs)
    assert program.cache_size() == 1


@pytest.mark.usefixtures("backend")
def test_scan_passes_keyword_arguments_and_donates_none_of_them() -> None:
    def pick(total: Tensor, row: Tensor, *, table: Tensor, power: int) -> tuple[Tensor, Tensor]:
        chosen = table.index_select(0, row.reshape(1))[0] ** power
        return total + chosen, chosen

    table, rows = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2, 0, 1, 2])
    program = jit(pick, static_argnames="power", donate_argnums=0)
    step = functools.partial(program, table=table, power=2)
    total, chosen = scan(step, torch.tensor(0.0), rows)
    assert total.item() == 23.0 and chosen.tolist() == [9.0, 1.0, 4.0, 9.0]
    assert table.tolist() == [1.0, 2.0, 3.0] and program.cache_size() == 1


@pytest.mark.usefixtures("backend")
def test_scan_reuses_its_memory_and_draws_like_eager() -> None:
    @jit
    def draw(carry: dict[str, Any], _: None) -> tuple[dict[str, Any], Tensor]:
        key, rng = random.split(carry["rng"])
        noise = random.normal(key, (3,))
        return {"rng": rng, "sum": carry["sum"] + carry["rate"] * noise, "rate": 0.5}, noise

    def start() -> dict[str, Any]:
        return {"rng": random.PRNGKey(0), "sum": torch.zeros(3), "rate": 0.5}

    with disable_jit():
        expected, noises = scan(draw, start(), length=4)
    state, seen = scan(draw.donating(), start(), length=4)
    assert torch.equal(seen, noises) and state["rate"] == 0.5
    assert torch.equal(state["rng"], expected["rng"])
    torch.testing.assert_close(state["sum"], expected["sum"])
    places = addresses(state)
    state, _ = scan(draw.donating(), state, length=2)
    assert addresses(state) == places


def test_scan_of_a_step_that_changes_the_structure_raises() -> None:
    with pytest.raises(TypeError, match="must return"):
        scan(jit(lambda c, x: c), torch.zeros(2), length=3)
    with pytest.raises(TypeError, match="another structure"):
        scan(jit(lambda c, x: ((c, c), None)), torch.zeros(2), length=3)
    with pytest.raises(TypeError, match=r"the step makes '' torch.float64 of shape \(2,\)"):
        scan(jit(lambda c, x: (c.double(), None)), torch.zeros(2), length=3)


@pytest.mark.usefixtures("backend")
def test_stacked_states_reuse_their_memory() -> None:
    states = [train_state(), train_state().replace(step=torch.tensor(7, dtype=torch.int32))]
    expected = [step(s, X)[0] for s in states]
    mapped = jit(vmap(step, in_axes=(0, None)), donate_argnums=0)
    stacked, _ = mapped(tree_stack(states), X)
    places = addresses(stacked)
    for ours, theirs in zip(tree_leaves(stacked), tree_leaves(tree_stack(expected)), strict=True):
        torch.testing.assert_close(ours, theirs)
    stacked, _ = mapped(stacked, X)
    assert addresses(stacked) == places


def test_without_jit_nothing_is_donated() -> None:
    state = train_state()
    with disable_jit():
        jit(step, donate_argnums=0)(state, X)
    assert state.params["w"].tolist() == [1.0, -2.0]


def test_argument_both_static_and_donated_raises() -> None:
    with pytest.raises(ValueError, match="argument 0 can't be static and donated"):
        jit(step, static_argnums=0, donate_argnums=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("donate", [(), 0])
def test_cuda_graphs_have_equal_values(donate: Any) -> None:
    graphed = jit(step, donate_argnums=donate, cuda_graphs=True)
    plain = jit(step)
    a, b = (tree_map(lambda x: x.cuda(), train_state()) for _ in range(2))
    outputs = []
    for i in range(4):
        x = X.cuda() * (i + 1)
        a, info = graphed(a, x)
        b, expected = plain(b, x)
        outputs.append((info["loss"], expected["loss"]))
    for ours, theirs in outputs:  # no output was overwritten by a later replay
        torch.testing.assert_close(ours, theirs)
    for ours, theirs in zip(tree_leaves(a), tree_leaves(b), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_cuda_graph_copies_only_inputs_whose_address_changes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Runs on the CPU: the recording and the replay are replaced."""

    def program(state: Tensor, data: Tensor, batch: Tensor) -> list[Tensor]:
        out = state + data.sum() + batch
        state.add_(1)
        return [out]

    recordings: list[set[int]] = []

    class Replay:
        def __init__(self, owner: CudaGraph) -> None:
            self.owner = owner

        def replay(self) -> None:
            self.owner._outputs = tuple(program(*self.owner._inputs))

    def record(self: CudaGraph, tensors: Sequence[Tensor]) -> None:
        recordings.append(set(self._buffered))
        self._inputs = [t.clone() if k in self._buffered else t for k, t in enumerate(tensors)]
        self._graph = cast(Any, Replay(self))

    monkeypatch.setattr(CudaGraph, "_record", record)
    graph = CudaGraph(program, donated={0})
    state, data = torch.zeros(1), torch.ones(3)
    batches = [torch.tensor([10.0 * i]) for i in range(4)]
    assert [graph(state, data, batch)[0].item() for batch in batches] == [3.0, 14.0, 25.0, 36.0]
    assert recordings == [set(), {2}] and state.item() == 4.0
    other = torch.zeros(1)  # another state is recorded again; the first is not written
    assert graph(other, data, batches[0])[0].item() == 3.0
    assert recordings[2:] == [{2}] and state.item() == 4.0


def test_cuda_graph_accepts_a_donated_input(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Donation puts the memory into another tensor. Runs without a GPU: CUDA calls are mocked."""
    stream = mock.MagicMock()
    for name in ("Stream", "current_stream", "stream", "CUDAGraph", "graph"):
        monkeypatch.setattr(torch.cuda, name, stream)
    recorded = CudaGraph(lambda x: [x + 1], donated={0})
    state = torch.zeros(2)
    recorded(state)
    (taken,) = take_donated_memory([state], [state.detach()])
    with pytest.raises(RuntimeError, match="This tensor was donated"):
        state.data_ptr()
    assert taken.data_ptr() == recorded._inputs[0].data_ptr()
    assert recorded(taken)[0].tolist() == [1.0, 1.0]
    assert stream.call_count == 6  # recorded once


@pytest.mark.usefixtures("backend")
def test_constants_are_returned_beside_donated_state() -> None:
    names = np.array(["a", "b"])
    new, constant = jit(lambda x: (x + 1, names), donate_argnums=0)(torch.zeros(2))
    assert new.tolist() == [1.0, 1.0] and constant is names
