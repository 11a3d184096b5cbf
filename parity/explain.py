"""Replay one case and name the first tensor, in order of computation, that is out of its bound.

A learner's run does not show where it went wrong: after one wrong number all are wrong. So first an
update of the same kind of learner is replayed for which all network calls were recorded (group
``calls``), and for a network its layers (group ``layers``). The error is at the first tensor out of
bounds there, since all tensors before it are within bounds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape

from parity import tables
from parity.bounds import promised
from parity.cases import Case
from parity.checking import check_machine, full_precision
from parity.compare import Finding, Result, Tensors, attempt, compared, worst_place
from parity.modes import MODES, Mode, modes_of
from parity.store import REFERENCE, RecordError, find_case, listed_cases, recorded

BEFORE, AFTER = 3, 5
"""The number of rows shown before the first failure, and of the worst failures after it."""

_INPUTS = {
    "score_model": ("observations", "noisy actions", "times"),
    "actor": ("observations",),
    "critic": ("observations", "actions"),
    "value": ("observations",),
}
_PARTS = {
    "params": "the norms of its parameters",
    "dropout": "its dropout key",
    "out": "its output",
    "loc": "the location of its output",
    "scale": "the deviation of its output",
}


@dataclass(frozen=True)
class Replay:
    """A replayed case: findings, the port's outputs and the recorded ones."""

    result: Result
    actual: Tensors
    expected: Tensors

    @property
    def first(self) -> tuple[Finding, int | None] | None:
        """The first finding out of bounds and, for a series over updates, the first such update.

        Of several series, the one that is out of bounds at the earliest update is taken.
        """
        first = self.result.first_failure
        if first is None or (step := first_failing_step(first)) is None:
            return None if first is None else (first, None)
        series = [
            (at, f) for f in self.result.findings if (at := first_failing_step(f)) is not None
        ]
        step, first = min(series, key=lambda pair: pair[0])
        return first, step


def first_failing_step(finding: Finding) -> int | None:
    """The first update (from 0) at which a series is out of its bound; None for other tensors.

    >>> series = Finding("losses/q", "loss", 2e-3, 1e-3, 0, 0, 0, growth=(0.0, 1e-4, 2e-3))
    >>> first_failing_step(series)
    2
    """
    steps = finding.growth or ()
    if finding.passed or len(steps) < 2 or not finding.tensor.startswith(("losses/", "means/")):
        return None
    return next(i for i, error in enumerate(steps) if not error <= finding.bound)


def intermediate_cases(case: Case, cases: Sequence[Case]) -> list[Case]:
    """Cases with intermediate tensors of the computation of ``case``, equal precision first.

    For a learner: an update with all network calls, of the learner with the most similar options.
    For a network: its layers.
    """
    settings = case.settings
    if case.program in ("network_pass", "sampler"):
        found = [
            other
            for other in cases
            if other.program == "layers" and other.settings["network"] == settings["network"]
        ]
    elif "learner" in settings and case.program not in ("calls", "create"):
        known = [
            other
            for other in cases
            if other.program == "calls" and other.settings["learner"] == settings["learner"]
        ]
        similarities = [
            _similarity(settings["kwargs"], other.settings["kwargs"]) for other in known
        ]
        best = max(similarities, default=0)
        found = [other for other, score in zip(known, similarities, strict=True) if score == best]
    else:
        return []
    wide = bool(settings.get("x64"))
    return sorted(found, key=lambda other: bool(other.settings.get("x64")) != wide)


def _similarity(one: dict[str, Any], other: dict[str, Any]) -> int:
    names = set(one) | set(other)
    return sum(1 if one.get(n) == other.get(n) else -1 for n in names)


def replayed(case: Case, expected: Tensors, mode: Mode = "eager", device: str = "cpu") -> Replay:
    """Run the port on a case."""
    from parity.port.backend import TorchBackend

    with full_precision(mode, device):
        run = attempt(TorchBackend(mode, device), case)
    result = replace(compared(case, run, expected), mode=mode)
    return Replay(result, {} if isinstance(run, str) else run, expected)


