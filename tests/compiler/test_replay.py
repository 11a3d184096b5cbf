"""Recording and replay of compiled CPU graphs: equal values, and no operator is left out."""

from __future__ import annotations

import gc
import logging
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from idql_func import disable_jit, jit, optim, random, scan, struct, tree_leaves
from idql_func.compiler import call, replay, torch_internals
from idql_func.compiler.inductor import compile_graph
from idql_func.compiler.lazy import peek
from idql_func.compiler.recorder import Call, Place
from idql_func.compiler.replay import Replayed
from idql_func.compiler.trace import example_inputs, trace
from idql_func.kernels import matmul, tree_ops
from idql_func.kernels.build import CFunction, c_compiler, library
from idql_func.switches import set_native_matmul
from idql_func.training.runtime.threads import cpu_threads

pytestmark = pytest.mark.skipif(c_compiler() is None, reason="no C compiler")

X, Y = torch.linspace(-1, 1, 12).reshape(3, 4), torch.linspace(0, 2, 20).reshape(4, 5)


def _compiled(fn: Callable[..., Any], *tensors: Tensor) -> Replayed:
    run = compile_graph(trace(fn, tensors), tensors)
    assert isinstance(run, Replayed)
    return run


def _plan(run: Replayed) -> Any:
    (plan,) = run._plans.values()
    return plan


def _equal(a: Sequence[Tensor], b: Sequence[Tensor]) -> bool:
    return len(a) == len(b) and all(map(torch.equal, a, b))


def _check(fn: Callable[..., Any], *tensors: Tensor) -> Replayed:
    """Compare recording and replays, on two sets of inputs, with the compiled graph itself."""
    run = _compiled(fn, *tensors)
    for inputs in (tensors, tensors, [t.flip(0).contiguous() for t in tensors]):
        assert _equal(run(*inputs), run._compiled(*inputs))
    assert run._plans
    return run


def test_kernels_products_and_draws_are_replayed() -> None:
    def fn(x: Tensor, y: Tensor, key: Tensor) -> tuple[Tensor, ...]:
        noise = random.normal(key, (3, 5))
        return torch.relu(x @ y) + noise, (x * 2).sum(), random.split(key)

    run = _check(fn, X, Y, random.PRNGKey(3))
    results = [run(X, Y, random.PRNGKey(3)) for _ in range(2)]
    assert results[0][0].data_ptr() != results[1][0].data_ptr()


def test_results_in_one_allocation_are_replayed() -> None:
    def fn(key: Tensor) -> tuple[Tensor, ...]:
        first, second = random.split(key)
        return first, second, first.clone()

    run = _check(fn, random.PRNGKey(1))
    kept = run(random.PRNGKey(1))
    values = [t.clone() for t in kept]
    run(random.PRNGKey(2))
    assert _equal(kept, values)


def test_operators_on_a_whole_tree_are_replayed_by_one_call() -> None:
    def fn(x: Tensor, y: Tensor, key: Tensor) -> tuple[Tensor, ...]:
        index = random.choice(key, 3, (2,), replace=False)
        averaged = tree_ops.moving_average([x.sin(), x[0]], [x, x[1]], 0.25)
        return *tree_ops.take_members([averaged[0], x], index), averaged[1] @ y

    with set_native_matmul(True):
        run = _check(fn, X, Y, random.PRNGKey(3))
    assert _plan(run).is_one_call


def test_graph_without_native_products_does_not_build_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    matmul.functions.cache_clear()
    monkeypatch.setattr(matmul, "c_functions", lambda *args, **options: pytest.fail("built"))
    _check(lambda x, y: (x.sin() @ y,), X, Y)


def test_torch_operators_are_called_between_kernels() -> None:
    def fn(x: Tensor, image: Tensor, kernel: Tensor) -> tuple[Tensor, ...]:
        values, places = torch.sort(torch.sin(x), dim=1, stable=True)
        return torch.conv2d(image * 2, kernel + values[0, 0]).exp(), values + 1, places

    image = torch.linspace(-1, 1, 2 * 3 * 36).reshape(2, 3, 6, 6)
    run = _check(fn, X, image, torch.linspace(0, 1, 3 * 3 * 9).reshape(3, 3, 3, 3))
    assert len(_plan(run).parts) > 1


