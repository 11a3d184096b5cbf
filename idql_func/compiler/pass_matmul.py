"""Torch's matrix products in a graph become the library's own, with what surrounds them.

A dense layer is a product, a bias and perhaps ``max(x, 0)``; its gradient two products, a gate and
a sum. Between each two of these a graph passes over memory. :func:`use_native_matmul` finds them in
a traced graph, whatever function it was traced from, and makes each group one operator.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from idql_func.compiler import torch_internals
from idql_func.compiler.fx_utils import storage_number, writes
from idql_func.kernels.matmul import (
    KERNEL_NAME,
    available,
    fused_matmul,
    fused_matmul_into,
    fused_matmul_layout,
    fused_matmul_shape,
)

__all__ = ["use_native_matmul"]

_aten = torch.ops.aten
_PRODUCTS = (_aten.mm.default, _aten.bmm.default)
_FAR = 1 << 19
"""Elements of a transposed right factor beyond which a library's packing is the better one."""


def use_native_matmul(graph: GraphModule) -> bool:
    """Replace the float32 products of a graph for the CPU, in place; whether there was one.

    It has no gradients to be taken any more. One whose shapes are not known, or whose factors lie
    in memory in another way than by rows or columns, stays torch's; so does one of a large
    transposed factor.
    """
    if not any(node.target in _PRODUCTS for node in graph.graph.nodes) or not available():
        return False
    _register_lowering()
    order = {node: k for k, node in enumerate(graph.graph.nodes)}
    written = [k for node, k in order.items() if writes(node)]
    replaced = False
    for node in [n for n in graph.graph.nodes if n.target in _PRODUCTS]:
        found = _Product.of(node)
        if found is None:
            continue
        found.take_in_what_follows(order, written)
        found.take_in_sums(order, written)
        found.put(order)
        replaced = True
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return replaced


@functools.cache
def _register_lowering() -> None:
    """Let Inductor call the product by its address, into memory that Inductor plans."""
    inductor = torch_internals.lowering()
    assert inductor is not None
    setattr(inductor.kernels, KERNEL_NAME, fused_matmul_into)

    class Shape:
        def __init__(self, node: Any) -> None:
            self.shape: Sequence[int] = [int(size) for size in node.get_size()]

    @inductor.register(fused_matmul, type_promotion_kind=None)
    def lower(
        a: Any, b: Any, a_transposed: bool, b_transposed: bool, bias: Any, relu: bool, gate: Any,
        sums: bool,
    ) -> Any:  # fmt: skip
        shapes = [None if node is None else Shape(node) for node in (a, b, bias, gate)]
        layout = fused_matmul_layout(
            shapes[0], shapes[1], a_transposed, b_transposed, shapes[2], relu, shapes[3], sums
        )
        size = fused_matmul_shape(shapes[0], shapes[1], a_transposed, b_transposed, sums)
        inputs = [inductor.contiguous_memory(x) for x in (a, b, bias, gate) if x is not None]
        return inductor.call(KERNEL_NAME, fused_matmul, a, size, inputs, layout)


@dataclass
class _Factor:
    """A contiguous tensor of the graph, and what a product makes of it."""

    node: Node
    transposed: bool
    shape: tuple[int, ...]

    @staticmethod
    def of(node: Node) -> _Factor | None:
        """The memory behind ``node``, a matrix ``[R, C]`` or several ``[G, R, C]``."""
        value: Tensor = node.meta["val"]
        rows, columns = value.shape[-2:]
        down, right = value.stride()[-2:]
        if (columns == 1 or right == 1) and (rows == 1 or down == columns):
            shape, transposed = (rows, columns), False
        elif (rows == 1 or down == 1) and (columns == 1 or right == rows):
            shape, transposed = (columns, rows), True
        else:
            return None
        if value.ndim == 3 and value.stride(0) == rows * columns:
            shape = (value.shape[0], *shape)
        elif value.ndim == 3 and value.stride(0) != 0:
            return None
        for source in _names(node):
            found: Tensor = source.meta["val"]
            if (
                found.dtype == value.dtype
                and found.is_contiguous()
                and found.numel() == math.prod(shape)
                and found.storage_offset() == value.storage_offset()
            ):
                return _Factor(source, transposed, shape)
        return None


