"""From a traced graph to machine code.

The graph goes straight to what ``torch.compile`` has behind its front end: AOTAutograd and
Inductor. The front end, Dynamo, reads Python bytecode, which a traced graph no longer needs: it
costs seconds at the first call and a check of every argument at each later one.
"""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import Any

import torch
from torch import SymInt, Tensor
from torch.fx import GraphModule

from idql_func.compiler import torch_internals
from idql_func.compiler.inductor_cache import checked_cache
from idql_func.compiler.pass_matmul import use_native_matmul
from idql_func.compiler.replay import Replayed
from idql_func.compiler.threads import COMPILE_LOCK
from idql_func.compiler.torch_internals import (
    ANALYSIS,
    DYNAMIC_ROWS,
    INDUCTOR,
    MATMUL,
    problem_of,
    turn_off,
)
from idql_func.compiler.trace import example_inputs
from idql_func.files.torch_cache import cache_folder
from idql_func.switches import native_matmul

CompiledGraph = Callable[..., Sequence[Tensor]]


def compile_graph(
    graph: GraphModule, tensors: Sequence[Tensor], dynamic_rows: bool = False
) -> CompiledGraph:
    """Compile a flat graph for tensors of these shapes, dtypes and devices.

    Args:
        graph: the graph; passes may change it.
        tensors: its inputs at the first call. If one requires a gradient (of ``torch.autograd``,
            not of :func:`idql_func.grad`), ``torch.compile`` takes the graph, since its programs
            can be differentiated.
        dynamic_rows: the graph was traced with inputs of any number of rows. The machine code in
            torch's cache then serves for every number; the program itself is for this one.
    """
    if any(t.requires_grad for t in tensors) or problem_of(ANALYSIS) or problem_of(INDUCTOR):
        return _plain(graph)
    plain = _copy(graph)
    attempts = {INDUCTOR: graph}
    if native_matmul() and problem_of(MATMUL) is None and use_native_matmul(graph):
        attempts = {MATMUL: graph, INDUCTOR: _copy(plain)}
    errors: dict[str, Exception] = {}
    for route, candidate in attempts.items():
        try:
            with checked_cache():
                run = Replayed(_straight_to_inductor(candidate, tensors, dynamic_rows))
        except Exception as error:  # of any kind: a torch that behaves otherwise
            errors[route] = error
        else:
            if MATMUL in errors:
                turn_off(MATMUL, errors[MATMUL])
            return run
    turn_off(INDUCTOR, errors[INDUCTOR])
    return _plain(plain)


def _plain(traced: GraphModule) -> CompiledGraph:
    graph = _copy(traced)  # with its Python code, which Dynamo reads
    compiled: CompiledGraph = torch.compile(graph, fullgraph=True, dynamic=False)
    cache: AbstractContextManager[None] = checked_cache()

    def run(*tensors: Tensor) -> Sequence[Tensor]:
        nonlocal compiled, cache
        # it compiles at its first call, and refuses any call while another thread traces
        with COMPILE_LOCK:
            checked, cache = cache, contextlib.nullcontext()  # the first call compiles
            try:
                with checked:
                    return compiled(*tensors)
            except Exception as error:  # a full or damaged cache, a broken compiler
                if compiled is graph:
                    raise
                compiled = graph
                results = graph(*tensors)
                text = " ".join(str(error).partition("Set TORCHDYNAMO_VERBOSE")[0].split())
                text = text[:200].rstrip(" .") or type(error).__name__
            warnings.warn(
                f"jit: a program could not be compiled ({text}); it runs eagerly, with the same "
                "numbers but more slowly. Make room in the folder for temporary files (TMPDIR) and "
                f"in torch's cache ({cache_folder()}), or remove the cache.",
                RuntimeWarning,
                stacklevel=2,
            )
            return results

    return run


def _straight_to_inductor(
    graph: GraphModule, tensors: Sequence[Tensor], dynamic_rows: bool
) -> CompiledGraph:
    standalone_compile: Any = torch_internals.standalone_compile()
    options = {"config_patches": torch_internals.inductor_settings()}
    tracing = torch_internals.tracing_context() if dynamic_rows else None
    if tracing is not None and problem_of(DYNAMIC_ROWS) is None:
        return _compile_with_dynamic_rows(graph, standalone_compile, tracing, options)
    # new tensors: memory that two arguments of this call share is not part of the program
    return standalone_compile(
        graph, example_inputs(tensors), dynamic_shapes="from_example_inputs", options=options
    )


def _compile_with_dynamic_rows(
    graph: GraphModule, standalone_compile: Any, tracing: Any, options: dict[str, Any]
) -> CompiledGraph:
    """Compile a graph whose inputs have a symbolic number of rows.

    Each symbolic length becomes an argument of the graph, as in Dynamo's graphs: the code that
    Inductor writes defines a symbol only if it is an argument. The fake values of the graph are
    the example inputs, so that no other size becomes symbolic.
    """
    nodes = [node for node in graph.graph.nodes if node.op == "placeholder"]
    fakes = [node.meta["val"] for node in nodes]
    dynamic = [k for k, fake in enumerate(fakes) if isinstance(next(iter(fake.shape), 0), SymInt)]
    lengths = [fakes[k].shape[0] for k in dynamic]
    with graph.graph.inserting_before(nodes[0]):
        for k, length in zip(dynamic, lengths, strict=True):
            graph.graph.placeholder(f"length_{k}").meta["val"] = length
    graph.recompile()
    with tracing(fakes[0]):
        compiled = standalone_compile(
            graph, [*lengths, *fakes], dynamic_shapes="from_tracing_context", options=options
        )

    def run(*tensors: Tensor) -> Sequence[Tensor]:
        return compiled(*[tensors[k].shape[0] for k in dynamic], *tensors)

    return run


def _copy(graph: GraphModule) -> GraphModule:
    """A graph of the same nodes; its Python code is written at once."""
    nodes = torch.fx.Graph()
    nodes.output(nodes.graph_copy(graph.graph, {}))
    return GraphModule(graph, nodes)


_GRAPHS_ONLY: ContextVar[bool] = ContextVar("idql_func_graphs_only", default=False)


@contextlib.contextmanager
def without_code_generation() -> Iterator[None]:
    """Context in which jitted functions are traced, and their graphs run without machine code.

    For tests of many small programs: tracing takes milliseconds, compiling takes seconds.
    """
    token = _GRAPHS_ONLY.set(True)
    try:
        yield
    finally:
        _GRAPHS_ONLY.reset(token)


def generates_code() -> bool:
    """Whether jitted functions are compiled to machine code.

    >>> with without_code_generation():
    ...     generates_code()
    False
    """
    return not _GRAPHS_ONLY.get()


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
    if torch_internals.cpp_compiler() is None:
        return (
            "torch.compile found no C++ compiler: install g++ or clang++ "
            "(or name one in the environment variable CXX)."
        )
    return None
