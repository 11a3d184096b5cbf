"""Hostile values for arguments, and how an outcome is judged."""

from __future__ import annotations

import contextlib
import re
import resource
import signal
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from idql_func.boundary import _is_raised_here
from parity.conformance.compare import RAW

SECONDS = 20
MEMORY = 4 << 30  # bytes that a call may take in addition

_RAW_TORCH = re.compile(RAW.pattern.replace("|Expected|expected", ""))
_RAW_MORE = re.compile(
    r"0x[0-9a-f]{6}|Traceback|dispatch|Could not run|not implemented for|TensorImpl|numel\(\)"
    r"|DefaultCPUAllocator|unsupported operand|not supported between|must be real number"
    r"|can't convert|cannot convert|invalid literal|Cannot interpret|has no len|not subscriptable"
    r"|not iterable|not callable|unhashable|positional argument but|required positional"
)


def tensors() -> dict[str, Any]:
    """Tensors that are strange in one way each."""
    return {
        "scalar": torch.tensor(1.0),
        "empty": torch.zeros(0),
        "no rows": torch.zeros(0, 3),
        "wrong shape": torch.zeros(7, 5, 2),
        "nan": torch.full((8, 3), float("nan")),
        "int64": torch.ones(8, 3, dtype=torch.int64),
        "bool": torch.ones(8, 3, dtype=torch.bool),
        "float16": torch.ones(8, 3, dtype=torch.float16),
        "float64": torch.ones(8, 3, dtype=torch.float64),
        "complex": torch.ones(8, 3, dtype=torch.complex64),
        "sparse": torch.eye(3).to_sparse(),
        "meta": torch.ones(8, 3, device="meta"),
        "requires_grad": torch.ones(8, 3, requires_grad=True),
        "strided": torch.ones(3, 8).T,
    }


def objects() -> dict[str, Any]:
    """Everything else."""
    return {
        "None": None,
        "NaN": float("nan"),
        "inf": float("inf"),
        "-inf": float("-inf"),
        "-1": -1,
        "0": 0,
        "0.5": 0.5,
        "2**63": 2**63,
        "-2**63": -(2**63),
        "10**12": 10**12,
        "True": True,
        "''": "",
        "'../../x'": "../../x",
        "bytes": b"\x00\xff",
        "[]": [],
        "{}": {},
        "extra key": {"surprise": 1},
        "object array": np.array([None, "a"], dtype=object),
        "text array": np.array(["a", "b"]),
        "complex array": np.ones((8, 3), complex),
        "float32 number": np.float32(0.5),
        "int64 number": np.int64(3),
        "generator": (i for i in range(3)),
        "type": int,
        "MultiDiscrete": gym.spaces.MultiDiscrete([2, 3, 4]),
    }


def values() -> dict[str, Any]:
    """All hostile values, made anew."""
    return {**tensors(), **objects()}


class Hang(BaseException):
    """A call took too long."""


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    """A call may take some memory and seconds more, and its warnings do not count."""

    def stop(number: int, frame: Any) -> None:
        raise Hang

    limits = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = signal.signal(signal.SIGALRM, stop)
    try:
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, limits[1]))
        signal.alarm(SECONDS)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, limits)


def raw(error: BaseException) -> str | None:
    """Why a message is not one sentence of the library, or None if it is."""
    text = re.sub(r"(got|holds|and|is|this) (a |<class ')?NoneType", "got None", str(error))
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    own = trace is not None and _is_raised_here(trace)
    own = own and not isinstance(error, AssertionError)
    if not own and not isinstance(
        error, TypeError | ValueError | OSError | ImportError | RuntimeError
    ):
        return f"a {type(error).__name__}"
    if "\n" in text or not text:
        return "several lines, or none"
    if not own and (_RAW_TORCH.search(text) or _RAW_MORE.search(text)):
        return "raw words"
    if " at 0x" in text:
        return "an address"
    if len(text) > 400:
        return "too long"
    if not (own or re.search(r"[.!?)]$", text)):
        return "not a sentence"
    return None


def outcome(call: Callable[[], Any]) -> tuple[str, str]:
    """What a call did: right, sentence, raw, hang, or an error of the caller; and its message."""
    try:
        with bounded():
            call()
    except Hang:
        return "hang", ""
    except Exception as error:
        steps = traceback.extract_tb(error.__traceback__)
        if steps[-1].filename.endswith("public_calls.py"):
            return "caller", ""  # of the function that the test has given
        problem = raw(error)
        text = " ".join(f"{type(error).__name__}: {error}".split())
        return ("sentence" if problem is None else "raw"), f"{problem or ''} {text}"
    return "right", ""
