"""Replace torch's matrix products in a graph by the library's own, fused with their neighbours.

A dense layer is a product, a bias and perhaps ``max(x, 0)``; its gradient is two products, a gate
(the mask of the activation's derivative) and a sum. Each of these operations passes over memory
once more. :func:`use_native_matmul` finds them in any traced graph and replaces each group by one
operator.
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

_aten = torch.ops.aten
_PRODUCTS = (_aten.mm.default, _aten.bmm.default)
_LARGE = 1 << 19
"""Elements of a transposed right factor above which torch's product is faster."""


def use_native_matmul(graph: GraphModule) -> bool:
    """Replace the float32 products of a CPU graph in place; return whether there was one.

    The graph can't be differentiated afterwards. A product stays torch's if its shapes are
    symbolic, if a factor is not contiguous by rows or by columns, or if its right factor is large
    and transposed.
    """
    if not any(node.target in _PRODUCTS for node in graph.graph.nodes) or not available():
        return False
    _register_lowering()
    order = {node: k for k, node in enumerate(graph.graph.nodes)}
    writing = [k for node, k in order.items() if writes(node)]
    replaced = False
    for node in [n for n in graph.graph.nodes if n.target in _PRODUCTS]:
        product = _Product.of(node)
        if product is None:
            continue
        product.fuse_following(order, writing)
        product.fuse_sums(order, writing)
        product.insert(order)
        replaced = True
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return replaced


@functools.cache
def _register_lowering() -> None:
    """Register a lowering: Inductor allocates the result and calls the product with its memory."""
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
    """A factor of a product, as a contiguous tensor that may have to be transposed."""

    node: Node
    transposed: bool
    shape: tuple[int, ...]

    @staticmethod
    def of(node: Node) -> _Factor | None:
        """The contiguous tensor behind ``node``, a matrix ``[R, C]`` or a batch ``[G, R, C]``.

        None if there is no such tensor.
        """
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
        for source in _bases(node):
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
    """A product of a graph and the operations that are fused with it."""

    node: Node
    end: Node
    """The node whose value the fused operator computes: the product or a later node."""
    a: _Factor
    b: _Factor
    bias: Node | None = None
    relu: bool = False
    gate: Node | None = None
    sums: Node | None = None

    @staticmethod
    def of(node: Node) -> _Product | None:
        """The product of a node, or None if it stays torch's."""
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
        if b.transposed and math.prod(b.shape[-2:]) > _LARGE:
            return None
        return _Product(node, node, a, b)

    @property
    def sizes(self) -> tuple[int, int, int]:
        """``G, M, N``."""
        shape = self.node.meta["val"].shape
        return (1, *shape) if len(shape) == 2 else tuple(shape)

    def fuse_following(self, order: dict[Node, int], writing: list[int]) -> None:
        """Fuse a following bias, ``relu`` and gate if no other node reads their inputs."""
        while True:
            user = _only_user(self.end)
            if (
                user is None
                or not _is_contiguous(user, self.node.meta["val"].numel())
                or _between(writing, order[self.node], order[user])
            ):
                return
            if user.target is _aten.add.Tensor and not (self.bias or self.relu or self.gate):
                other = next((n for n in user.args if n is not _argument_of(self.end, user)), None)
                if user.kwargs or not (bias := self._as_bias(other, user)):
                    return
                self.bias = bias
            elif user.target is _aten.relu.default and not (self.relu or self.gate):
                self.relu = True
            elif user.target is _aten.threshold_backward.default and not self.gate:
                _, gate, threshold = user.args
                if (
                    threshold != 0
                    or _argument_of(self.end, user) is not user.args[0]
                    or not isinstance(gate, Node)
                    or not _is_contiguous(gate, self.node.meta["val"].numel())
                ):
                    return
                self.gate = gate
            else:
                return
            self.end = user

    def _as_bias(self, other: Any, addition: Node) -> Node | None:
        """The node that is added if it is a bias: contiguous ``[N]`` or ``[G, N]``, else None."""
        batch, _, columns = self.sizes
        if not isinstance(other, Node):
            return None
        value, result = other.meta["val"], addition.meta["val"]
        shape = (1,) * (result.ndim - value.ndim) + tuple(value.shape)
        if value.dtype != torch.float32 or shape[-1] != columns or not value.is_contiguous():
            return None
        if math.prod(shape) == columns:
            return other
        # one bias for each member: the axis before the last must be that of the rows
        per_member = result.ndim >= 3 and result.shape[-2] == self.sizes[1] and shape[-2] == 1
        return other if per_member and math.prod(shape) == batch * columns else None

    def fuse_sums(self, order: dict[Node, int], writing: list[int]) -> None:
        """Fuse the sums of the right factor's columns if the graph computes them."""
        unfused = self.end is self.node and len(self.b.shape) == len(self.node.meta["val"].shape)
        if self.b.transposed or not unfused:
            return
        aliases = list(_aliases(self.b.node))
        for alias in aliases:
            for user in alias.users:
                if (
                    user.target is _aten.sum.dim_IntList
                    and _sums_rows(alias.meta["val"], user.args[1], self.b.shape)
                    and order[self.a.node] < order[user]
                    and not _between(writing, *sorted((order[user], order[self.node])))
                ):
                    self.sums = user
                    self.b.node = aliases[0]  # the others may come after the sums
                    return

    def insert(self, order: dict[Node, int]) -> None:
        """Insert the fused operator into the graph and use its result."""
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
    """Whether summing ``value`` over ``axes`` sums the rows of the factor of that ``shape``."""
    (*batch, _, columns), summed = shape, {axis % value.ndim for axis in axes}
    kept = [size for axis, size in enumerate(value.shape) if axis not in summed and size > 1]
    per_member = not batch or batch[0] == 1 or (value.shape[0] == batch[0] and 0 not in summed)
    return (
        value.shape[-1] == columns
        and value.ndim - 1 not in summed
        and value.is_contiguous()
        and per_member
        and kept == [size for size in (*batch, columns) if size > 1]
    )


