"""The private parts of torch that the library uses. No other file touches one.

Each part is an :class:`Internal`: a function that imports it and checks that it behaves as the
library expects. It runs once, at first use, so that an import of this file costs nothing. If the
part is missing or behaves otherwise, the *routes* that need it are off: the library takes a
slower way through torch's public functions, which gives the same numbers, and writes one INFO
line to the logger ``idql_func``. ``idql doctor`` lists the routes.

To use another private part: write a function here, with the decorator :func:`internal`, whose
docstring says what the library needs and what happens without it. The tests run the library
without each part in turn.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import inspect
import logging
import os
import platform
import shutil
import subprocess
import threading
import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

logger = logging.getLogger("idql_func")

TRACE = "tracing into one graph"
ANALYSIS = "graph analysis"
INDUCTOR = "graphs straight to Inductor"
FIRST_CALL = "quick check for vector instructions"
DYNAMIC_ROWS = "compiled code for any number of rows"
MATMUL = "own matmul in compiled programs"
REPLAY = "recording and replay"
MEMORY = "memory estimate for groups of seeds"
COPY_ON_WRITE = "copies on write of arguments"
SHARED = "check of results that members share"
WRITES = "check of writes inside other transforms"
DYNAMO = "jitted functions inside torch.compile"
GRAPH_CODE = "Python code of a graph at its first use"
SHAPES = "shapes without values"

FALLBACKS = {
    TRACE: "jitted functions run eagerly",
    ANALYSIS: "torch.compile takes each graph as it was traced",
    INDUCTOR: "torch.compile takes each graph",
    FIRST_CALL: "Inductor tests the C++ compiler itself, which takes seconds at the first call",
    DYNAMIC_ROWS: "a dataset of another length is compiled again",
    MATMUL: "torch multiplies matrices",
    REPLAY: "Inductor's Python code runs each compiled program",
    MEMORY: "a group of seeds starts without a check of its memory",
    COPY_ON_WRITE: "transforms that run eagerly copy their arguments",
    SHARED: "with out_axes None, vmap returns the first member's result",
    WRITES: "a function inside vmap may write into the arguments of a function around it",
    DYNAMO: "torch.compile leaves its graph at a jitted function",
    GRAPH_CODE: "torch writes the code again after each change of a graph",
    SHAPES: "eval_shape runs the function on zeros",
}
"""What the library does where a route is off."""

INTERNALS: dict[str, Internal[Any]] = {}
"""All private parts, by name."""

_SECONDS = 60
_SEARCH_LOCK = threading.RLock()  # a part is looked for once, in whichever thread needs it first
_off: dict[str, str] = {}


class Unexpected(Exception):
    """A private part of torch behaves otherwise than the library expects."""


class Internal(Generic[T]):
    """A private part of torch: call it to get the part, or None where it can't be used."""

    def __init__(self, find: Callable[[], T], routes: tuple[str, ...]) -> None:
        functools.update_wrapper(self, find)
        self.name = find.__name__
        self.routes = routes
        self.find = find
        self.found: tuple[T | None, str | None] | None = None
        """The part and the problem with it, one of which is None; None before the first use."""

    def __call__(self) -> T | None:
        """The part, or None if it is missing or behaves otherwise than expected."""
        found = self.found  # at each operator of an eager update, so without a further call
        return (self._search() if found is None else found)[0]

    @property
    def problem(self) -> str | None:
        """Why the part can't be used, or None if it can."""
        return self._search()[1]

    def _search(self) -> tuple[T | None, str | None]:
        found = self.found
        if found is None:
            with _SEARCH_LOCK:
                found = self.found = self.found or self._look()
        return found

    def _look(self) -> tuple[T | None, str | None]:
        try:
            with _outside_modes():  # the first use may be under fake tensors
                return self.find(), None
        except Exception as error:  # private code may fail in any way
            problem = f"{self.name} of torch {torch.__version__}: {_one_line(error)}"
            _log_off(self.routes, problem)
            return None, problem


def _outside_modes() -> contextlib.AbstractContextManager[Any]:
    try:
        from torch.utils._python_dispatch import _disable_current_modes
    except ImportError:
        return contextlib.nullcontext()
    return _disable_current_modes()


def internal(*routes: str) -> Callable[[Callable[[], T]], Internal[T]]:
    """Register a function that finds a private part, for the routes that need the part."""

    def register(find: Callable[[], T]) -> Internal[T]:
        found = Internal(find, routes)
        INTERNALS[found.name] = found
        return found

    return register


