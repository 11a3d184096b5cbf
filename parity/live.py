"""Run the original and the port side by side, from the same seeds.

This is for runs that are too long, too large or too many to store: a thousand updates in double
precision with dropout and then actions, or any number of random settings
(:mod:`parity.random_settings`). The original runs in another process with its own environment
(:mod:`parity.original.process`).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from parity.cases import Case, Options
from parity.cases.flow import flow_learners
from parity.cases.learners import DOUBLE, SINGLE, pixel_learners, state_learners
from parity.compare import Result, attempt, compared
from parity.original import process
from parity.original.originals import FQL, IDQL, Original, original_of
from parity.original.process import reference
from parity.random_settings import random_case
from parity.store import write_whole

if TYPE_CHECKING:
    from parity.modes import Mode

_EVERY = 2**62
"""More entries than any parameter has, so that a curve omits none."""


def _idql(learner: str) -> Options:
    # both use dropout; the general learner weights by advantage, so that all three networks of
    # the algorithm affect each other
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
    # in float32, actions are compared before the updates: Adam's first steps have the size of the
    # learning rate even for tiny gradients, so that rounding alone moves both sides by 1e-3
    return {**settings, "batch": 4, "act_first": True}


def _idql_learners() -> dict[str, Options]:
    saved = {**state_learners(), **pixel_learners()}
    return {
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


def _flow_learners() -> dict[str, Options]:
    saved = flow_learners()
    return {
        "fql": saved["fql"]["plain"],
        "fql-normalized": saved["fql"]["normalized"],
        "ifql": saved["ifql"]["plain"],
        "rebrac": saved["rebrac"]["regularised"],
    }


def live_learners(size: str, original: Original = IDQL) -> dict[str, Options]:
    """Settings of an original's learners that run live: a learner, or a learner and a variant.

    They are those of the saved cases or, with ``size="default"``, their options with the original's
    default networks and with observations and images of an ordinary size.
    """
    chosen = _flow_learners() if original is FQL else _idql_learners()
    if size != "small":
        chosen = {name: _enlarged(settings) for name, settings in chosen.items()}
    return {name: {**settings, "keep": 512} for name, settings in chosen.items()}


_SIZES = (
    *("critic_hidden_dims", "actor_num_blocks", "time_dim"),
    *("actor_hidden_dims", "value_hidden_dims"),
    *("hidden_dims", "latent_dim", "cnn_features", "cnn_filters", "cnn_strides"),
)
"""The options that set the size of a network."""


def _enlarged(settings: Options) -> Options:
    kwargs = {name: value for name, value in settings["kwargs"].items() if name not in _SIZES}
    if "space" not in settings:
        return {**settings, "kwargs": kwargs, "obs_dim": 17, "act_dim": 6, "batch": 64}
    space = {
        name: [48, 48, *shape[2:]] if len(shape) == 4 else shape
        for name, shape in settings["space"].items()
    }
    return {**settings, "kwargs": kwargs, "space": space, "batch": 8}


def curve_steps(last: int) -> list[int]:
    """The numbers of updates at which a curve has points: 1, 2, 5, 10, 20, 50 … and ``last``.

    >>> curve_steps(100)
    [1, 2, 5, 10, 20, 50, 100]
    """
    steps = {first * 10**power for first in (1, 2, 5) for power in range(len(str(last)))}
    return sorted({step for step in steps if step < last} | {last})


def live_cases(
    size: str,
    float_steps: int,
    double_steps: int,
    pixel_steps: int,
    learner: str | None = None,
    only: str | None = None,
    curve: bool = False,
    original: Original = IDQL,
) -> list[Case]:
    """A run of each learner in float32 and, for learners on states, in double precision.

    Args:
        learner: the first part of a name of :func:`live_learners`; its variants are included.
        only: the beginning of a case's name.
        curve: whether runs in double precision record every parameter at the points of a curve.
        original: whose learners.

    Raises:
        ValueError: if no case is left.
    """
    cases = []
    for name, settings in live_learners(size, original).items():
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
            title += "" if size == "small" else f"-{size}"
            if title.startswith(only or ""):
                first = min(settings.get("first_gradient", 1), steps)
                whole = {**settings, "steps": steps, "x64": x64, "first_gradient": first}
                whole["act_first"] = settings.get("act_first", False) and not x64
                if curve and x64:
                    whole |= {"curve": curve_steps(steps), "keep": _EVERY}
                promises = {**kinds, "curve": "double"} if "curve" in whole else kinds
                cases.append(Case(f"live-{name}", title, "course", whole, promises))
    if not cases:
        names = ", ".join(dict.fromkeys(n.partition("-")[0] for n in live_learners(size, original)))
        raise ValueError(
            f"no run of learner {learner or 'any'!r} begins with {only or ''!r}; "
            f"the learners are {names}."
        )
    return cases


def live(
    cases: list[Case],
    upstream: Path,
    python: Path,
    mode: Mode = "eager",
    folder: Path | None = None,
    each: Callable[[Result], None] = lambda result: None,
) -> list[Result]:
    """Run both sides on the cases, at the same time, and compare.

    Settings for which the original raises an error count as a failure.

    Args:
        cases: what to run.
        upstream: checkout of the original.
        python: Python of the JAX environment.
        mode: how the port runs.
        folder: keeps the original's tensors; cases whose tensors it holds are not run again.
        each: called with each result.

    Raises:
        FileNotFoundError: if the Python does not exist.
        RuntimeError: the original's process ended early.
    """
    from parity.port.backend import TorchBackend

    backend, results = TorchBackend(mode), []
    with process.original(cases, upstream, python, folder) as tensors:
        for case in cases:
            begin = time.perf_counter()
            run = attempt(backend, case)
            seconds = time.perf_counter() - begin
            expected = tensors(case)
            if isinstance(expected, str):
                message = f"the original rejects these settings: {expected}"
                result = Result(case, (), message, mode, seconds)
            else:
                result = compared(case, run, expected)
                result = dataclasses.replace(result, mode=mode, seconds=seconds)
            results.append(result)
            each(result)
    return results


def progress_line(result: Result) -> str:
    """One line about a case: the tensor nearest to its bound, or what failed."""
    from parity.tables import failures

    if not result.passed:
        return f"FAIL {failures([result])[0]}"
    # with a bound of zero a passing tensor is equal
    bounded = [f for f in result.findings if f.bound > 0]
    worst = max(bounded, key=lambda f: f.error / f.bound)
    return (
        f"ok {result.case.id}: {len(result.findings)} tensors, the nearest to its bound "
        f"{worst.tensor}: {worst.error:.1e} of {worst.bound:.0e}"
    )


def _drawn(args: argparse.Namespace) -> list[Case]:
    """The cases of ``--seeds``."""
    others = {"--learner": args.learner, "--only": args.only, "--curve": args.curve}
    if given := [name for name, value in others.items() if value is not None]:
        raise ValueError(f"--seeds draws all settings: omit {given[0]}.")
    if args.seeds < 1:
        raise ValueError(f"--seeds must be at least 1, got {args.seeds}.")
    cases = [random_case(args.first_seed + i) for i in range(args.seeds)]
    # JAX compiles again when one of these changes
    return sorted(cases, key=lambda c: (c.settings["x64"], c.settings["partitionable"]))


def _curve_command(args: argparse.Namespace) -> str:
    """The command that made a curve, without paths of this machine."""
    command = f"python -m parity live --size {args.size} --double-steps {args.double_steps}"
    for name in ("learner", "only"):
        value = getattr(args, name)
        command += "" if value is None else f" --{name} {value}"
    return f"{command} --curve {args.curve.name}"


def live_command(args: argparse.Namespace) -> int:
    """``python -m parity live``: 0 if all tensors are within bounds, else 1."""
    import torch
    from rich.progress import Progress

    from parity import tables
    from parity.curve import curve_table, write_curve

    if args.size == "small":
        # with tensors this small, a second thread makes it slower
        torch.set_num_threads(1)
    if args.seeds is not None:
        cases, what = _drawn(args), "random settings"
    else:
        steps = (args.float_steps, args.double_steps, args.pixel_steps)
        curve = args.curve is not None
        original = original_of(args.upstream)
        cases = live_cases(args.size, *steps, args.learner, args.only, curve, original)
        what = f"{args.size} networks"
    manifest, begin = reference(args.reference_python, args.upstream), time.perf_counter()
    with Progress(transient=True) as progress:
        task = progress.add_task("running both", total=len(cases))

        def each(result: Result) -> None:
            progress.print(progress_line(result), markup=False, highlight=False, soft_wrap=True)
            progress.advance(task)

        results = live(cases, args.upstream, args.reference_python, args.mode, args.keep, each)
    tables.show(results, f"the port ({args.mode}) and the original, {what}")
    figures = tables.as_json(results, manifest, wall=time.perf_counter() - begin)
    if args.json is not None:
        write_whole(args.json, json.dumps(figures, indent=1).encode())
    if args.curve is not None:
        for line in curve_table(results):
            progress.console.print(line, highlight=False, markup=False, soft_wrap=True)
        write_curve(args.curve, results, figures, _curve_command(args))
    failed = [r.case.name.removeprefix("seed-") for r in results if not r.passed]
    if failed and args.seeds is not None:
        print(
            f"failed: {', '.join(failed)}; again with `python -m parity live --upstream PATH "
            f"--reference-python PATH --first-seed {failed[0]} --seeds 1`"
        )
    return 1 if failed else 0
