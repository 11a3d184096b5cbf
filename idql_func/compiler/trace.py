"""From a Python function of tensors to a compiled program: trace, compile, replay.

A function is traced once into one flat graph (``make_fx``), which goes straight to what
``torch.compile`` has behind its front end: AOTAutograd and Inductor. The front end, Dynamo,
would read Python that is not there any more: it costs seconds at the first call and a check of
every argument at each later one.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.node import map_arg

from idql_func.compiler import torch_internals
from idql_func.compiler.fx_utils import storage_number, writes
from idql_func.compiler.pass_matmul import use_own_products
from idql_func.compiler.replay import Replayed
from idql_func.switches import native_products

Program = Callable[..., Sequence[Tensor]]

_TRACING: ContextVar[bool] = ContextVar("idql_func_tracing", default=False)


def tracing() -> bool:
    """Whether :func:`trace` is at work."""
    return _TRACING.get()


def trace(fn: Callable[..., Any], tensors: Sequence[Tensor]) -> torch.fx.GraphModule:
    """The graph of operations that ``fn`` does on such tensors."""
    token = _TRACING.set(True)
    try:
        graph = make_fx(fn, tracing_mode="fake", _allow_non_fake_inputs=True)(*tensors)
    finally:
        _TRACING.reset(token)
    # What is computed twice from the same values is computed once, unless something is written in
    # place, where two equal copies are two places.
    _write_elsewhere(graph)
    if not any(writes(node) for node in graph.graph.nodes):
        from torch._functorch.compile_utils import fx_graph_cse  # brings sympy, half a second

        graph.graph = fx_graph_cse(graph.graph)
        _look_again(graph)
    return graph


def _look_again(graph: torch.fx.GraphModule) -> None:
    """Note anew what each node makes: views of a value that was merged away are another's now."""
    from torch._subclasses.fake_tensor import FakeTensor
    from torch.fx.passes.fake_tensor_prop import FakeTensorProp

    values = [node.meta["val"] for node in graph.graph.nodes if node.op == "placeholder"]
    mode = next((value.fake_mode for value in values if isinstance(value, FakeTensor)), None)
    if mode is not None:
        FakeTensorProp(graph, mode).propagate_dont_convert_inputs(*values)


def _write_elsewhere(graph: torch.fx.GraphModule) -> None:
    """Let operators that write over an intermediate result make a new one, where none sees it.

    Some of torch's derivatives do so, that of ``clamp`` for one.
    """
    names = Counter(map(storage_number, graph.graph.nodes))
    later: dict[torch.fx.Node, torch.fx.Node] = {}
    for node in graph.graph.nodes:
        node.args = map_arg(node.args, lambda n: later.get(n, n))
        node.kwargs = map_arg(node.kwargs, lambda n: later.get(n, n))
        pure = _without_writing(node) if writes(node) else None
        if pure is None:
            continue
        (written, *_) = node.args
        # the two names of the one place that is written: the argument's and the result's
        if written.op == "call_function" and names[storage_number(written)] == 2:
            node.target = pure
            later[written] = node
    graph.recompile()


def _without_writing(node: torch.fx.Node) -> torch._ops.OpOverload | None:
    """The operator that does the same as ``name_`` does to its first argument, but to a copy."""
    target = node.target
    assert isinstance(target, torch._ops.OpOverload)
    first, *others = target._schema.arguments
    written = [argument for argument in others if argument.alias_info is not None]
    namespace, name = target._schema.name.split("::")
    packet = getattr(getattr(torch.ops, namespace), name.removesuffix("_"), None)
    if written or first.alias_info is None or not name.endswith("_") or packet is None:
        return None
    return getattr(packet, target._overloadname, None)


