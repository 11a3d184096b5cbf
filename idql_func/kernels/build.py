"""Compile the C sources of ``csrc/`` on first use, load them, and register torch operators.

An operator on the CPU may have a C form besides its tensor form: one pass over memory and one
node in a graph. Nothing is built on import. Without a C compiler or a writable cache folder
:func:`library` returns None and the tensor form runs.

Calling an operator made by :func:`operator` takes a third of the time of a
``torch.library.custom_op``, which matters where the work itself takes microseconds.

Results are rounded as the source is written: ``-ffp-contract=off`` keeps a multiplication and an
addition separate unless the source calls ``fmaf``, and sums are not reordered.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import re
import shutil
import subprocess
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd import forward_ad

from idql_func.kernels.library_cache import cached_library, compiler_answers

_SOURCES = Path(__file__).parent / "csrc"
# The last two flags change no value: neither errno nor floating-point traps are read.
_FLAGS = (
    "-O3",
    "-march=native",
    "-std=c99",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fno-trapping-math",
)
_NAMESPACE = "idql_func"
_OPERATORS = torch.library.Library(_NAMESPACE, "FRAGMENT")

CPU_IMPLEMENTATIONS: dict[Any, Callable[..., Any]] = {}
"""The CPU implementation of each operator made by :func:`operator`, by its overload."""

EFFECTS: set[Any] = set()
"""The operators that do something besides computing their results, by their overloads."""


def c_compiler() -> str | None:
    """The machine's C compiler: ``$CC``, else ``cc``, else ``gcc``, or None."""
    return os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")


@functools.cache
def library(
    name: str,
    *,
    openmp: bool = False,
    flags: tuple[str, ...] = (),
    folder: Path = _SOURCES,
) -> ctypes.CDLL | None:
    """Build and load the C99 source ``csrc/NAME.c``; None if it cannot be compiled here.

    The library is built at the first call on a machine and cached in ``$XDG_CACHE_HOME/idql_func``
    (or ``~/.cache/idql_func``). Its file name holds a digest of the source with the headers it
    includes, the compiler, its flags and the CPU, so a change of any of them builds a new one; so
    does damage to the file. A folder that others can write to is not used.
    The compiler is ``$CC``, else ``cc``, else ``gcc``.

    Args:
        name: the source's name without ``.c``, such as ``"threefry"``. Its functions that are not
            ``static`` can be called.
        openmp: compile with OpenMP if the compiler supports it, else without (``#pragma omp`` is
            then ignored). A loop should take its number of threads as an argument, from
            ``torch.get_num_threads()``, and its result must not depend on it.
        flags: further compiler options, after the common ones.
        folder: where the source and its headers are.

    Raises:
        FileNotFoundError: the source or one of its headers is missing.

    Example:
        >>> built = library("replay")
        >>> built is None or built.replay.restype.__name__  # None without a C compiler
        'c_int'
    """
    path = folder / f"{name}.c"
    source = _with_headers(path)
    compiler = c_compiler()
    if compiler is None or platform.system() == "Windows" or not compiler_answers(compiler):
        return None
    common = (*_FLAGS, *flags)
    problem: Exception | None = None
    for options in ((*common, "-fopenmp"), common) if openmp else (common,):
        # machines with other CPU features may share the cache folder
        machine = f"{platform.system()} {platform.machine()} {cpu_info('flags', 'Features')}"
        text = "\n".join((source, compiler, *options, machine))
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        try:
            return cached_library(f"{name}-{digest}.so", [compiler, *options], path)
        except (OSError, RuntimeError, subprocess.SubprocessError) as error:
            problem = error  # no home or folder for it, no working compiler, or no OpenMP
    text = (str(problem).strip().splitlines() or [type(problem).__name__])[0]
    warnings.warn(
        f"The C library {name!r} could not be built ({text}): the numbers stay the same, but "
        "training is slower, often by half. `idql doctor` shows the cache folder and the compiler.",
        RuntimeWarning,
        stacklevel=2,
    )
    return None