@pytest.mark.parametrize("count", [3, 9, 20, 30, 45, 60, 70])
def test_kernels_with_many_arguments_have_the_same_values(count: int) -> None:
    def fn(*tensors: Tensor) -> tuple[Tensor, ...]:
        return (sum(t * k for k, t in enumerate(tensors)),)  # type: ignore[return-value]

    inputs = [torch.full((3,), float(k)) for k in range(count)]
    run = _compiled(fn, *inputs)
    for _ in range(2):
        assert _equal(run(*inputs), run._compiled(*inputs))


@torch.library.custom_op("idql_func_tests::total", mutates_args=())
def _total(tensors: list[Tensor]) -> Tensor:
    return torch.stack(tensors).sum(0)


@_total.register_fake
def _(tensors: list[Tensor]) -> Tensor:
    return torch.empty_like(tensors[0])


@torch.library.custom_op("idql_func_tests::bump", mutates_args=("x",))
def _bump(x: Tensor) -> None:
    x.add_(1)


def test_unsupported_operator_is_not_replayed(caplog: pytest.LogCaptureFixture) -> None:
    def takes_list(x: Tensor) -> tuple[Tensor, ...]:
        return (_total([x.sin(), x.cos()]) * 2,)

    def mutates(x: Tensor) -> tuple[Tensor, ...]:
        y = x * 2
        _bump(y)
        return (y * 3,)

    for fn, reason in ((takes_list, "takes a list of tensors"), (mutates, "writes to a tensor")):
        with caplog.at_level(logging.DEBUG, "idql_func.compiler.replay"):
            run = _compiled(fn, X)
            for inputs in (X, X + 1):
                torch.testing.assert_close(run(inputs)[0], fn(inputs)[0])
        assert not run._plans
        assert reason in caplog.text


def test_unknown_compiled_graph_is_run_without_replay(monkeypatch: pytest.MonkeyPatch) -> None:
    run = _compiled(lambda x: (x + 1,), X)
    monkeypatch.setattr(torch_internals, "compiled_graph_of", lambda compiled: None)
    try:
        assert _equal(run(X), (X + 1,)) and _equal(run(X), (X + 1,))
        assert not run._plans
        assert "does not hold its generated code" in str(replay.problem_of(replay.REPLAY))
    finally:
        torch_internals.reset()


def test_overlapping_inputs_are_not_recorded() -> None:
    run = _compiled(lambda a, b: (a * b,), torch.zeros(4), torch.zeros(4))
    line = torch.arange(6.0)
    for _ in range(2):
        assert _equal(run(line[:4], line[2:]), (line[:4] * line[2:],))
    assert not run._plans


def test_each_number_of_threads_has_its_own_recording() -> None:
    run = _compiled(lambda x, y: (x @ y,), X, Y)
    for threads in (1, 2, 2, 1):
        with cpu_threads(threads):
            assert _equal(run(X, Y), run._compiled(X, Y))
    assert run._plans.keys() == {1, 2}


def test_graph_with_dynamic_rows_is_replayed() -> None:
    def fn(rows: Tensor, key: Tensor) -> tuple[Tensor, ...]:
        places = random.randint(key, (4,), 0, rows.shape[0])
        return rows[places] * torch.tensor([1.0, 2.0, 3.0, 4.0]), places

    for count in (3, 7):
        rows, key = torch.arange(4.0 * count).reshape(count, 4), random.PRNGKey(count)
        inputs = example_inputs((rows, key), {0})
        run: Any = compile_graph(trace(fn, inputs), (rows, key), dynamic_rows=True)
        results = [run(rows, key) for _ in range(3)]
        assert run._plans
        for result in results:
            assert _equal(result, fn(rows, key))


_DURING_PAUSE: list[Callable[[], None]] = []
"""A function that the operator ``pause`` calls once."""