def problem_of(route: str) -> str | None:
    """Why a route is off, or None if it is on."""
    if route in _off:
        return _off[route]
    problems = [part.problem for part in INTERNALS.values() if route in part.routes]
    return next(filter(None, problems), None)


def turn_off(route: str, problem: str | Exception) -> None:
    """Note that a route has failed in use; later programs do not try it."""
    if route not in _off:
        text = problem if isinstance(problem, str) else _one_line(problem)
        _off[route] = f"torch {torch.__version__}: {text}"
        _log_off((route,), _off[route])


def reset() -> None:
    """Forget which parts were found and which routes have failed."""
    _off.clear()
    compiler_takes_vector_flags.cache_clear()
    for part in INTERNALS.values():
        part.found = None


def _log_off(routes: Sequence[str], problem: str) -> None:
    fallbacks = "; ".join(FALLBACKS[route] for route in routes)
    verb = "is" if len(routes) == 1 else "are"
    logger.info("%s %s off (%s): %s.", " and ".join(routes), verb, problem, fallbacks)


def _one_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _expect(condition: bool, what: str) -> None:
    if not condition:
        raise Unexpected(what)


def _expect_parameters(function: Callable[..., Any], *names: str) -> None:
    missing = {*names} - inspect.signature(function).parameters.keys()
    _expect(not missing, f"no parameter {', '.join(sorted(missing))}")


# --- torch.compile and torch.export -------------------------------------------------------


@internal(DYNAMO)
def torch_pytree() -> types.ModuleType:
    """The module of torch's own pytrees, in which the library's nodes are registered."""
    from torch.utils import _pytree

    _expect_parameters(_pytree.register_pytree_node, "serialized_type_name", "flatten_with_keys_fn")
    _expect_parameters(_pytree.register_constant, "cls")
    return _pytree


def register_pytree(
    cls: type,
    flatten: Callable[[Any], tuple[list[Any], Any]],
    unflatten: Callable[[Sequence[Any], Any], Any],
    names: Sequence[str] = (),
) -> None:
    """Register a class with torch's pytrees.

    ``names`` are those of its children; without them the context is a tuple of these.
    """
    pytree = torch_pytree()
    if pytree is None:
        return

    def with_keys(node: Any) -> tuple[list[tuple[Any, Any]], Any]:
        children, context = flatten(node)
        # torch.export confuses attributes of which one's name begins with the other's
        found = names or (context if isinstance(context, tuple) else ())
        keys = [pytree.MappingKey(name) for name in found]
        return [*zip(keys, children, strict=True)], context

    pytree.register_pytree_node(
        cls,
        flatten,
        unflatten,
        serialized_type_name=f"{cls.__module__}.{cls.__qualname__}",
        flatten_with_keys_fn=with_keys,
    )


def register_constant(cls: type) -> None:
    """Let the objects of a class be part of a structure of torch's pytrees."""
    pytree = torch_pytree()
    if pytree is not None:
        pytree.register_constant(cls)


@internal(DYNAMO)
def nonstrict_trace() -> Callable[..., Any]:
    """The decorator of functions that Dynamo does not trace, and AOTAutograd does."""
    from torch._dynamo import nonstrict_trace

    _expect(nonstrict_trace(lambda x: x)(1) == 1, "the function does not run")
    return nonstrict_trace


def opaque_to_dynamo(fn: Callable[..., Any]) -> Callable[..., Any]:
    """The function as one call of Dynamo's graph."""
    decorate = nonstrict_trace()
    return fn if decorate is None else decorate(fn)


@internal(DYNAMO)
def no_tracing() -> Callable[[], contextlib.ExitStack]:
    """A function that makes a context in which ``torch.export`` sees nothing of the code."""
    from torch._C import DisableTorchFunction
    from torch._guards import TracingContext, tracing

    def context() -> contextlib.ExitStack:
        stack = contextlib.ExitStack()
        stack.enter_context(tracing(None))
        stack.enter_context(_outside_modes())
        stack.enter_context(DisableTorchFunction())
        return stack

    with context():
        _expect(TracingContext.try_get() is None, "a trace is visible")
    return context


def outside_tracing() -> contextlib.AbstractContextManager[Any]:
    """A context in which ``torch.export`` sees nothing of the code, where torch has one."""
    context = no_tracing()
    return contextlib.nullcontext() if context is None else context()


