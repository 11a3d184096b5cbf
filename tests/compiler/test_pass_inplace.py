"""Results written to the memory of inputs: which ones, and that no value changes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from idql_func import optim, vmap
from idql_func.compiler.inductor import compile_graph
from idql_func.compiler.pass_inplace import output_buffers, use_inplace_ops
from idql_func.compiler.trace import trace
from idql_func.kernels import tree_ops

pytestmark = pytest.mark.skipif(
    not tree_ops.supports([torch.zeros(1)]),
    reason="no C compiler",
)
ZERO = torch.tensor(0, dtype=torch.int32)


def stepped(g: Tensor, p: Tensor, m: Tensor, v: Tensor, count: Tensor) -> tuple[Tensor, ...]:
    state = (optim.ScaleByAdamState(count, {"w": m}, {"w": v}), optim.EmptyState())
    params, (adam, _) = optim.step(optim.adam(0.1), {"w": g}, state, {"w": p})
    return params["w"], adam.mu["w"], adam.nu["w"], adam.count


def averaged(new: Tensor, old: Tensor) -> Tensor:
    return optim.incremental_update({"w": new}, {"w": old}, 0.25)["w"]


def inputs(shape: tuple[int, ...] = (3,), members: tuple[int, ...] = ()) -> list[Tensor]:
    """``x``, parameters, two moments, a count, a target."""
    generator = torch.Generator().manual_seed(0)
    x, p, m, v, t = (torch.rand(*members, *shape, generator=generator) for _ in range(5))
    return [x, p, m, v, ZERO.expand(members).clone(), t]


def written(fn: Callable[..., tuple[Tensor, ...]], tensors: list[Tensor]) -> tuple[int, list[int]]:
    """The number of in-place operators in the graph of ``fn``, and the results left to be copied.

    Asserts that every value is that of ``fn``.
    """
    expected = fn(*[t.clone() for t in tensors])
    graph = trace(fn, tensors)
    pairs = output_buffers(graph)
    left = use_inplace_ops(graph, pairs)
    count = sum(
        node.target in [form for form, _ in tree_ops.INPLACE_FORMS.values()]
        for node in graph.graph.nodes
    )
    given = [t.clone() for t in tensors]
    for k, (got, value) in enumerate(zip(graph(*given), expected, strict=True)):
        assert torch.equal(got, value)
        if k in pairs and k not in left:
            assert torch.equal(given[pairs[k]], value)
    return count, sorted(left)


def test_step_and_average_are_written_in_place() -> None:
    def update(x, p, m, v, count, target):
        new, *moments = stepped(x * p, p, m, v, count)
        return (new, *moments, averaged(new, target), x.mean())

    assert output_buffers(trace(update, inputs())) == {0: 1, 1: 2, 2: 3, 3: 4, 4: 5}
    assert written(update, inputs()) == (2, [])


def test_two_steps_in_a_row_are_written_in_place() -> None:
    def update(x, p, m, v, count, target):
        state = stepped(x, p, m, v, count)
        return stepped(x * state[0], *state)

    assert written(update, inputs()) == (2, [])


def test_old_values_read_later_are_not_overwritten() -> None:
    def update(x, p, m, v, count, target):
        view = p.reshape(1, 3)
        new = stepped(x, p, m, v, count)
        return (*new, (view + new[0]).sum())  # through a view, after the step

    assert written(update, inputs()) == (0, [0, 1, 2, 3])


def test_average_of_a_buffer_with_its_alias_is_not_written_in_place() -> None:
    def update(x, p, m, v, count, target):
        return (averaged(p.reshape(3), p),)

    assert written(update, inputs()) == (0, [0])


def test_results_for_other_buffers_are_copied() -> None:
    def update(x, p, m, v, count, target):
        return stepped(x, p, m, v, count)

    graph = trace(update, inputs())
    crossed = {0: 2, 1: 1, 2: 3, 3: 4}
    assert use_inplace_ops(graph, crossed) == crossed
    graph = trace(update, inputs())
    assert use_inplace_ops(graph, {0: 1}) == {0: 1}  # the moments are not donated


def test_result_returned_twice_is_not_written_in_place() -> None:
    def update(x, p, m, v, count, target):
        new = averaged(x, target)
        return new, new.reshape(1, 3)

    assert output_buffers(trace(update, inputs())) == {0: 5}
    assert written(update, inputs()) == (0, [0])


def test_old_values_that_are_results_are_not_overwritten() -> None:
    def update(x, p, m, v, count, target):
        return averaged(x, target), target * 1, target.reshape(3, 1)

    assert written(update, inputs()) == (0, [0])


def test_members_of_a_stack_are_written_in_place() -> None:
    def update(x, p, m, v, count, target):
        new, *moments = stepped(x * p, p, m, v, count)
        return (new, *moments, averaged(new, target))

    assert written(vmap(update), inputs(members=(4,))) == (2, [])


def test_inplace_forms_write_to_other_strides() -> None:
    g, p, m, v, t = torch.rand(5, 4, 3).unbind(0)
    expected, count = stepped(g, p, m, v, ZERO), ZERO.clone()
    turned = [x.T.contiguous().T for x in (p, m, v)]
    numbers = -0.1, 0.9, 0.999, 1e-8, 0.0, [False], False
    torch.ops.idql_func.adam_step_([g], *([x] for x in turned), count, None, *numbers)
    for got, value in zip((*turned, count), expected, strict=True):
        assert torch.equal(got, value)
    target = t.T.contiguous().T
    torch.ops.idql_func.moving_average_([g], [target], None, 0.25)
    assert torch.equal(target, averaged(g, t))


def test_graph_of_an_inplace_form_is_deterministic() -> None:
    """The nodes that an in-place form runs after are in the order of the graph."""

    def update(x, p, m, v, count, target):
        read = [p * float(k) for k in range(20)]
        return (*stepped(x, p, m, v, count), *read)

    graph = trace(update, inputs())
    use_inplace_ops(graph, output_buffers(graph))
    nodes = list(graph.graph.nodes)
    [readers] = [node.kwargs["run_after"] for node in nodes if "run_after" in node.kwargs]
    assert len(readers) == 20
    assert readers == sorted(readers, key=nodes.index)


def test_compiled_graph_writes_in_place() -> None:
    def update(x, p, m, v, count, target):
        mean = (x + p).mean()
        new, *moments = stepped(x * p, p, m, v, count)
        return (new, *moments, averaged(new, target), mean)

    given = inputs()
    expected = update(*[t.clone() for t in given])
    graph = trace(update, given)
    assert use_inplace_ops(graph, output_buffers(graph)) == {}
    results = compile_graph(graph, given)(*given)
    for got, value in zip(results, expected, strict=True):
        torch.testing.assert_close(got, value, rtol=1e-6, atol=0)
    for k in range(5):
        assert torch.equal(given[k + 1], results[k])