def _with_headers(path: Path) -> str:
    """The text of a C file, followed by that of each header it includes with quotes."""
    files = [path]
    texts = []
    for file in files:  # grows while headers are found
        texts.append(file.read_text(encoding="utf-8"))
        included = re.findall(r'^\s*#\s*include\s+"([^"]+)"', texts[-1], re.MULTILINE)
        files += [p for name in included if (p := file.parent / name) not in files]
    return "\n".join(texts)


class CallObserver(Protocol):
    """An object that is notified of calls of C functions; see :data:`call_observer`."""

    def on_call(self, function: CFunction, arguments: tuple[Any, ...]) -> None:
        """Handle a call that has just returned."""
        ...


call_observer: ContextVar[CallObserver | None] = ContextVar("idql_func_call_observer", default=None)
"""The observer of this context. The compiler's recorder sets it while it records a program."""


class CFunction:
    """A function of a loaded library; its arguments are 64-bit words, its result 0 or 1 (error).

    Args:
        built: the library.
        name: the function's name.
        signature: one letter for each argument: ``p`` the address of a tensor's memory, or 0;
            ``n`` a number; ``l`` an array of such addresses; ``c`` an array of constants. Arrays
            are passed as ``array.array``.

    Raises:
        MemoryError: by a call that could not allocate memory.
    """

    __slots__ = ("_arrays", "_function", "address", "signature")

    def __init__(self, built: ctypes.CDLL, name: str, signature: str) -> None:
        self.signature = signature
        self._arrays = [k for k, kind in enumerate(signature) if kind in "lc"]
        self._function = built[name]
        self._function.argtypes = [ctypes.c_int64] * len(signature)
        self._function.restype = ctypes.c_int64
        self.address: int = ctypes.cast(self._function, ctypes.c_void_p).value or 0

    def __call__(self, *arguments: Any) -> None:
        """Call the function and notify the observer, if there is one."""
        words = [*arguments]
        for k in self._arrays:
            words[k] = arguments[k].buffer_info()[0]
        self.call_unobserved(*words)
        observer = call_observer.get()
        if observer is not None:
            observer.on_call(self, arguments)

    def call_unobserved(self, *words: int) -> None:
        """Call the function with arguments that are all integers; no observer is notified."""
        if self._function(*words):
            raise MemoryError("a C function could not allocate memory for intermediate results.")


def c_functions(
    name: str, signatures: Mapping[str, str], flags: tuple[str, ...] = ()
) -> dict[str, CFunction] | None:
    """Functions of ``csrc/NAME.c`` by name, or None without a C compiler.

    ``signatures`` holds the signature of each function, see :class:`CFunction`.
    """
    built = library(name, openmp=True, flags=flags)
    if built is None:
        return None
    return {function: CFunction(built, function, kinds) for function, kinds in signatures.items()}


def operator(
    schema: str,
    implementation: Callable[..., Any],
    *,
    fake: Callable[..., Any],
    vmap: Callable[..., Any] | None = None,
    has_derivative: bool = True,
    has_effect: bool = False,
) -> Any:
    """Register the operator ``idql_func::NAME`` for CPU tensors.

    No operator has a derivative rule. One that could have a derivative refuses to run where one is
    requested, by autograd in reverse or forward mode or by a transform of ``torch.func``, so that
    no gradient is silently zero. The function that calls it must use tensor operations there; see
    :func:`differentiated`.

    Args:
        schema: name, arguments and results, as in ``"double(Tensor x) -> Tensor"``.
        implementation: computes the result; it must not alias an argument.
        fake: the shapes and dtypes of the result, as for ``torch.library.register_fake``.
        vmap: the batching rule, as for ``torch.library.register_vmap``; None for an operator that
            never runs under ``vmap``.
        has_derivative: False for an operator whose tensors are integers, either all arguments or
            all results: its derivative is zero, and it runs everywhere.
        has_effect: the implementation does something besides computing its result. It takes tensors
            on any device, and a program with it is not replayed.

    Returns:
        The operator's default overload.
    """
    _OPERATORS.define(schema, tags=torch.Tag.pt2_compliant_tag)
    name = schema.split("(", maxsplit=1)[0]
    _OPERATORS.impl(name, implementation, "CompositeExplicitAutograd" if has_effect else "CPU")
    torch.library.register_fake(f"{_NAMESPACE}::{name}", fake, lib=_OPERATORS)
    if vmap is not None:
        torch.library.register_vmap(f"{_NAMESPACE}::{name}", vmap, lib=_OPERATORS)
    overload = getattr(getattr(torch.ops, _NAMESPACE), name).default
    if has_derivative:
        refuse = functools.partial(_refuse_derivative, overload)
        _OPERATORS.impl(name, refuse, "Autograd", with_keyset=True)
    else:
        _OPERATORS.impl(name, torch.library.fallthrough_kernel, "Autograd")
    if has_effect:
        EFFECTS.add(overload)
    else:
        CPU_IMPLEMENTATIONS[overload] = implementation
    return overload