@torch.library.custom_op("idql_func_tests::pause", mutates_args=())
def _pause(x: Tensor) -> Tensor:
    if _DURING_PAUSE:
        _DURING_PAUSE.pop()()
    return x + 1


@_pause.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


def test_calls_of_another_thread_are_not_recorded() -> None:
    run, found = _compiled(lambda x: (_pause(x * 2) * 3,), X), []
    thread = threading.Thread(target=lambda: found.append(run(X + 5)))
    _DURING_PAUSE.append(lambda: (thread.start(), thread.join())[0])
    first = run(X)
    steps = sum(len(part.steps) // 4 for part in _plan(run).parts if hasattr(part, "steps"))
    assert steps == 2  # one kernel before the operator and one after it
    for results, x in ((first, X), (run(X), X), (found[0], X + 5), (run(X + 5), X + 5)):
        torch.testing.assert_close(results[0], (x * 2 + 1) * 3)


def test_block_that_another_thread_uses_is_not_written() -> None:
    run = _check(lambda x, y: (torch.softmax(x @ y, -1).cumsum(0) @ y.mT,), X, Y)
    expected, block = run._compiled(X, Y), _plan(run).block
    with block.lock:  # as during a replay in another thread
        block.floats.fill_(7)
        assert _equal(run(X, Y), expected)
        assert (block.floats == 7).all()
    assert _equal(run(X, Y), expected)
    assert not (block.floats == 7).all()


def test_plans_share_a_block_until_they_are_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "_BLOCKS", weakref.WeakSet())

    def check(rows: int) -> Replayed:
        x = torch.linspace(-1, 1, 30 * rows).reshape(rows, 30)
        return _check(lambda x: ((x.sin() @ x.mT).cos() @ x,), x)

    runs = [check(60), check(50)]
    assert _plan(runs[0]).block is _plan(runs[1]).block
    assert len(replay._BLOCKS) == 1
    runs.append(check(90))  # needs more memory than the first block has
    assert _plan(runs[2]).block is not _plan(runs[0]).block
    assert len(replay._BLOCKS) == 2
    runs.clear()
    gc.collect()
    assert len(replay._BLOCKS) == 0


RESULTS = st.lists(
    st.tuples(st.integers(1, 400), st.integers(0, 9), st.integers(0, 9)), max_size=12
)
"""Intermediate results: the size, and two steps that use it."""


@given(RESULTS)
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_results_used_at_the_same_time_do_not_overlap(results: list[tuple[int, int, int]]) -> None:
    arguments: list[list[Any]] = [[] for _ in range(10)]
    for region, (_, one, other) in enumerate(results):
        for k in {one, other}:
            arguments[k].append(Place(region, 0))
    steps = [Call(0, places, False) for places in arguments]
    starts, size = replay._assign_offsets(steps, [size for size, _, _ in results], set())
    assert starts.keys() == set(range(len(results)))
    for a, (a_size, *a_uses) in enumerate(results):
        assert starts[a] % 64 == 0
        assert starts[a] + a_size <= size
        for b, (b_size, *b_uses) in enumerate(results[:a]):
            disjoint = starts[a] + a_size <= starts[b] or starts[b] + b_size <= starts[a]
            assert disjoint or max(a_uses) < min(b_uses) or max(b_uses) < min(a_uses)


def test_c_function_that_returns_1_raises_memory_error(tmp_path: Path) -> None:
    source = "#include <stdint.h>\nint64_t none(void) { return 1; }\n"
    (tmp_path / "no_memory.c").write_text(source)
    built = library("no_memory", folder=tmp_path)
    assert built is not None
    with pytest.raises(MemoryError, match="could not allocate"):
        CFunction(built, "none", "")()


# --- a training loop ------------------------------------------------------------------


class Learner(struct.PyTreeNode):
    """A layer with its optimiser, a key and a number."""

    rng: Tensor
    weights: struct.TrainState
    rate: float


def _learner() -> Learner:
    layer = {"kernel": Y.clone(), "bias": torch.zeros(5)}
    state = struct.TrainState.create(apply_fn=None, params=layer, tx=optim.adam(1e-2))
    return Learner(random.PRNGKey(0), state, 0.5)


