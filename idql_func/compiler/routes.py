"""What this machine can run, for ``idql doctor``: versions, compilers, and which routes are on."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import torch

from idql_func import __version__
from idql_func.compiler import replay, torch_internals
from idql_func.compiler.inductor import compiler_problem
from idql_func.compiler.torch_internals import FALLBACKS, REPLAY, problem_of
from idql_func.kernels import matmul, threefry, tree_ops
from idql_func.kernels.build import c_compiler, cpu_info
from idql_func.kernels.library_cache import cache_folder
from idql_func.switches import jit_disabled

_PACKAGES = ("numpy", "optree", "gymnasium")
_NO_CUDA = "torch finds no CUDA device"


@dataclass(frozen=True)
class Route:
    """A fast way through the library, and whether it is open on this machine."""

    name: str
    on: bool
    detail: str
    """Why the route is off and what the library does instead; empty where it is on."""


def environment() -> dict[str, str]:
    """Versions, compilers, processor, threads, cache folder and GPU, by name.

    >>> environment()["torch"] == torch.__version__
    True
    """
    cuda = torch.cuda.is_available()
    return {
        "idql_func": __version__,
        "torch": torch.__version__,  # with the build, such as +cu130
        **{name: metadata.version(name) for name in _PACKAGES},
        "python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        "C compiler": _compiler(c_compiler()),
        "C++ compiler": _compiler(torch_internals.cpp_compiler()),
        "CPU": cpu_info("model name").rpartition(":")[2].strip() or platform.machine(),
        "vector instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": f"{torch.get_num_threads()} of {os.cpu_count()} cores",
        "cache folder": _cache(),
        "CUDA": torch.cuda.get_device_name() if cuda else _NO_CUDA,
    }


def routes() -> list[Route]:
    """All routes, those of the kernels first. Builds the C sources that are not built yet.

    >>> [route.name for route in routes()][:2]
    ['C kernels: threefry', 'C kernels: random draws']
    """
    kernels: dict[str, tuple[Callable[[], bool], str]] = {
        "threefry": (lambda: threefry.functions() is not None, "tensor operations"),
        "random draws": (lambda: threefry.functions() is not None, "tensor operations"),
        "Adam and averages": (lambda: tree_ops.supports([torch.zeros(1)]), "tensor operations"),
        "matmul": (matmul.available, "torch's matmul"),
        "replay": (replay.available, "Inductor's Python code"),
    }
    found = []
    for name, (is_built, instead) in kernels.items():
        on = is_built()
        detail = "" if on else f"{_why_no_library()}; {instead} run instead"
        found.append(Route(f"C kernels: {name}", on, detail))
    compiles = compiler_problem(torch.device("cpu"))
    if compiles is None and jit_disabled():
        compiles = "IDQL_DISABLE_JIT is set."
    found.append(Route("compiled programs", compiles is None, compiles or ""))
    for route, fallback in FALLBACKS.items():
        problem = problem_of(route)
        if problem is None and route == REPLAY and not replay.available():
            problem = _why_no_library()
        detail = "" if problem is None else f"{problem}; {fallback}"
        found.append(Route(route, problem is None, detail))
    cuda = torch.cuda.is_available()
    found.append(Route("CUDA graphs", cuda, "" if cuda else _NO_CUDA))
    return found


def _compiler(path: str | None) -> str:
    if path is None:
        return "none"
    try:
        run = subprocess.run(
            [path, "--version"], capture_output=True, text=True, check=True, timeout=60
        )
    except (OSError, subprocess.SubprocessError) as error:
        return f"{path}, which does not run: {type(error).__name__}"
    return f"{path}: {run.stdout.partition(chr(10))[0]}"


def _cache() -> str:
    try:
        folder = cache_folder()
    except RuntimeError as error:  # no home
        return f"none: {error}"
    return f"{folder} ({'writable' if _writable(folder) else 'not writable'})"


def _writable(folder: Path) -> bool:
    existing = next((path for path in (folder, *folder.parents) if path.exists()), folder)
    return existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)


def _why_no_library() -> str:
    compiler = c_compiler()
    if compiler is None:
        return "there is no C compiler: install gcc, or name one in the environment variable CC"
    if not _cache().endswith("(writable)"):
        return f"the cache folder can't be used: {_cache()}"
    return f"{compiler} does not compile the source"