def examples(tensors: Sequence[Tensor], open_rows: Collection[int] = ()) -> list[Any]:
    """Tensors like these to trace a function with; the first axis of some may be of any length."""
    if not open_rows:
        return [torch.empty_like(t) for t in tensors]
    # not at the top: it brings sympy with it, which takes half a second
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.symbolic_shapes import (
        DimDynamic,
        ShapeEnv,
        StatelessSymbolicContext,
    )

    mode = FakeTensorMode(
        shape_env=ShapeEnv(assume_static_by_default=True, duck_shape=False),
        allow_non_fake_inputs=True,
    )
    fakes = []
    for k, tensor in enumerate(tensors):
        sizes = [DimDynamic.STATIC] * tensor.ndim
        if k in open_rows and tensor.ndim:
            sizes[0] = DimDynamic.DYNAMIC
        fakes.append(
            mode.from_tensor(
                tensor.detach(), symbolic_context=StatelessSymbolicContext(dynamic_sizes=sizes)
            )
        )
    return fakes


def compile_graph(
    graph: torch.fx.GraphModule, tensors: Sequence[Tensor], open_rows: bool = False
) -> Program:
    """Machine code for a flat graph on tensors of these shapes, dtypes and devices.

    With ``open_rows`` the graph was traced with such, and the code that torch keeps serves again
    where they are longer or shorter.

    Where one of them asks for a gradient (torch's own, not :func:`idql_func.grad`), the whole
    of ``torch.compile`` is taken, whose programs can be differentiated.
    """
    try:
        from torch._inductor import standalone_compile
    except ImportError:
        standalone_compile = None
    if standalone_compile is None or any(t.requires_grad for t in tensors):
        return torch.compile(graph, fullgraph=True, dynamic=False)
    if native_products():
        use_own_products(graph)
    options = {"config_patches": torch_internals.settings()}
    if open_rows:  # of any length in the machine code, of one in a program and its recording
        return Replayed(
            standalone_compile(graph, list(tensors), dynamic_shapes="from_graph", options=options)
        )
    # examples of their own: memory that two arguments happen to share is not part of the program
    return Replayed(
        standalone_compile(
            graph, examples(tensors), dynamic_shapes="from_example_inputs", options=options
        )
    )


@functools.cache
def compiler_problem(device: torch.device) -> str | None:
    """One sentence on why ``torch.compile`` can't work for the device, or None if it can.

    >>> compiler_problem(torch.device("meta"))
    "torch.compile has no compiler for the device 'meta'."
    """
    if device.type == "cuda":
        return None
    if device.type != "cpu":
        return f"torch.compile has no compiler for the device '{device}'."
    from torch._inductor import cpp_builder, exc

    try:
        cpp_builder.get_cpp_compiler()
    except exc.InvalidCxxCompiler:
        return (
            "torch.compile found no C++ compiler: install g++ or clang++ "
            "(or name one in the environment variable CXX)."
        )
    return None


class CudaGraph:
    """A program recorded once and replayed by one launch (``torch.cuda.CUDAGraph``).

    An input is read where it lies: donated state and a dataset stay there. One that is seen to
    move, such as a batch, gets memory of its own, into which it is copied before each replay.
    Outputs are copied out, since the next replay overwrites them.
    """

    def __init__(self, program: Program, donated: set[int]) -> None:
        self._program = program
        self._donated = donated
        self._moving: set[int] = set()
        self._inputs: list[Tensor] = []
        self._outputs: tuple[Tensor, ...] = ()
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, *tensors: Tensor) -> Sequence[Tensor]:
        elsewhere = {
            k for k, own in enumerate(self._inputs) if own.data_ptr() != tensors[k].data_ptr()
        }
        if self._graph is None or elsewhere - self._moving:
            self._moving |= elsewhere - self._donated
            self._record(tensors)
        for k in elsewhere & self._moving:
            self._inputs[k].copy_(tensors[k])
        assert self._graph is not None
        self._graph.replay()
        return [output.clone() for output in self._outputs]

    def _record(self, tensors: Sequence[Tensor]) -> None:
        # warm up on copies: a recording must not be the first run, and a run changes its state
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            self._program(*(t.clone() for t in tensors))
        torch.cuda.current_stream().wait_stream(stream)
        # objects of its own: a caller's are refused once they are donated
        self._inputs = [
            t.clone() if k in self._moving else t.detach() for k, t in enumerate(tensors)
        ]
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._outputs = tuple(self._program(*self._inputs))
