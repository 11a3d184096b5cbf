"""From a traced graph to machine code.

The graph goes straight to what ``torch.compile`` has behind its front end: AOTAutograd and
Inductor. The front end, Dynamo, reads Python bytecode, which a traced graph no longer needs: it
costs seconds at the first call and a check of every argument at each later one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from idql_func.compiler import torch_internals
from idql_func.compiler.pass_matmul import use_native_matmul
from idql_func.compiler.replay import Replayed
from idql_func.compiler.trace import examples
from idql_func.switches import native_matmul

__all__ = ["CompiledGraph", "compile_graph", "compiler_problem"]

CompiledGraph = Callable[..., Sequence[Tensor]]


def compile_graph(
    graph: torch.fx.GraphModule, tensors: Sequence[Tensor], open_rows: bool = False
) -> CompiledGraph:
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
    if native_matmul():
        use_native_matmul(graph)
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