# --- aliases of one value ----------------------------------------------------------------


def _bases(node: Node) -> Iterator[Node]:
    """The node, the node of which it is a view, and so on."""
    while True:
        yield node
        source = node.args[0] if node.op == "call_function" and node.args else None
        if not isinstance(source, Node) or not _is_view(node, source):
            return
        node = source


def _aliases(node: Node) -> Iterator[Node]:
    """All nodes that are views of the same elements in the same order."""
    while node.op == "call_function" and _reshapes(node):
        (node, *_) = node.args  # type: ignore[assignment]
    found = [node]
    for alias in found:
        yield alias
        found += [user for user in alias.users if user.args[0] is alias and _reshapes(user)]


def _argument_of(node: Node, user: Node) -> Node | None:
    """The argument of ``user`` that is ``node`` or a view of it."""
    for argument in user.all_input_nodes:
        if any(base is node for base in _bases(argument)):
            return argument
    return None


def _only_user(node: Node) -> Node | None:
    """The only node that reads a value, directly or through reshaping views."""
    while len(node.users) == 1:
        (user,) = node.users
        if not (user.op == "call_function" and _reshapes(user)):
            return user if user.op == "call_function" else None
        node = user
    return None


def _reshapes(node: Node) -> bool:
    """Whether a node is a view of all elements of its first argument in the same order."""
    source = node.args[0] if node.args else None
    if not isinstance(source, Node) or not _is_view(node, source):
        return False
    value, of = node.meta["val"], source.meta["val"]
    return value.is_contiguous() and of.is_contiguous() and value.numel() == of.numel()


def _is_view(node: Node, source: Node) -> bool:
    """Whether a node is a view of another one and does not write to it."""
    return not writes(node) and storage_number(node) == storage_number(source)


def _is_contiguous(node: Node, count: int) -> bool:
    """Whether the value is a contiguous float32 tensor of ``count`` elements."""
    value = node.meta.get("val")
    return (
        isinstance(value, Tensor)
        and value.is_contiguous()
        and value.numel() == count
        and value.dtype == torch.float32
    )


def _between(positions: list[int], start: int, stop: int) -> bool:
    return any(start < position < stop for position in positions)