def constant_under_dynamo(fn: F) -> F:
    """Let Dynamo run a function of constants when it traces a call of it."""
    fn._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return fn


# --- tracing --------------------------------------------------------------------------


@internal(TRACE)
def make_fx() -> Callable[..., Any]:
    """``make_fx``, which records the operators of a function on fake tensors.

    The library needs constants from outside to be allowed. Without it jitted functions run
    eagerly.
    """
    from torch.fx.experimental import proxy_tensor

    _expect_parameters(proxy_tensor.make_fx, "tracing_mode", "_allow_non_fake_inputs")
    return functools.partial(proxy_tensor.make_fx, tracing_mode="fake", _allow_non_fake_inputs=True)


@internal(GRAPH_CODE)
def lazy_graph_code() -> Callable[[bool], contextlib.AbstractContextManager[None]]:
    """A context in which new graphs get their Python code only when they are called."""
    from torch.fx._lazy_graph_module import _make_graph_module, _use_lazy_graph_module

    graph = torch.fx.Graph()
    graph.output(graph.placeholder("x"))
    with _use_lazy_graph_module(True):
        module = _make_graph_module(torch.nn.Module(), graph)
    _expect(isinstance(module, torch.fx.GraphModule), "another class of graphs")
    _expect(type(module) is not torch.fx.GraphModule, "the code is written at once")
    _expect(module(3) == 3, "a graph that does not run")
    return _use_lazy_graph_module


def graph_code_on_demand() -> contextlib.AbstractContextManager[None]:
    """A context in which new graphs get their code at the first call, where torch has one."""
    context = lazy_graph_code()
    return contextlib.nullcontext() if context is None else context(True)


@internal(TRACE)
def functorch_stack() -> Callable[[], Any]:
    """A function that gives the innermost of ``torch.func``'s transforms at work, or None.

    A jitted function inside ``vmap`` or ``grad`` must not compile. Without it no jitted function
    compiles.
    """
    peek: Callable[[], Any] = torch._C._functorch.peek_interpreter_stack  # type: ignore[attr-defined]
    inside: list[bool] = []

    def look(x: Tensor) -> Tensor:
        inside.append(peek() is not None)
        return x

    torch.func.vmap(look)(torch.zeros(1))
    _expect(inside == [True], "it does not see vmap")
    return peek


def inside_functorch() -> bool:
    """Whether one of ``torch.func``'s transforms is at work; True where that can't be known."""
    peek = functorch_stack()
    return peek is None or peek() is not None


@internal(SHARED)
def functorch_levels() -> tuple[Callable[[], int], Callable[[Tensor], int]]:
    """Functions that give the number of the innermost transform, and of the one that made a tensor.

    Without them ``vmap`` can't check that a result is equal for all members.
    """
    functorch = torch._C._functorch  # type: ignore[attr-defined]
    current, of_tensor = functorch.maybe_current_level, functorch.maybe_get_level
    seen: list[bool] = []

    def look(x: Tensor, y: Tensor) -> Tensor:
        seen.extend(of_tensor(t) == current() for t in (x, y))
        return x

    torch.func.vmap(look, (0, None))(torch.zeros(1), torch.zeros(1))
    _expect(seen == [True, False], "it does not tell mapped tensors from others")
    return current, of_tensor


def is_mapped(tensor: Tensor) -> bool:
    """Whether a tensor differs between the members of the innermost ``vmap``.

    Ask only where :func:`functorch_levels` is found.
    """
    levels = functorch_levels()
    assert levels is not None
    return levels[0]() == levels[1](tensor)


@internal(WRITES)
def functorch_value() -> Callable[[Tensor], Tensor | None]:
    """A function that gives the tensor below one of a transform of ``torch.func``, or None."""
    functorch = torch._C._functorch  # type: ignore[attr-defined]
    wraps, unwrap = functorch.is_functorch_wrapped_tensor, functorch.get_unwrapped

    def below(tensor: Tensor) -> Tensor | None:
        return unwrap(tensor) if wraps(tensor) else None

    versions: list[int] = []

    def write(x: Tensor) -> Tensor:
        versions.append(_version(x, below))
        x += 1
        versions.append(_version(x, below))
        return x

    torch.func.vmap(write)(torch.zeros(1))
    _expect(versions[1] > versions[0], "it does not give the mapped tensor")
    return below


