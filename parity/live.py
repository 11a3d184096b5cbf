"""Run the original and the port side by side, from the same seeds.

For runs that are too long, or too large, to be saved: a thousand updates in double precision with
dropout on, and action choice after them. The original runs in a process of its own, in its own
environment, and hands its tensors over in a file.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from parity.cases import Case, Options
from parity.store import entry, write_whole


def _settings(learner: str, size: str) -> Options:
    base: Options = {
        "learner": learner,
        "seed": 0,
        "obs_dim": 17 if size == "default" else 5,
        "act_dim": 6 if size == "default" else 3,
        "batch": 64 if size == "default" else 32,
        "batch_seed": 1,
        "method": "update",
        "keep": 512,
    }
    # Dropout on in both; weights by advantage in the general learner, so that the three networks
    # of the algorithm all meet.
    kwargs: Options = {"actor_dropout_rate": 0.1}
    if learner == "general":
        kwargs |= {
            "actor_architecture": "ln_resnet",
            "actor_layer_norm": True,
            "actor_objective": "soft_adv",
        }
    if size == "small":
        kwargs |= {"critic_hidden_dims": [32, 32], "actor_num_blocks": 1, "time_dim": 16}
    return {**base, "kwargs": kwargs}


def live_cases(size: str, float_steps: int, double_steps: int) -> list[Case]:
    """Float32 and double-precision runs of both learners, and actions after each."""
    single = {
        "rng": "bits",
        "losses": "loss",
        "means": "mean",
        "params": "state",
        "norms": "state",
    }
    double = {
        "rng": "bits",
        "losses": "double_loss",
        "means": "double",
        "params": "double",
        "norms": "double",
    }
    cases = []
    for learner in ("simple", "general"):
        for x64, steps, kinds in ((False, float_steps, single), (True, double_steps, double)):
            settings = {**_settings(learner, size), "steps": steps, "x64": x64}
            name = f"{learner}-{'double' if x64 else 'float32'}"
            acts = {**settings, "choose": "eval_actions", "observations": 10}
            cases.append(
                Case(f"live-{learner}", f"{name}-{steps}-updates", "run_and_act", acts, kinds)
            )
    # The actions come out of the same learner, after its last update.
    return [replace(c, kinds={**c.kinds, "actions": "action", "keys": "bits"}) for c in cases]


def worker(upstream: Path, cases: Path, out: Path) -> None:
    """The original's half: run the cases in a file, save their tensors."""
    from parity.record import checked_backend, save_cases

    listed = [Case(**case) for case in json.loads(cases.read_text())]
    save_cases(listed, checked_backend(upstream), out)


def run_upstream(
    cases: list[Case], upstream: Path, python: Path
) -> dict[str, dict[str, np.ndarray]]:
    """Tensors of the original for the given cases, from a process of the reference Python.

    Raises:
        RuntimeError: that process failed; its last line says why.
        FileNotFoundError: there is no such Python.
    """
    if not python.is_file():
        raise FileNotFoundError(f"{python} is no Python of the JAX environment")
    root = Path(__file__).resolve().parent.parent
    with tempfile.TemporaryDirectory() as folder:
        listed, out = Path(folder) / "cases.json", Path(folder) / "out.safetensors"
        write_whole(listed, json.dumps([entry(case) for case in cases]).encode())
        command = [str(python), "-m", "parity", "live-worker", "--upstream"]
        done = subprocess.run(
            [*command, str(upstream.resolve()), "--cases", str(listed), "--out", str(out)],
            cwd=root,
            env={**os.environ, "PYTHONPATH": str(root)},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise RuntimeError(f"the original's process ended with {done.returncode}: {last}")
        tensors: dict[str, dict[str, np.ndarray]] = {}
        for name, array in load_file(out).items():
            case, _, tensor = name.partition("::")
            tensors.setdefault(case, {})[tensor] = array
        return tensors


def live(
    upstream: Path,
    python: Path,
    *,
    size: str = "small",
    float_steps: int = 25,
    double_steps: int = 1000,
    compiled: bool = False,
    only: str | None = None,
) -> list[Any]:
    """Run both sides on the live cases and compare.

    Raises:
        ValueError: ``only`` begins no case's name.
    """
    from parity.compare import run_case
    from parity.torch_backend import TorchBackend

    cases = live_cases(size, float_steps, double_steps)
    if only is not None:
        names = ", ".join(case.name for case in cases)
        cases = [case for case in cases if case.name.startswith(only)]
        if not cases:
            raise ValueError(f"no case begins with {only!r}; there are {names}")
    expected = run_upstream(cases, upstream, python)
    backend = TorchBackend(compiled)
    return [run_case(backend, case, expected[case.name]) for case in cases]


def live_command(args: argparse.Namespace) -> int:
    """``python -m parity live``: 0 when every promise holds, else 1."""
    import torch

    from parity import report

    if args.size == "small":
        # A second thread costs more than it brings on tensors as small as these.
        torch.set_num_threads(1)
    results = live(
        args.upstream,
        args.reference_python,
        size=args.size,
        float_steps=args.float_steps,
        double_steps=args.double_steps,
        compiled=args.compiled,
        only=args.only,
    )
    mode = "compiled" if args.compiled else "eager"
    report.show(results, f"the port ({mode}) beside the original, {args.size} networks")
    if args.json is not None:
        write_whole(args.json, json.dumps(report.as_json(results), indent=1).encode())
    return 0 if all(r.passed for r in results) else 1
