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
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from parity.cases import Case, Options
from parity.cases.learners import DOUBLE, SINGLE, pixel_learners, state_learners
from parity.compare import Result, attempt, compared
from parity.store import entry, write_whole


def _idql(learner: str) -> Options:
    # Dropout on in both; weights by advantage in the general learner, so that the three networks
    # of the algorithm all meet.
    kwargs: Options = {
        "actor_dropout_rate": 0.1,
        "critic_hidden_dims": [32, 32],
        "actor_num_blocks": 1,
        "time_dim": 16,
    }
    if learner == "general":
        kwargs |= {
            "actor_architecture": "ln_resnet",
            "actor_layer_norm": True,
            "actor_objective": "soft_adv",
        }
    return {
        "learner": learner,
        "seed": 0,
        "obs_dim": 5,
        "act_dim": 3,
        "kwargs": kwargs,
        "batch": 32,
        "batch_seed": 1,
        "method": "update",
        "choose": ["eval_actions"],
        "observations": 10,
        "together": False,
    }


def _residual(settings: Options) -> Options:
    # Actions are compared before the updates in float32: Adam's first steps have the size of the
    # learning rate however small a gradient is, so that rounding alone moves both sides by 1e-3.
    return {**settings, "batch": 4, "act_first": True}


def live_learners(size: str) -> dict[str, Options]:
    """Settings of the learners that are run live, by name: the learner, and perhaps a variant.

    Those of the saved cases, or, with ``size="default"``, their options on the original's default
    networks and on observations and images of an ordinary size.
    """
    saved = {**state_learners(), **pixel_learners()}
    chosen = {
        "simple": _idql("simple"),
        "general": _idql("general"),
        "bc": saved["bc"]["decay"],
        "bc-entropy": saved["bc"]["entropy-dropout"],
        "iql": saved["iql"]["antmaze"],
        "sac": saved["sac"]["plain"],
        "sac-no_backup": {**saved["sac"]["no_backup"], "utd_ratio": 2},
        "redq": saved["redq"]["utd-4"],
        "droq": saved["droq"]["utd-2"],
        "td3": saved["td3"]["plain"],
        "td3-dropout": {**saved["td3"]["dropout"], "utd_ratio": 2},
        "drq": saved["drq"]["dropout"],
        "drq-packed": saved["drq"]["state-packed"],
        "drq-cameras": saved["drq"]["everything"],
        "drq-resnet": _residual(saved["drq"]["resnet"]),
        "pixel_bc": saved["pixel_bc"]["dropout"],
        "pixel_bc-cameras": saved["pixel_bc"]["everything"],
        "pixel_bc-resnet": _residual(saved["pixel_bc"]["resnet"]),
    }
    if size != "small":
        chosen = {name: _enlarged(settings) for name, settings in chosen.items()}
    return {name: {**settings, "keep": 512} for name, settings in chosen.items()}


_SIZES = (
    *("critic_hidden_dims", "actor_num_blocks", "time_dim"),
    *("hidden_dims", "latent_dim", "cnn_features", "cnn_filters", "cnn_strides"),
)
"""What a small network is small by."""


def _enlarged(settings: Options) -> Options:
    kwargs = {name: value for name, value in settings["kwargs"].items() if name not in _SIZES}
    if "space" not in settings:
        return {**settings, "kwargs": kwargs, "obs_dim": 17, "act_dim": 6, "batch": 64}
    space = {
        name: [48, 48, *shape[2:]] if len(shape) == 4 else shape
        for name, shape in settings["space"].items()
    }
    return {**settings, "kwargs": kwargs, "space": space, "batch": 8}


def live_cases(
    size: str,
    float_steps: int,
    double_steps: int,
    pixel_steps: int,
    learner: str | None = None,
    only: str | None = None,
) -> list[Case]:
    """The whole course of each learner in float32 and, over states, in double precision.

    Args:
        learner: the first part of a name of :func:`live_learners`; its variants come with it.
        only: the beginning of a case's name.

    Raises:
        ValueError: nothing is left of the cases.
    """
    cases = []
    for name, settings in live_learners(size).items():
        if learner is not None and name.partition("-")[0] != learner:
            continue
        pixels = "space" in settings
        runs = [(False, pixel_steps if pixels else float_steps, SINGLE)]
        if not pixels:
            runs.append((True, double_steps, DOUBLE))
        elif settings.get("act_first"):  # the residual encoder, whose float32 runs drift apart
            runs.append((True, pixel_steps, DOUBLE))
        for x64, steps, kinds in runs:
            title = f"{name}-{'double' if x64 else 'float32'}-{steps}-updates"
            if title.startswith(only or ""):
                first = min(settings.get("first_gradient", 1), steps)
                whole = {**settings, "steps": steps, "x64": x64, "first_gradient": first}
                whole["act_first"] = settings.get("act_first", False) and not x64
                cases.append(Case(f"live-{name}", title, "course", whole, kinds))
    if not cases:
        names = ", ".join(dict.fromkeys(n.partition("-")[0] for n in live_learners(size)))
        raise ValueError(
            f"no run of learner {learner or 'any'!r} begins with {only or ''!r}; "
            f"the learners are {names}."
        )
    return cases


def worker(upstream: Path, cases: Path, out: Path) -> None:
    """The original's half: run the cases in a file, save their tensors."""
    from parity.recording import checked_backend, save_cases

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


def live(cases: list[Case], upstream: Path, python: Path, compiled: bool = False) -> list[Result]:
    """Run both sides on the cases, at the same time, and compare."""
    from rich.progress import track

    from parity.torch_backend import TorchBackend

    backend = TorchBackend("compiled" if compiled else "eager")
    with ThreadPoolExecutor(1) as pool:
        expected = pool.submit(run_upstream, cases, upstream, python)
        runs = [
            attempt(backend, case)
            for case in track(cases, description="running both", transient=True)
        ]
        tensors = expected.result()
    return [compared(case, run, tensors[case.name]) for case, run in zip(cases, runs, strict=True)]


def live_command(args: argparse.Namespace) -> int:
    """``python -m parity live``: 0 when every promise holds, else 1."""
    import torch

    from parity import tables

    if args.size == "small":
        # A second thread costs more than it brings on tensors as small as these.
        torch.set_num_threads(1)
    cases = live_cases(
        args.size,
        args.float_steps,
        args.double_steps,
        args.pixel_steps,
        args.learner,
        args.only,
    )
    results = live(cases, args.upstream, args.reference_python, args.compiled)
    mode = "compiled" if args.compiled else "eager"
    tables.show(results, f"the port ({mode}) beside the original, {args.size} networks")
    if args.json is not None:
        write_whole(args.json, json.dumps(tables.as_json(results), indent=1).encode())
    return 0 if all(r.passed for r in results) else 1
