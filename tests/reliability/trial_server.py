"""A process that has imported everything and computes nothing: trials are its children, by fork.

Imports take seconds, a trial less than one. Each worker of the tests starts one such process, which
reads a request from each line of its input and answers it with one line.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any


class Server:
    """The process, which is started at the first request."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def examine(self, kind: str, command: str, folder: Path, trials: int) -> dict[str, Any]:
        """Make the trials of a kind, ``kills`` or ``full disk``, on a command in a new folder."""
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, Path(__file__)],
                env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        assert self._process.stdin is not None and self._process.stdout is not None
        print(
            json.dumps([kind, command, str(folder), trials]), file=self._process.stdin, flush=True
        )
        answer = self._process.stdout.readline()
        assert answer, "the process of the trials has died"
        return json.loads(answer)

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.communicate(timeout=60)


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what trials print is no answer
    import full_disk_process
    import killed_process
    import torch

    torch.set_num_threads(1)
    examine = {"kills": killed_process.examine, "full disk": full_disk_process.examine}
    for line in sys.stdin:
        kind, command, folder, trials = json.loads(line)
        try:
            found = examine[kind](command, Path(folder), trials)
        except Exception:
            found = {"failures": [traceback.format_exc()[-3000:]], "counts": {}}
        print(json.dumps(found), file=answers, flush=True)


if __name__ == "__main__":
    main()