# --- derivatives ----------------------------------------------------------------------


def _refuse_derivative(overload: Any, keys: Any, *args: Any, **kwargs: Any) -> Any:
    """The autograd rule of an operator without a derivative: run it, or raise.

    Each transform of ``torch.func`` comes here with its own tensors, innermost first.
    """
    tensors: list[Tensor] = []
    for x in (*args, *kwargs.values()):
        if isinstance(x, Tensor):
            tensors.append(x)
        elif isinstance(x, list):
            tensors += [y for y in x if isinstance(y, Tensor)]
    if (torch.is_grad_enabled() and any([x.requires_grad for x in tensors])) or _has_tangent(
        tensors
    ):
        raise NotImplementedError(
            f"The operator {overload} has no derivative, but the derivative of its result is "
            "requested; compute the result with tensor operations there."
        )
    return overload.redispatch(keys.remove(keys.highestPriorityTypeId()), *args, **kwargs)


_SCALAR = torch.zeros(())


def inside_forward_mode() -> bool:
    """Whether a level of forward-mode differentiation has been entered.

    >>> inside_forward_mode()
    False
    """
    return forward_ad.unpack_dual(_SCALAR).primal is not _SCALAR


def _has_tangent(tensors: Sequence[Tensor]) -> bool:
    """Whether one of the tensors is differentiated in forward mode."""
    return inside_forward_mode() and any(
        forward_ad.unpack_dual(x).tangent is not None for x in tensors
    )


_DIFFERENTIATED: ContextVar[bool] = ContextVar("idql_func_differentiated", default=False)


@contextlib.contextmanager
def program_is_differentiated(requested: bool) -> Iterator[None]:
    """Context of tracing a program: whether autograd will differentiate it when it runs."""
    token = _DIFFERENTIATED.set(requested)
    try:
        yield
    finally:
        _DIFFERENTIATED.reset(token)


def differentiated(*tensors: Tensor) -> bool:
    """Whether a derivative may be requested: recorded by autograd, or inside a ``grad``.

    >>> differentiated(torch.zeros(2)), differentiated(torch.zeros(2, requires_grad=True))
    (False, True)
    """
    if torch.compiler.is_dynamo_compiling():  # it can't trace what follows
        return torch.is_grad_enabled() and any([x.requires_grad for x in tensors])
    if _DIFFERENTIATED.get():
        return True
    unwrapped: list[Tensor] = []
    for tensor in tensors:
        outer = tensor
        while (inner := torch.func.debug_unwrap(outer, recurse=False)) is not outer:
            if inner.ndim == outer.ndim:  # wrapped by a derivative; vmap's wrapper hides an axis
                return True
            outer = inner
        unwrapped.append(outer)
    recorded = torch.is_grad_enabled() and any([x.requires_grad for x in unwrapped])
    return recorded or _has_tangent(unwrapped)


def mapped_first(count: int, x: Tensor, dim: int | None) -> Tensor:
    """An argument of a batching rule with its mapped axis first; one that is not mapped expands.

    There is no graph node if the axis is first already.
    """
    if dim is None:
        return x.expand(count, *x.shape)
    return x.movedim(dim, 0) if dim else x


@functools.cache
def cpu_info(*names: str) -> str:
    """The first line of ``/proc/cpuinfo`` with one of these names, or the processor's name.

    The file repeats its lines for each CPU and is slow to read whole.
    """
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
            return next((line for line in lines if line.startswith(names)), "")
    except OSError:
        return platform.processor()