def _version(tensor: Tensor, below: Callable[[Tensor], Tensor | None] | None) -> int:
    """The sum of the versions of a tensor and of those below it."""
    version, found = 0, tensor
    while found is not None:
        version += getattr(found, "_version", 0)
        found = None if below is None else below(found)
    return version


# --- graphs ---------------------------------------------------------------------------


@internal(ANALYSIS)
def operator_type() -> type:
    """The class of torch's operators, with the schema that says which arguments they write to.

    Without it no pass can tell whether a graph may be changed.
    """
    aten = torch.ops.aten
    _expect(aten.add_.Tensor._schema.is_mutable is True, "add_ is not mutable")
    _expect(aten.add.Tensor._schema.is_mutable is False, "add is mutable")
    _expect(aten.add_.Tensor._overloadname == "Tensor", "another overload name")
    _expect(aten.add_.Tensor._schema.name == "aten::add_", "another name")
    return torch._ops.OpOverload


def is_mutable(operator: Any) -> bool:
    """Whether a call target is an operator that writes to one of its arguments."""
    kind = operator_type()
    return kind is not None and isinstance(operator, kind) and operator._schema.is_mutable


def is_repeatable(target: Any) -> bool:
    """Whether two calls of a call target on equal inputs give equal results.

    Random draws do not, nor does memory that is not set.
    """
    if isinstance(target, types.BuiltinFunctionType):  # an element of a tuple, or sizes
        return True
    kind = operator_type()
    if kind is None or not isinstance(target, kind):
        return False
    random = torch.Tag.nondeterministic_seeded in target.tags
    return not random and "::empty" not in target.name() and "::new_empty" not in target.name()


def argument_names(operator: Any) -> list[str]:
    """The names of an operator's arguments."""
    return [argument.name for argument in operator._schema.arguments]


def out_of_place(operator: Any) -> Any | None:
    """The operator that computes what ``name_`` does to its first argument, or None."""
    first, *others = operator._schema.arguments
    also_written = [argument for argument in others if argument.alias_info is not None]
    namespace, name = operator._schema.name.split("::")
    packet = getattr(getattr(torch.ops, namespace), name.removesuffix("_"), None)
    if also_written or first.alias_info is None or not name.endswith("_") or packet is None:
        return None
    return getattr(packet, operator._overloadname, None)


@internal(ANALYSIS)
def storage_identity() -> Callable[[Tensor], int]:
    """A function that gives the number of a tensor's storage, also for a fake tensor.

    Views of one memory share it. Without it no pass can tell what a write would change.
    """

    def number(tensor: Tensor) -> int:
        return tensor.untyped_storage()._cdata

    one, other = torch.zeros(2), torch.zeros(2)
    _expect(number(one) == number(one[1:]), "a view has another number")
    _expect(number(one) != number(other), "two storages have one number")
    return number


@internal(COPY_ON_WRITE)
def lazy_clone() -> Callable[[Tensor], Tensor]:
    """A function that copies a tensor, whose memory is copied only when one of both is written.

    Without it an argument is copied at once.
    """
    clone: Callable[[Tensor], Tensor] = torch.Tensor._lazy_clone  # type: ignore[attr-defined]
    old = torch.zeros(2)
    new = clone(old)
    new.add_(1)
    _expect(old.tolist() == [0, 0] and new.tolist() == [1, 1], "a write changes the original")
    return clone


def protected_copy(tensor: Tensor) -> Tensor:
    """An equal tensor; writing into it does not change the original."""
    clone = lazy_clone()
    # memory that torch has not allocated, such as that of a file or of NumPy, has no lazy copies
    if clone is None or not tensor.untyped_storage().resizable():
        return tensor.clone()
    try:
        return clone(tensor)
    except RuntimeError:
        return tensor.clone()


def is_lazy_clone(operator: Any) -> bool:
    """Whether an operator makes the copies of :func:`protected_copy`, which share memory."""
    return "::_lazy_clone" in str(operator.name())


def versions_of(tensors: Iterable[Tensor]) -> list[int]:
    """How often operators have written into each tensor, or into one that shares its memory.

    A write inside ``vmap`` counts for the tensor below it.
    """
    below = functorch_value() if inside_functorch() else None
    return [_version(tensor, below) for tensor in tensors]


def storage_of(tensor: Tensor) -> int:
    """The number of a (fake) tensor's storage, which views of one memory share."""
    number = storage_identity()
    return id(tensor) if number is None else number(tensor)