def explain(
    name: str,
    directory: Path = REFERENCE,
    modes: Sequence[Mode] = ("eager",),
    device: str = "cpu",
) -> list[Replay]:
    """Replay the cases with intermediate tensors (eagerly), then the case itself in each mode.

    Args:
        name: ``group/name`` of a recorded case.
        modes: how the case itself runs.
        device: where everything runs.

    Raises:
        RecordError: there is no such case, it does not run in such a mode, or the record is
            damaged.
    """
    cases = listed_cases(directory)
    case = find_case(name, cases)
    if other := next((mode for mode in modes if mode not in modes_of(case)), None):
        raise RecordError(f"{name} does not run {other}, only {' and '.join(modes_of(case))}.")
    replays = [
        replayed(related, _tensors(related, directory), "eager", device)
        for related in intermediate_cases(case, cases)
    ]
    expected = _tensors(case, directory)
    return [*replays, *(replayed(case, expected, mode, device) for mode in modes)]


def _tensors(case: Case, directory: Path) -> Tensors:
    return next(tensors for _, tensors in recorded(directory, case=case.id))


# --- text output ------------------------------------------------------------------------


def label(tensor: str) -> str:
    """A tensor's name, with an explanation where the name alone is unclear.

    >>> label("calls/score_model/0/in1")
    'calls/score_model/0/in1 (noisy actions)'
    >>> label("gradient/critic/0/Dense_0/bias")
    'gradient/critic/0/Dense_0/bias'
    """
    head, *rest = tensor.split("/")
    if tensor == "rng/rng":
        return f"{tensor} (the key at the end)"
    if head == "norms":
        return f"{tensor} (the norm of every leaf)"
    if head not in ("calls", "after", "dropout") or len(rest) < 3:
        return tensor
    network, part = rest[0].removeprefix("target_"), rest[2]
    if part.startswith("in") and part[2:].isdigit():
        names = _INPUTS.get(network, ())
        number = int(part[2:])
        return f"{tensor} ({names[number]})" if number < len(names) else tensor
    known = _PARTS.get(rest[-1] if rest[2] == "out" else part)
    return tensor if known is None else f"{tensor} ({known})"


def _unit(tensor: str) -> str:
    """The unit that a tensor belongs to: a call, a step, a network's parameters, or itself."""
    head, *rest = tensor.split("/")
    if head in ("calls", "after", "dropout", "gradient") and len(rest) > 2:
        return "/".join(["calls" if head == "dropout" else head, *rest[:2]])
    return f"{head}/{rest[0]}" if head == "params" and len(rest) > 1 else tensor


def _before(findings: Sequence[Finding], first: Finding) -> str:
    """The units within bounds before the first failure, then tensors of the same unit."""
    held = [f.tensor for f in findings[: findings.index(first)] if f.passed]
    own = _unit(first.tensor)
    whole = list(dict.fromkeys(_unit(name) for name in held if _unit(name) != own))
    if len(whole) > 20:
        whole = [*whole[:10], f"… ({len(whole) - 20} more)", *whole[-10:]]
    deep = own.count("/") + 1
    parts = [name.split("/", deep)[-1] for name in held if _unit(name) == own]
    if parts:
        whole.append(f"of {own} itself {', '.join(parts)}")
    return "; ".join(whole)


def verdict(replay: Replay) -> str:
    """One sentence: all tensors are within bounds, or the first that is not."""
    result = replay.result
    if result.crash:
        return f"{result.case.id} did not run: {result.crash}"
    if not result.findings:
        return f"{result.case.id} has no reference tensors"
    if (found := replay.first) is None:
        mode = "" if result.mode == "eager" else f" ({result.mode})"
        return f"all {len(result.findings)} tensors of {result.case.id}{mode} are within bounds"
    first, step = found
    _, value, reference = entry_of(replay, first)
    name = label(first.tensor) + ("" if step is None else f" at update {step + 1}")
    off = sum(not f.passed for f in result.findings)
    held = _before(result.findings, first)
    return (
        f"{name}: first of {off} out of bound in {result.case.id}: {value}, reference {reference}; "
        + (f"within bounds before it: {held}" if held else "nothing is computed before it")
    )


