"""Small C sources, built once by the machine's C compiler and kept in the cache folder.

An operator on the CPU may have a C form besides its tensor form: one pass over memory, one
node in a graph. Nothing is built on import; where there is no compiler, or no folder to write
to, :func:`library` returns None and the tensor form runs.

An operator made by :func:`operator` costs a call a third of what ``torch.library.custom_op`` does,
which matters where the work takes microseconds.

Rounding is that of the source as written: ``-ffp-contract=off`` keeps a product and a sum apart,
and a source that wants them fused says ``fmaf``. Reordering sums is left off as well.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

__all__ = ["library", "operator"]

# The last two change no value: nobody reads errno or the floating-point traps.
_FLAGS = (
    "-O3",
    "-march=native",
    "-std=c99",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fno-trapping-math",
)
_SECONDS = 60
_NAMESPACE = "idql_func"
_OPERATORS = torch.library.Library(_NAMESPACE, "FRAGMENT")


@functools.cache
def library(
    name: str, source: str, *, openmp: bool = False, flags: tuple[str, ...] = ()
) -> ctypes.CDLL | None:
    """The loaded library of a C99 source, or None where it cannot be had.

    It is built at the first call on a machine and found in the cache folder
    (``$XDG_CACHE_HOME/idql_func``, or ``~/.cache/idql_func``) afterwards; the file's name holds a
    digest of the source, the compiler, its flags and the machine's CPU, so that none of them can
    change behind it. The compiler is ``$CC``, else ``cc``, else ``gcc``.

    Args:
        name: the start of the file's name, such as ``"threefry"``.
        source: what to compile; functions that are not ``static`` can be called.
        openmp: compile with OpenMP if the compiler has it, else without (``#pragma omp`` lines
            then do nothing). A loop should take its number of threads as an argument, from
            ``torch.get_num_threads()``, and its result must not depend on it.
        flags: more options for the compiler, after those that all sources have.

    Example:
        >>> built = library("example", "int twice(int x) { return 2 * x; }")
        >>> built is None or built.twice(21)  # None where there is no compiler
        42
    """
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    if compiler is None or platform.system() == "Windows":
        return None
    plain = (*_FLAGS, *flags)
    for options in ((*plain, "-fopenmp"), plain) if openmp else (plain,):
        text = "\n".join((source, compiler, *options, _machine()))
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        try:
            path = _cache_folder() / f"{name}-{digest}.so"
            if not path.exists():
                _build([compiler, *options], source, path)
            return ctypes.CDLL(str(path))
        except (OSError, RuntimeError, subprocess.SubprocessError):
            continue  # no home, no folder, no working compiler, or no OpenMP
    return None


def operator(
    schema: str,
    run: Callable[..., Any],
    *,
    fake: Callable[..., Any],
    vmap: Callable[..., Any] | None = None,
) -> Any:
    """A new operator ``idql_func::name`` for tensors on the CPU, without gradients.

    Args:
        schema: name, arguments and results, as in ``"double(Tensor x) -> Tensor"``.
        run: the work on real tensors; its results must not alias its arguments.
        fake: the same on shapes alone, as for ``torch.library.register_fake``.
        vmap: the rule for mapped arguments, as for ``torch.library.register_vmap``; None for an
            operator that no mapped function meets.
    """
    _OPERATORS.define(schema, tags=torch.Tag.pt2_compliant_tag)
    name = schema.split("(", maxsplit=1)[0]
    _OPERATORS.impl(name, run, "CPU")
    torch.library.register_fake(f"{_NAMESPACE}::{name}", fake, lib=_OPERATORS)
    if vmap is not None:
        torch.library.register_vmap(f"{_NAMESPACE}::{name}", vmap, lib=_OPERATORS)
    return getattr(getattr(torch.ops, _NAMESPACE), name).default


def _build(command: list[str], source: str, path: Path) -> None:
    """Compile under a temporary name, so that another process never sees half a library."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        written, built = Path(folder) / "source.c", Path(folder) / "built.so"
        written.write_text(source, encoding="utf-8")
        command = [*command, "-shared", "-fPIC", "-o", str(built), str(written), "-lm"]
        subprocess.run(command, check=True, capture_output=True, timeout=_SECONDS)
        built.replace(path)


@functools.cache
def _machine() -> str:
    """What the built code depends on: it need not run on another machine that shares the folder."""
    try:
        # the file repeats itself for each CPU, and the system makes it while it is read
        with Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
            flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    except OSError:
        flags = platform.processor()
    return f"{platform.system()} {platform.machine()} {flags}"


def _cache_folder() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "idql_func"