@internal(ANALYSIS)
def fake_tensor_propagation() -> Callable[[torch.fx.GraphModule], None]:
    """A function that computes the fake value of each node of a graph again, from its inputs'."""
    from torch._subclasses.fake_tensor import FakeTensor
    from torch.fx.passes.fake_tensor_prop import FakeTensorProp

    def propagate(graph: torch.fx.GraphModule) -> None:
        values = [node.meta["val"] for node in graph.graph.nodes if node.op == "placeholder"]
        mode = next((value.fake_mode for value in values if isinstance(value, FakeTensor)), None)
        if mode is not None:
            FakeTensorProp(graph, mode).propagate_dont_convert_inputs(*values)

    _expect(hasattr(FakeTensorProp, "propagate_dont_convert_inputs"), "no propagation")
    return propagate


@internal(DYNAMIC_ROWS)
def fake_tensor_with_dynamic_rows() -> Callable[[], Callable[[Tensor, bool], Tensor]]:
    """A function that makes a maker of fake tensors whose first axis may have any length.

    It imports sympy, which takes half a second.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.symbolic_shapes import (
        DimDynamic,
        ShapeEnv,
        StatelessSymbolicContext,
    )

    def maker() -> Callable[[Tensor, bool], Tensor]:
        mode = FakeTensorMode(
            shape_env=ShapeEnv(assume_static_by_default=True, duck_shape=False),
            allow_non_fake_inputs=True,
        )

        def make(tensor: Tensor, dynamic: bool) -> Tensor:
            sizes = [DimDynamic.STATIC] * tensor.ndim
            if dynamic and tensor.ndim:
                sizes[0] = DimDynamic.DYNAMIC
            return mode.from_tensor(
                tensor.detach(), symbolic_context=StatelessSymbolicContext(dynamic_sizes=sizes)
            )

        return make

    made = maker()(torch.zeros(3, 5), True)
    _expect(not isinstance(made.shape[0], int), "the first axis has a fixed length")
    _expect(made.shape[1] == 5, "the second axis has another length")
    return maker


@internal(DYNAMIC_ROWS)
def tracing_context() -> Callable[[Any], contextlib.AbstractContextManager[Any]]:
    """A function that makes a context in which Inductor takes over the symbols of a fake tensor.

    ``standalone_compile`` can find them in the graph itself only from torch 2.15 on; before, it
    makes every size a symbol of its own.
    """
    from torch._guards import TracingContext, tracing

    _expect_parameters(TracingContext.__init__, "fake_mode")

    def context(fake: Any) -> contextlib.AbstractContextManager[Any]:
        return tracing(TracingContext(fake.fake_mode))

    return context


# --- Inductor -------------------------------------------------------------------------


@internal(INDUCTOR)
def standalone_compile() -> Callable[..., Any]:
    """``standalone_compile``, which compiles a graph without Dynamo.

    Without it ``torch.compile`` takes the graph: seconds more at the first call, and a check of
    each argument at each later one.
    """
    from torch._inductor import standalone_compile

    _expect_parameters(standalone_compile, "dynamic_shapes", "options")
    return standalone_compile


@internal(INDUCTOR)
def inductor_config() -> Any:
    """Inductor's settings, of which single ones can be changed for one program."""
    from torch._inductor import config

    _expect(isinstance(config.size_asserts, bool), "no setting size_asserts")
    _expect(isinstance(config.compile_threads, int), "no setting compile_threads")
    return config


@internal(INDUCTOR)
def cpp_compiler_search() -> Callable[[], str | None]:
    """A function that gives the C++ compiler which Inductor takes, or None where it has none.

    Without it the compiler is looked for on the path.
    """
    from torch._inductor import cpp_builder, exc

    no_compiler = exc.InvalidCxxCompiler
    _expect(callable(cpp_builder.get_cpp_compiler), "no get_cpp_compiler")

    def search() -> str | None:
        try:
            return cpp_builder.get_cpp_compiler()
        except no_compiler:
            return None

    return search


def cpp_compiler() -> str | None:
    """The C++ compiler that Inductor takes, or None where there is none."""
    search = cpp_compiler_search()
    if search is not None:
        return search()
    names = (os.environ.get("CXX"), "g++", "clang++")
    return next((name for name in names if name and shutil.which(name)), None)


@contextlib.contextmanager
def one_compiler_thread() -> Iterator[None]:
    """Let Inductor compile in the calling thread alone, inside the block."""
    config = inductor_config()
    with contextlib.nullcontext() if config is None else config.patch(compile_threads=1):
        yield


