"""The variants of others in a process of their own, whose blocks still alternate with ours.

Two libraries in one process share its memory allocator, its thread pools and the pages of memory
that one of them has asked for; what either gains by that its users, who have it alone, do not get.
JAX's IDQL update asks the system for 3,000 to 8,600 fresh pages a call, the fewer the more its
allocator has kept, and takes from 40 ms beside a torch whose heap it finds grown to 52 ms.
So the parent asks a child for each block over a pipe and is idle until it
answers; the child waits on the pipe while the parent measures its own. The child's clock stands
around its calls, so that the pipe is in no figure.

The child's side imports the standard library and NumPy; what it measures brings the rest along.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import IO, Any

from benchmarks import children
from benchmarks.timing import Budget, Runner, Timed

__all__ = ["Elsewhere", "Process", "serve"]

_SECONDS_TO_END = 5.0
"""For a child that is told to; then it is killed."""


# --- in the parent ------------------------------------------------------------------------


class Process:
    """A child that measures variants of one case, started by the first question and to be closed.

    Args:
        module: where its variants come from: the module's function ``named(variant, workload,
            settings, plan)`` makes each, from these plain data.
        workload: of ``benchmarks.workloads.NAMES``.
        settings: the fields of the workload's settings.
        plan: the fields of the run's plan.

    The child runs on the cores that this process is confined to, which also sets the number of
    JAX's threads. On a GPU JAX takes memory as it needs it (unless the environment says
    otherwise), not three quarters of the card at once, which the parent's side shares.
    """

    def __init__(
        self, module: str, workload: str, settings: Mapping[str, Any], plan: Mapping[str, Any]
    ) -> None:
        self._task = {
            "what": "blocks",
            "module": module,
            "workload": workload,
            "settings": dict(settings),
            "plan": dict(plan),
        }
        self._held = ExitStack()
        self._child: subprocess.Popen[str] | None = None
        self._said: IO[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The child's, once it is started."""
        return None if self._child is None else self._child.pid

    def ask(self, question: Mapping[str, Any]) -> Any:
        """The child's answer.

        Raises:
            RuntimeError: what was asked for failed, or the child ended; with what it said.
        """
        child = self._started()
        assert child.stdin is not None and child.stdout is not None
        try:
            child.stdin.write(json.dumps(dict(question)) + "\n")
            child.stdin.flush()
            line = child.stdout.readline()
        except OSError:  # a broken pipe
            line = ""
        if not line.endswith("\n"):
            raise RuntimeError(self._last_words(child))
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["done"]

    def close(self) -> None:
        """End the child, if one was started, and wait until it is gone."""
        self._held.close()
        self._child = self._said = None

    def _started(self) -> subprocess.Popen[str]:
        if self._child is None:
            # no pipe: one that nobody reads fills up
            said = tempfile.TemporaryFile()  # noqa: SIM115 (closed with what is held)
            self._said = self._held.enter_context(said)
            self._child = subprocess.Popen(
                children.command(self._task),
                env={"XLA_PYTHON_CLIENT_PREALLOCATE": "false", **os.environ},
                cwd=children.ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._said,
                text=True,
            )
            self._held.callback(_end, self._child)
        return self._child

    def _last_words(self, child: subprocess.Popen[str]) -> str:
        assert self._said is not None
        try:
            status = child.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:  # it closed its end and goes on
            status = _end(child)
        self._said.seek(0)
        said = self._said.read().decode(errors="replace").strip().splitlines()
        ended = f"its process ended with status {status}"
        return f"{ended}: {said[-1].strip()}" if said else ended


def _end(child: subprocess.Popen[str]) -> int:
    """End a child, wait until it is gone, and return its status."""
    for stream in (child.stdin, child.stdout):
        with suppress(OSError):  # what could not be written once cannot be now
            if stream is not None:
                stream.close()
    child.terminate()
    try:
        return child.wait(_SECONDS_TO_END)
    except subprocess.TimeoutExpired:
        child.kill()
        return child.wait()


@dataclass(frozen=True)
class Elsewhere:
    """A variant that a child measures; to ``interleave`` as good as one of this process."""

    name: str
    process: Process

    def runner(self, wait_each: bool, clock: Callable[[], float]) -> Runner:
        """It in a measurement; the clock is the child's own."""
        return _Asking(self, wait_each)


class _Asking:
    """The :class:`Runner` of a variant in a child."""

    def __init__(self, variant: Elsewhere, wait_each: bool) -> None:
        self._variant, self._wait_each = variant, wait_each
        self._timed = Timed(variant.name, (), 0, 0.0, 0.0)

    def start(self, budget: Budget) -> None:
        self._ask("start", budget=dataclasses.asdict(budget), wait_each=self._wait_each)

    def block(self) -> None:
        self._ask("block")

    def timed(self) -> Timed:
        return self._timed

    def drop(self) -> None:
        """Nothing: the child has let it go when it failed."""

    def _ask(self, do: str, **more: Any) -> None:
        found = self._variant.process.ask({"do": do, "variant": self._variant.name, **more})
        self._timed = Timed(**{**found, "rates": tuple(found["rates"])})


# --- in the child -------------------------------------------------------------------------


def serve(task: Mapping[str, Any]) -> int:
    """Answer the parent's questions, a line of JSON each, until there are no more of them.

    What a library prints goes to the standard error stream: the other one is the parent's.
    """
    with ExitStack() as stack:
        questions = stack.enter_context(os.fdopen(os.dup(0), encoding="utf-8"))
        answers = stack.enter_context(os.fdopen(os.dup(1), "w", encoding="utf-8"))
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        sys.stdout.flush()
        os.dup2(2, 1)
        runners: dict[str, Runner] = {}
        for line in questions:
            question = json.loads(line)
            name = question["variant"]
            try:
                answer = {"done": dataclasses.asdict(_measured(task, question, runners))}
            except Exception as error:
                runners.pop(name, None)
                answer = {"error": f"{type(error).__name__}: {error}"}
            print(json.dumps(answer), file=answers, flush=True)
    return 0


def _measured(
    task: Mapping[str, Any], question: Mapping[str, Any], runners: dict[str, Runner]
) -> Timed:
    name = question["variant"]
    if question["do"] == "start":
        module = importlib.import_module(task["module"])
        variant = module.named(name, task["workload"], task["settings"], task["plan"])
        runners[name] = variant.runner(question["wait_each"], time.perf_counter)
        runners[name].start(Budget(**question["budget"]))
    else:
        runners[name].block()
    return runners[name].timed()