@dataclass
class _Product:
    """A product of a graph with what was found to belong to it."""

    node: Node
    end: Node
    """The node whose value it computes: the product's own or a later one."""
    a: _Factor
    b: _Factor
    bias: Node | None = None
    relu: bool = False
    gate: Node | None = None
    sums: Node | None = None

    @staticmethod
    def of(node: Node) -> _Product | None:
        left, right = node.args
        values = [n.meta.get("val") if isinstance(n, Node) else None for n in (left, right, node)]
        for value in values:
            if not (
                isinstance(value, Tensor)
                and value.dtype == torch.float32
                and value.device.type == "cpu"
                and all(isinstance(size, int) and size > 0 for size in value.shape)
            ):
                return None
        assert isinstance(left, Node) and isinstance(right, Node)
        a, b = _Factor.of(left), _Factor.of(right)
        if a is None or b is None or max(len(a.shape), len(b.shape)) < len(node.meta["val"].shape):
            return None
        if b.transposed and math.prod(b.shape[-2:]) > _FAR:
            return None
        return _Product(node, node, a, b)

    @property
    def sizes(self) -> tuple[int, int, int]:
        """``G, M, N``."""
        shape = self.node.meta["val"].shape
        return (1, *shape) if len(shape) == 2 else tuple(shape)

    def take_in_what_follows(self, order: dict[Node, int], written: list[int]) -> None:
        """A bias, ``relu`` and its derivative, if nothing else sees what lies between."""
        while True:
            user = _only_user(self.end)
            if (
                user is None
                or not _by_rows(user, self.node.meta["val"].numel())
                or _between(written, order[self.node], order[user])
            ):
                return
            if user.target is _aten.add.Tensor and not (self.bias or self.relu or self.gate):
                other = next((n for n in user.args if n is not _last_name(self.end, user)), None)
                if user.kwargs or not (bias := self._as_bias(other, user)):
                    return
                self.bias = bias
            elif user.target is _aten.relu.default and not (self.relu or self.gate):
                self.relu = True
            elif user.target is _aten.threshold_backward.default and not self.gate:
                _, gate, threshold = user.args
                if (
                    threshold != 0
                    or _last_name(self.end, user) is not user.args[0]
                    or not isinstance(gate, Node)
                    or not _by_rows(gate, self.node.meta["val"].numel())
                ):
                    return
                self.gate = gate
            else:
                return
            self.end = user

    def _as_bias(self, other: Any, addition: Node) -> Node | None:
        """The contiguous ``[N]`` or ``[G, N]`` behind what is added to each row, if that it is."""
        batch, _, columns = self.sizes
        if not isinstance(other, Node):
            return None
        value, result = other.meta["val"], addition.meta["val"]
        shape = (1,) * (result.ndim - value.ndim) + tuple(value.shape)
        if value.dtype != torch.float32 or shape[-1] != columns or not value.is_contiguous():
            return None
        if math.prod(shape) == columns:
            return other
        # one for each of the batch: the rows' axis is the one before the last
        alone = result.ndim >= 3 and result.shape[-2] == self.sizes[1] and shape[-2] == 1
        return other if alone and math.prod(shape) == batch * columns else None

    def take_in_sums(self, order: dict[Node, int], written: list[int]) -> None:
        """The sums of the right factor's columns, if the graph takes them as well."""
        alone = self.end is self.node and len(self.b.shape) == len(self.node.meta["val"].shape)
        if self.b.transposed or not alone:
            return
        names = list(_all_names(self.b.node))
        for name in names:
            for user in name.users:
                if (
                    user.target is _aten.sum.dim_IntList
                    and _sums_rows(name.meta["val"], user.args[1], self.b.shape)
                    and order[self.a.node] < order[user]
                    and not _between(written, *sorted((order[user], order[self.node])))
                ):
                    self.sums = user
                    self.b.node = names[0]  # the others may come after the sums
                    return

    def put(self, order: dict[Node, int]) -> None:
        """Write the operator into the graph."""
        graph, value = self.node.graph, self.end.meta["val"]
        batch, rows, columns = self.sizes
        first = min((n for n in (self.end, self.sums) if n), key=order.__getitem__)
        with graph.inserting_before(first):
            a, b = (_shaped(graph, f.node, f.shape) for f in (self.a, self.b))
            bias, gate = self.bias, self.gate
            if bias is not None:
                shared = bias.meta["val"].numel() == columns and batch > 1
                one = (columns,) if shared or len(self.node.meta["val"].shape) == 2 else None
                bias = _shaped(graph, bias, one or (batch, columns))
            if gate is not None:
                gate = _shaped(graph, gate, tuple(self.node.meta["val"].shape))
            arguments = (
                a, b, self.a.transposed, self.b.transposed, bias, self.relu, gate, bool(self.sums)
            )  # fmt: skip
            made = graph.call_function(fused_matmul, arguments)
            if self.sums is None:
                made.meta["val"] = value
                result = _shaped(
                    graph, made, tuple(value.shape), tuple(self.node.meta["val"].shape)
                )
            else:
                length = batch * rows * columns
                made.meta["val"] = value.new_empty(length + batch * columns)
                result = _slice(graph, made, 0, length, value)
                total = _slice(graph, made, length, length + batch * columns, self.sums.meta["val"])
                order[total] = order[first]
                self.sums.replace_all_uses_with(total)
        order[made] = order[result] = order[first]
        self.end.replace_all_uses_with(result)


