"""Run the original for `live`, in a process of the reference Python, with one file for each case.

Its tensors are files in a folder, named by a hash of the case and written atomically. So results
can be read while it runs, an interrupted run continues, and with a folder that is kept the original
does not run the same cases again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file

from parity.cases import COMMIT, Case
from parity.compare import Tensors, attempt
from parity.original.originals import original_of
from parity.store import entry, save_tensors, write_whole

_WAIT = 0.05


def _name(case: Case) -> str:
    """A hash of what the case computes, 16 hexadecimal digits, without name and bounds."""
    text = json.dumps([COMMIT, case.program, case.settings], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _files(folder: Path, case: Case) -> tuple[Path, Path]:
    """The files of the case's tensors, and of the original's error message."""
    return folder / f"{_name(case)}.safetensors", folder / f"{_name(case)}.error"


def worker(upstream: Path, cases: Path, out: Path) -> None:
    """Run the original on the cases in a file, in the JAX environment, and save its outputs.

    Cases whose tensors are in ``out`` already are skipped.
    """
    backend = original_of(upstream).checked_backend(upstream)
    for case in (Case(**listed) for listed in json.loads(cases.read_text())):
        tensors, error = _files(out, case)
        if tensors.is_file():
            continue
        begin = time.perf_counter()
        run = attempt(backend, case)
        if isinstance(run, str):
            write_whole(error, run.encode())
        else:
            save_tensors(tensors, run)
        print(f"{case.id}: {time.perf_counter() - begin:.1f} s", file=sys.stderr, flush=True)


def _command(python: Path, *arguments: str) -> tuple[list[str], Path, dict[str, str]]:
    """Command, working directory and environment of the reference Python's process."""
    if not python.is_file():
        raise FileNotFoundError(f"{python} is no Python of the JAX environment")
    root = Path(__file__).resolve().parents[2]
    return [str(python), *arguments], root, {**os.environ, "PYTHONPATH": str(root)}


def reference(python: Path, upstream: Path) -> dict[str, Any]:
    """Commit and versions of the original in a live run, in the form of a manifest.

    Raises:
        FileNotFoundError: if the Python does not exist, or ``upstream`` is no checkout.
        RuntimeError: if packages are missing there.
    """
    original = original_of(upstream)
    code = (
        "import json; from parity.functions import versions; "
        f"print(json.dumps(versions({original.packages!r})))"
    )
    command, root, environment = _command(python, "-c", code)
    result = subprocess.run(
        command, cwd=root, env=environment, capture_output=True, text=True, check=False
    )
    if result.returncode != 0:
        raise RuntimeError(
            f"{python} is no Python of the JAX environment: {_last_line(result.stderr)}"
        )
    return {"upstream": original.source, "versions": json.loads(result.stdout)}


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no message"])[-1]


@contextlib.contextmanager
def original(
    cases: list[Case], upstream: Path, python: Path, folder: Path | None = None
) -> Iterator[Callable[[Case], Tensors | str]]:
    """Start the original on ``cases`` and yield a function that waits for a case's tensors.

    If the original raises an error on a case, the function returns its message instead.

    Args:
        cases: what to run, in this order.
        upstream: checkout of the original.
        python: Python of the JAX environment.
        folder: where tensors are kept and reused; default: a temporary folder.

    Raises:
        FileNotFoundError: if the Python does not exist.
        RuntimeError: raised by the function if the process ended early; with its last line.
    """
    command, root, environment = _command(python, "-m", "parity", "live-worker")
    with tempfile.TemporaryDirectory() as temporary, contextlib.ExitStack() as stack:
        out = Path(temporary) if folder is None else folder
        for case in cases:  # cases that failed in an earlier run are run again
            _files(out, case)[1].unlink(missing_ok=True)
        listed, stderr = Path(temporary) / "cases.json", Path(temporary) / "stderr"
        write_whole(listed, json.dumps([entry(case) for case in cases]).encode())
        where = {"--upstream": upstream.resolve(), "--cases": listed, "--out": out.resolve()}
        process = subprocess.Popen(
            [*command, *(str(part) for pair in where.items() for part in pair)],
            cwd=root,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=stack.enter_context(stderr.open("w")),
        )

        def tensors(case: Case) -> Tensors | str:
            saved, error = _files(out, case)
            while True:
                # Polled before the files are read, so that the last file is not missed.
                ended = process.poll()
                if saved.is_file():
                    return load_file(saved)
                if error.is_file():
                    return error.read_text()
                if ended is not None:
                    message = _last_line(stderr.read_text())
                    raise RuntimeError(f"the original's process ended with {ended}: {message}")
                time.sleep(_WAIT)

        try:
            yield tensors
        finally:
            process.terminate()
            process.wait()