def entry_of(replay: Replay, finding: Finding) -> tuple[str, str, str]:
    """The index of a tensor's worst entry (of a series: the first too large), and both values."""
    actual, expected = (side.get(finding.tensor) for side in (replay.actual, replay.expected))
    if actual is None or expected is None or finding.detail.startswith(("shape", "type")):
        return "", finding.detail or "missing", "" if expected is None else str(expected.shape)
    step = first_failing_step(finding)
    place = worst_place(actual, expected) if step is None else (step,)
    return str(list(place)), _figure(actual[place]), _figure(expected[place])


def _figure(value: np.generic) -> str:
    if value.dtype.kind != "f":
        return str(value)
    return f"{value:.12g}" if value.dtype == np.float64 else f"{value:.9g}"


def table(replay: Replay) -> list[str]:
    """Lines with rich's markup: the tensors before the first failure, it, and the worst after it.

    Three lines for each tensor: its name; its error and bound; the worst entry on both sides.
    """
    findings, found = replay.result.findings, replay.first
    title = f"{replay.result.case.id} ({replay.result.mode}), in order of computation"
    lines = [f"[bold]{escape(title)}[/bold]"]
    if found is None:
        return lines
    at = findings.index(found[0])
    later = sorted(
        (i for i in range(at + 1, len(findings)) if not findings[i].passed),
        key=lambda i: -findings[i].error / (findings[i].bound or 1.0),
    )
    shown = [*range(max(at - BEFORE, 0), at + 1), *sorted(later[:AFTER])]
    for previous, i in zip([shown[0] - 1, *shown], shown, strict=False):
        if i > previous + 1:
            lines.append(f"      … {i - previous - 1} more")
        finding = findings[i]
        style = "bold red" if i == at else "none" if finding.passed else "red"
        state = "ok" if finding.passed else "FIRST" if i == at else "off"
        error = f"{tables.figure(finding.error)} {promised(finding.kind).unit}"
        place, actual, expected = entry_of(replay, finding)
        where = f"; worst at {place}" if place else ""
        for line in (
            f"{state:<5} {label(finding.tensor)} ({finding.kind})",
            f"      error {error}, bound {tables.figure(finding.bound)}{where}",
            f"      port {actual}, original {expected}",
        ):
            lines.append(f"[{style}]{escape(line)}[/{style}]")
    if rest := len(findings) - 1 - shown[-1]:
        lines.append(f"      … {rest} more")
    return lines


def show(replays: Sequence[Replay]) -> None:
    """Print a table for each replay that fails, and a verdict for each."""
    console = Console()
    case = replays[-1].result.case
    intermediates = [replay.result.case.id for replay in replays if replay.result.case != case]
    if intermediates:
        console.print(
            f"First, intermediate tensors of {case.id}: {', '.join(intermediates)}", highlight=False
        )
    for replay in replays:
        failed = not replay.result.passed
        if failed and replay.first is not None:
            for line in table(replay):
                console.print(line, highlight=False, soft_wrap=True)
        mark = "[red]FAIL[/red]" if failed else "[green]ok[/green]"
        console.print(mark, end=" ")
        console.print(verdict(replay), highlight=False, soft_wrap=True, markup=False)


def explain_command(name: str, directory: Path, mode: str = "eager", device: str = "cpu") -> int:
    """``python -m parity check --case GROUP/NAME --explain``: 0 if all is within bounds, else 1.

    Args:
        mode: a mode, or ``all`` for every mode of the case.

    Raises:
        RecordError: as :func:`explain`.
        RuntimeError: there is no such device, or no compiler where one is needed.
    """
    case = find_case(name, listed_cases(directory))
    modes: list[Mode] = [
        each for each in MODES if each == mode or (mode == "all" and each in modes_of(case))
    ]
    check_machine(modes, device)
    replays = explain(name, directory, modes, device)
    show(replays)
    return 0 if all(replay.result.passed for replay in replays) else 1