def _shaped(
    graph: torch.fx.Graph, node: Node, shape: tuple[int, ...], has: tuple[int, ...] | None = None
) -> Node:
    value = node.meta["val"]
    if tuple(has or value.shape) == tuple(shape):
        return node
    view = graph.call_function(_aten.view.default, (node, list(shape)))
    view.meta["val"] = value if has else value.view(shape)
    return view


def _slice(graph: torch.fx.Graph, flat: Node, start: int, stop: int, like: Tensor) -> Node:
    part = graph.call_function(_aten.slice.Tensor, (flat, 0, start, stop))
    part.meta["val"] = flat.meta["val"][start:stop]
    return _shaped(graph, part, tuple(like.shape))


def _sums_rows(value: Tensor, axes: Any, shape: tuple[int, ...]) -> bool:
    """Whether a sum over ``axes`` of something that lies like ``shape`` is one of its rows."""
    (*batch, _, columns), summed = shape, {axis % value.ndim for axis in axes}
    kept = [size for axis, size in enumerate(value.shape) if axis not in summed and size > 1]
    of_each = not batch or batch[0] == 1 or (value.shape[0] == batch[0] and 0 not in summed)
    return (
        value.shape[-1] == columns
        and value.ndim - 1 not in summed
        and value.is_contiguous()
        and of_each
        and kept == [size for size in (*batch, columns) if size > 1]
    )


# --- names of one value ------------------------------------------------------------------


def _names(node: Node) -> Iterator[Node]:
    """The node, what it is a view of, what that is a view of, and so on."""
    while True:
        yield node
        source = node.args[0] if node.op == "call_function" and node.args else None
        if not isinstance(source, Node) or not _share(node, source):
            return
        node = source


def _all_names(node: Node) -> Iterator[Node]:
    """All nodes that show the elements of one in the same order."""
    while node.op == "call_function" and _renames(node):
        (node, *_) = node.args  # type: ignore[assignment]
    found = [node]
    for name in found:
        yield name
        found += [user for user in name.users if user.args[0] is name and _renames(user)]


def _last_name(node: Node, user: Node) -> Node | None:
    """The argument of ``user`` that is ``node`` or a view of it."""
    for argument in user.all_input_nodes:
        if any(name is node for name in _names(argument)):
            return argument
    return None


def _only_user(node: Node) -> Node | None:
    """The one node that reads a value, by whatever name."""
    while len(node.users) == 1:
        (user,) = node.users
        if not (user.op == "call_function" and _renames(user)):
            return user if user.op == "call_function" else None
        node = user
    return None


def _renames(node: Node) -> bool:
    """Whether a node shows all elements of its first argument in the same order, as a view."""
    source = node.args[0] if node.args else None
    if not isinstance(source, Node) or not _share(node, source):
        return False
    value, of = node.meta["val"], source.meta["val"]
    return value.is_contiguous() and of.is_contiguous() and value.numel() == of.numel()


def _share(node: Node, source: Node) -> bool:
    """Whether a node is a view of another, which nothing was written to in between."""
    return not writes(node) and storage_number(node) == storage_number(source)


def _by_rows(node: Node, count: int) -> bool:
    value = node.meta.get("val")
    return (
        isinstance(value, Tensor)
        and value.is_contiguous()
        and value.numel() == count
        and value.dtype == torch.float32
    )


def _between(places: list[int], start: int, stop: int) -> bool:
    return any(start < place < stop for place in places)
