"""Measure JAX's and the original's variants in child processes, block by block.

Two libraries in one process share its memory allocator, its thread pools and its memory pages, so
that each is faster or slower than alone, as its users run it. JAX's IDQL update allocates 3,000 to
8,600 new pages per call, fewer if its allocator has kept more memory: it takes from 40 ms (in one
process with a torch whose heap has grown) to 52 ms.

So the parent requests each block from a child over a pipe and idles until the reply; the child
waits on the pipe while the parent measures its own variants. The child itself times its calls, so
that no figure includes the pipe. The child runs ``benchmarks.child``.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import IO, Any

from benchmarks import processes
from benchmarks.timing import Budget, Runner, Timed

__all__ = ["ChildProcess", "RemoteVariant"]

_EXIT_SECONDS = 5.0
"""How long a child may take to end; then it is killed."""


class ChildProcess:
    """A child that measures variants of one case. It starts at the first request.

    Args:
        module: the child calls this module's ``make_variant(variant, workload, settings, plan)``,
            with plain data, for each variant.
        workload: of ``benchmarks.workloads.NAMES``.
        settings: the fields of the workload's settings.
        plan: the fields of the run's plan.

    The child inherits this process's restriction to some cores, which also sets the number of
    JAX's threads. On a GPU JAX allocates memory as needed (unless the environment says otherwise),
    not three quarters of the card at once, because torch uses the same card.
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
        self._resources = ExitStack()
        self._child: subprocess.Popen[str] | None = None
        self._errors: IO[bytes] | None = None

    def request(self, content: Mapping[str, Any]) -> Any:
        """Send a request and return the child's reply.

        Raises:
            RuntimeError: the request failed or the child exited; with the child's message.
        """
        child = self._started()
        assert child.stdin is not None and child.stdout is not None
        try:
            child.stdin.write(json.dumps(dict(content)) + "\n")
            child.stdin.flush()
            line = child.stdout.readline()
        except OSError:  # a broken pipe
            line = ""
        if not line.endswith("\n"):
            raise RuntimeError(self._exit_message(child))
        reply = json.loads(line)
        if "error" in reply:
            raise RuntimeError(reply["error"])
        return reply["done"]

    def close(self) -> None:
        """End the child, if it was started, and wait for it."""
        self._resources.close()
        self._child = self._errors = None

    def _started(self) -> subprocess.Popen[str]:
        if self._child is None:
            # a file, not a pipe: a pipe that nobody reads fills up
            errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the resources)
            self._errors = self._resources.enter_context(errors)
            self._child = subprocess.Popen(
                processes.command(self._task),
                env={"XLA_PYTHON_CLIENT_PREALLOCATE": "false", **os.environ},
                cwd=processes.ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                text=True,
            )
            self._resources.callback(_end, self._child)
        return self._child

    def _exit_message(self, child: subprocess.Popen[str]) -> str:
        assert self._errors is not None
        try:
            status = child.wait(_EXIT_SECONDS)
        except subprocess.TimeoutExpired:  # it closed its end of the pipe and continues
            status = _end(child)
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        message = f"the child process exited with status {status}"
        return f"{message}: {lines[-1].strip()}" if lines else message


def _end(child: subprocess.Popen[str]) -> int:
    """End a child, wait for it, and return its status."""
    for stream in (child.stdin, child.stdout):
        with suppress(OSError):  # the pipe may be broken
            if stream is not None:
                stream.close()
    child.terminate()
    try:
        return child.wait(_EXIT_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        return child.wait()


@dataclass(frozen=True)
class RemoteVariant:
    """A variant that a child process measures; ``interleave`` takes it like a local one."""

    name: str
    process: ChildProcess

    def runner(self, wait_each: bool, clock: Callable[[], float]) -> Runner:
        """Its runner; the child uses its own clock."""
        return _RemoteRunner(self, wait_each)


class _RemoteRunner:
    """The :class:`Runner` of a remote variant."""

    def __init__(self, variant: RemoteVariant, wait_each: bool) -> None:
        self._variant, self._wait_each = variant, wait_each
        self._timed = Timed(variant.name, (), 0, 0.0, 0.0)

    def start(self, budget: Budget) -> None:
        self._request("start", budget=dataclasses.asdict(budget), wait_each=self._wait_each)

    def block(self) -> None:
        self._request("block")

    def timed(self) -> Timed:
        return self._timed

    def drop(self) -> None:
        """Do nothing: the child drops a variant that fails."""

    def _request(self, do: str, **more: Any) -> None:
        content = {"do": do, "variant": self._variant.name, **more}
        found = self._variant.process.request(content)
        self._timed = Timed(**{**found, "rates": tuple(found["rates"])})