def inductor_settings() -> dict[str, Any]:
    """Settings of Inductor for the library's programs, given with each and never set for all.

    A call knows already that the inputs have the shapes and strides of the program. Inductor
    would check each again, a fifth of what a small program takes besides its kernels;
    ``TORCHINDUCTOR_SIZE_ASSERTS=1`` turns these checks on, and those of operators' results. The
    check for vector instructions is skipped only where :func:`compiler_takes_vector_flags` has
    made it.
    """
    asserts = {"size_asserts": os.environ.get("TORCHINDUCTOR_SIZE_ASSERTS") == "1"}
    return asserts | ({"cpp.vec_isa_ok": True} if compiler_takes_vector_flags() else {})


@internal(FIRST_CALL)
def vector_flags() -> Callable[[], list[str]]:
    """A function that gives the compiler flags of the CPU's vector instructions.

    Inductor tests whether the C++ compiler takes them by building and loading up to six small
    libraries with torch's headers, each in a Python process of its own: more than ten seconds at
    a first call. With the flags one run of the compiler without headers is enough, a few
    hundredths of a second. The list is empty where Inductor should test: AMX also needs the
    kernel's permission.
    """
    from torch._inductor import config, cpu_vec_isa

    _expect(hasattr(config.cpp, "vec_isa_ok"), "no setting cpp.vec_isa_ok")
    _expect(isinstance(torch.cpu._is_amx_tile_supported(), bool), "no check for AMX")
    _expect(callable(cpu_vec_isa.x86_isa_checker), "no list of the CPU's instructions")

    def flags() -> list[str]:
        if torch.cpu._is_amx_tile_supported():
            return []
        known = {*cpu_vec_isa.x86_isa_checker()}
        usable = [isa for isa in cpu_vec_isa.supported_vec_isa_list if {*str(isa).split()} <= known]
        return [flag for isa in usable for flag in isa.build_arch_flags().split()]

    return flags


@functools.cache
def compiler_takes_vector_flags() -> bool:
    """Whether the C++ compiler accepts the flags that Inductor would use on this CPU.

    Only Linux on x86-64 is tested; elsewhere Inductor tests it.
    """
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return False
    find, compiler = vector_flags(), cpp_compiler()
    if find is None or compiler is None:
        return False
    try:
        flags = find()
        command = [compiler, *flags, "-x", "c++", "-E", os.devnull]
        subprocess.run(command, check=True, capture_output=True, timeout=_SECONDS)
    except (OSError, RuntimeError, subprocess.SubprocessError):
        return False
    return bool(flags)


@dataclass(frozen=True)
class Lowering:
    """What describes a call of an external function to Inductor."""

    register: Callable[..., Any]
    kernels: Any
    """The object whose attributes the generated code calls as ``extern_kernels.name``."""
    contiguous_memory: Callable[[Any], Any]
    """The contiguous memory of a value of Inductor's."""
    call: Callable[..., Any]
    """A value of Inductor's that an external function writes."""


@internal(MATMUL)
def lowering() -> Lowering:
    """What lets a compiled program call the library's matmul by its address.

    Otherwise the call goes through torch's dispatcher, which takes as long as a small product.
    """
    from torch._inductor import ir
    from torch._inductor.lowering import register_lowering
    from torch._inductor.select_algorithm import extern_kernels

    _expect_parameters(register_lowering, "type_promotion_kind")
    _expect_parameters(
        ir.ExternKernelOut.__init__,
        *("layout", "inputs", "constant_args", "python_kernel_name", "op_overload"),
    )
    _expect_parameters(ir.FixedLayout.__init__, "device", "dtype", "size")

    def contiguous_memory(node: Any) -> Any:
        found = ir.ExternKernel.require_contiguous(ir.ExternKernel.realize_input(node))
        # only the address is read, so that no tensor of another shape needs to be made for it
        view = found.data if isinstance(found, ir.TensorBox) else found
        if isinstance(view, ir.ReinterpretView) and view.get_layout().offset == 0:
            return view.data
        return found

    def call(
        name: str, operator: Any, like: Any, size: Sequence[int], inputs: list[Any], constant: Any
    ) -> Any:
        return ir.TensorBox.create(
            ir.ExternKernelOut(
                layout=ir.FixedLayout(
                    device=like.get_device(), dtype=like.get_dtype(), size=list(size)
                ),
                inputs=inputs,
                constant_args=(constant,),
                python_kernel_name=f"extern_kernels.{name}",
                op_overload=operator,
            )
        )

    return Lowering(register_lowering, extern_kernels, contiguous_memory, call)