def _step(learner: Learner, batch: dict[str, Tensor], scale: float = 1.0) -> Any:
    rng, key = random.split(learner.rng)
    x = batch["x"] + random.normal(key, tuple(batch["x"].shape)) * learner.rate
    kernel, bias = learner.weights.params["kernel"], learner.weights.params["bias"]
    error = (x @ kernel + bias - batch["y"]) * scale
    grads = {"kernel": x.mT @ error, "bias": error.sum(0)}
    state = learner.weights.apply_gradients(grads=grads)
    return learner.replace(rng=rng, weights=state), {"loss": (error**2).mean(), "constant": 1.0}


@pytest.fixture
def flattened(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """A list that grows with each call that flattens its arguments."""
    calls: list[int] = []
    original = call.Arguments.__init__

    def counted(self: Any, values: Any) -> None:
        calls.append(len(calls))
        original(self, values)

    monkeypatch.setattr(call.Arguments, "__init__", counted)
    yield calls


def _batches(rows: int = 3) -> list[dict[str, Tensor]]:
    x = torch.linspace(-1, 1, 4 * rows).reshape(rows, 4)
    return [{"x": x * k, "y": (x * k).sum(1, keepdim=True).tile(5)} for k in (1, 2, 3, 4, 5)]


def _expected(batches: Sequence[dict[str, Tensor]]) -> tuple[Learner, list[Any]]:
    learner, infos = _learner(), []
    with disable_jit():
        for batch in batches:
            learner, info = _step(learner, batch)
            infos.append(info)
    return learner, infos


def _close(a: Any, b: Any) -> None:
    for x, y in zip(tree_leaves(a), tree_leaves(b), strict=True):
        torch.testing.assert_close(torch.as_tensor(x), torch.as_tensor(y))


def test_loop_flattens_its_learner_once(flattened: list[int]) -> None:
    update, batches = jit(_step, donate_argnums=0), _batches()
    learner, infos = _learner(), []
    for batch in batches:
        learner, info = update(learner, batch)
        infos.append(info)
    assert len(flattened) == 1
    expected = _expected(batches)
    _close((learner, infos), expected)
    assert infos[0]["constant"] == 1.0 and isinstance(infos[0]["constant"], float)
    assert update.cache_size() == 1


def test_learner_that_was_read_is_flattened_again(flattened: list[int]) -> None:
    update, batches = jit(_step, donate_argnums=0), _batches()
    learner = _learner()
    for k, batch in enumerate(batches):
        learner, _ = update(learner, batch)
        if k == 2:
            key = learner.rng.clone()
    assert len(flattened) == 2
    _close(learner, _expected(batches)[0])
    _close(key, _expected(batches[:3])[0].rng)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The number of runs of each call of ``_Plan.run_over_rows``."""
    counts: list[int] = []
    original = replay._Plan.run_over_rows

    def counted(self: Any, tensors: Any, rows: Any, times: int) -> Any:
        counts.append(times)
        return original(self, tensors, rows, times)

    monkeypatch.setattr(replay._Plan, "run_over_rows", counted)
    with set_native_matmul(True):  # torch's products are called from Python
        yield counts


def _stacked(batches: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([batch[name] for batch in batches]) for name in ("x", "y")}


def test_scan_runs_in_c(runs: list[int]) -> None:
    step, batches = jit(_step, donate_argnums=0), _batches() * 8  # more than the runs of one C call
    expected, infos = _expected(batches)
    for _ in range(2):
        learner, info = scan(step, _learner(), _stacked(batches))
        _close(learner, expected)
        _close(info["loss"], torch.stack([i["loss"] for i in infos]))
        assert torch.equal(info["constant"], torch.ones(len(batches)))
    assert runs == [len(batches) - 1] * 2
    learner, _ = step(learner, batches[0])  # the result can be an argument again
    _close(learner, _expected([*batches, batches[0]])[0])


def test_scan_of_noncontiguous_rows_runs_in_c(runs: list[int]) -> None:
    batches = _batches()
    strided = {k: v.mT.contiguous().mT for k, v in _stacked(batches).items()}
    assert not strided["x"][0].is_contiguous()
    _close(scan(jit(_step, donate_argnums=0), _learner(), strided)[0], _expected(batches)[0])
    assert runs == [len(batches) - 1]


def test_scan_that_returns_or_swaps_its_state_runs_step_by_step(runs: list[int]) -> None:
    def swap(carry: tuple[Tensor, Tensor], x: Tensor) -> Any:
        a, b = carry
        return (b, a), a + x

    def return_row(carry: Tensor, x: Tensor) -> Any:
        return carry + x, x

    pair, ys = scan(jit(swap, donate_argnums=0), (torch.zeros(()), torch.ones(())), X[0])
    assert [t.item() for t in pair] == [0, 1]
    torch.testing.assert_close(ys, X[0] + torch.tensor([0.0, 1, 0, 1]))
    last, ys = scan(jit(return_row, donate_argnums=0), torch.zeros(()), X[0])
    torch.testing.assert_close(last, X[0].sum())
    assert torch.equal(ys, X[0])
    assert runs == []


def test_scan_with_a_torch_operator_runs_step_by_step(runs: list[int]) -> None:
    def step(carry: Tensor, x: Tensor) -> Any:
        return torch.sort(carry + x)[0] * 2, carry.sum()

    results = [scan(f, Y[0].clone(), X[0]) for f in (step, jit(step, donate_argnums=0))]
    _close(*results)
    assert runs == []


def test_other_kinds_of_arguments_are_flattened(flattened: list[int]) -> None:
    update = jit(_step, donate_argnums=0, static_argnames="scale")
    few, many = _batches(), _batches(6)
    learner = _learner()
    for batch in (few[0], few[1], few[2], many[0], many[1]):
        learner, _ = update(learner, batch)
    assert len(flattened) == 2
    _close(learner, _expected([*few[:3], *many[:2]])[0])
    arrays = {k: np.asarray(v) for k, v in few[0].items()}
    learner, _ = update(update(learner, few[0])[0], arrays)
    assert len(flattened) == 4
    strided = {"x": few[0]["x"].mT.contiguous().mT, "y": few[0]["y"]}
    learner, _ = update(update(learner, few[0])[0], strided)
    assert len(flattened) == 5
    _close(learner, _expected([*few[:3], *many[:2], *few[:1] * 4])[0])
    with pytest.raises(KeyError):
        update(learner, {"x": few[0]["x"]})
    learner, info = update(update(_learner(), few[0])[0], few[1])
    _, scaled = update(update(_learner(), few[0])[0], few[1], scale=2.0)
    torch.testing.assert_close(scaled["loss"], 4 * info["loss"])


def test_donated_learner_of_a_loop_raises() -> None:
    update, batches = jit(_step, donate_argnums=0), _batches()
    first, _ = update(_learner(), batches[0])
    second, _ = update(first, batches[1])
    third, _ = update(second, batches[2])
    for old in (first, second):
        with pytest.raises(RuntimeError, match="was donated"):
            update(old, batches[0])
        with pytest.raises(RuntimeError, match="was donated"):
            _ = old.rng + 1
    assert third.rng.shape == (2,)


def test_alternating_static_arguments_flatten_once_each(flattened: list[int]) -> None:
    update = jit(_step, donate_argnums=0, static_argnames="scale")
    batches = _batches()
    learner, infos = _learner(), []
    for k, batch in enumerate([*batches, *batches]):
        learner, info = update(learner, batch, scale=1.0 + k % 2)
        infos.append(info)
        assert peek(learner, "weights", "step").item() == k + 1
    assert len(flattened) == 2
    expected = _learner()
    for k, (batch, found) in enumerate(zip([*batches, *batches], infos, strict=True)):
        with disable_jit():
            expected, info = _step(expected, batch, scale=1.0 + k % 2)
        _close(found, info)
    _close(learner, expected)