# --- recording ------------------------------------------------------------------------


@internal(REPLAY, MEMORY)
def dispatch_mode() -> Callable[[Callable[..., Any]], Any]:
    """A function that makes a context in which a handler runs each operator.

    The handler gets the operator, its positional arguments and its keywords.
    """
    from torch.utils._python_dispatch import TorchDispatchMode

    class Mode(TorchDispatchMode):
        def __init__(self, handler: Callable[..., Any]) -> None:
            super().__init__()
            self.handler = handler

        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            return self.handler(func, args, kwargs or {})

    seen: list[Any] = []

    def handler(func: Any, args: Any, kwargs: Any) -> Any:
        seen.append(func)
        return func(*args, **kwargs)

    with Mode(handler):
        torch.zeros(1).neg()
    _expect(torch.ops.aten.neg.default in seen, "an operator does not reach the handler")
    return Mode


@internal(MEMORY, SHAPES)
def fake_tensor_mode() -> type:
    """The context in which tensors have shapes and no values.

    Without it the memory of a group of seeds is not estimated, and ``eval_shape`` needs memory.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        _expect(mode.from_tensor(torch.zeros(3)).neg().shape == (3,), "another shape")
    return FakeTensorMode


@internal(REPLAY)
def compiled_graph_type() -> type:
    """Inductor's class of compiled graphs, whose ``current_callable`` is the generated code."""
    from torch._inductor.output_code import CompiledFxGraph

    names = {n for cls in CompiledFxGraph.__mro__ for n in inspect.get_annotations(cls)}
    _expect("current_callable" in names, "no current_callable")
    return CompiledFxGraph


GENERATED_NAMES = {
    "reinterpret_tensor", "extern_kernels", "torch", "aten", "assert_alignment",
}  # fmt: skip
"""What generated code may use besides kernels: it does nothing, or calls torch's operators."""
ALLOCATION = "empty_strided_cpu"
"""What generated code calls for the memory of an intermediate result."""
_KERNEL = "kernel"
"""The name of the C function in each of Inductor's libraries."""


def compiled_graph_of(program: Any) -> Any | None:
    """Inductor's compiled graph inside a program, or None if there is not exactly one.

    The program is a chain of closures and wrappers, which differs between versions of torch.
    """
    kind = compiled_graph_type()
    if kind is None:
        return None
    found: list[Any] = []
    seen: dict[int, Any] = {}
    layer = [program]
    for _ in range(8):
        layer = [*{id(x): x for x in layer if not isinstance(x, type | Tensor)}.values()]
        layer = [x for x in layer if id(x) not in seen]
        seen |= {id(x): x for x in layer}
        found += [x for x in layer if isinstance(x, kind)]
        layer = [y for x in layer if not isinstance(x, kind) for y in _references(x)]
    return found[0] if len(found) == 1 else None


def _references(wrapper: Any) -> Iterator[Any]:
    """What a function or a callable object refers to."""
    if not callable(wrapper):
        return
    for cell in getattr(wrapper, "__closure__", None) or ():
        try:
            yield cell.cell_contents
        except ValueError:  # the cell is empty
            continue
    for name in ("__self__", "__func__", "func"):
        if hasattr(wrapper, name):
            yield getattr(wrapper, name)
    yield from getattr(wrapper, "__dict__", {}).values()


def generated_function(code: Any) -> types.FunctionType | None:
    """The Python function that Inductor has generated for a graph, or None if there is none."""
    function = getattr(code, "__func__", None)
    return function if isinstance(function, types.FunctionType) else None


def is_kernel(value: Any) -> bool:
    """Whether a global of generated code is one of Inductor's C++ kernels."""
    return getattr(value, "__name__", None) == _KERNEL


def kernel_address(kernel: Any) -> int | None:
    """The address of an Inductor kernel's C function, or None if it is of an unknown kind."""
    path = getattr(getattr(kernel, "__self__", None), "__file__", None)
    if path is None:
        return None
    return ctypes.cast(getattr(_loaded(path), _KERNEL), ctypes.c_void_p).value


@functools.cache
def _loaded(path: str) -> ctypes.CDLL:
    return ctypes.CDLL(path)
