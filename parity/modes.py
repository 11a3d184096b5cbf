"""The ways in which the port's functions run, and which cases run in which.

``eager``: as they are. ``compiled``: through :func:`idql_func.jit`, with the library's own matrix
products. ``vmapped``: as one member of a stack. :mod:`parity.port.lift` runs them so; what is
decided here is decided by a case's program.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, get_args

from parity.cases import Case

Mode = Literal["eager", "compiled", "vmapped"]
MODES: tuple[Mode, ...] = get_args(Mode)
Part = Literal["update", "choice"]
"""The two jitted parts of a learner."""

_LIFTED = frozenset(
    {
        *("keys", "draws", "losses", "optimiser", "average", "decay_schedule"),
        *("network_pass", "sampler", "subsample", "distribution", "crops"),
        *("run", "act", "course", "estimates"),
    }
)
"""Programs that have every mode: all they ask of the port is a function of tensors. Action choice
ends in NumPy and maps over no stack; under ``vmapped`` a learner out of a stack chooses."""

_DRAWN = frozenset({"initial", "initialiser"})
"""Programs that draw parameters: ``vmap`` makes many at once, and nothing ever jits that."""

# The rest happens once and on the host (creation, masks, schedules, data sets, buffers), or looks
# at values on the way, which no transform shows (layers, calls): eager alone.

LEFT_OPEN: dict[tuple[str, Mode], str] = {
    ("encoders/pass-resnet-stem", "vmapped"): (
        "2.04e-6 from the original, bound 2e-6; the original's own rounding is 1.8e-6 off the "
        "exact result, the convolution under vmap 0.8e-6, on its other side"
    ),
    ("drq/resnet", "vmapped"): (
        "a gradient of the critic's second layer 1.9e-5 from the original, bound 1e-5 (eager "
        "0.6e-5); one rounding of the 11 million weights moves it by 1.5e-5"
    ),
}
"""Cases that do not run in a mode because their bound is used up by the rounding of float32 itself,
in whatever order it adds up. Every check that would have run them says so. The original's residual
encoder computes in float32 alone, so that no recorded case could hold them more closely; that the
encoder under vmap is each member alone is tested in double precision (tests/networks)."""


def left_open(cases: Iterable[Case], modes: Sequence[Mode]) -> list[str]:
    """One line for each case that stays out of one of the modes although its program has it.

    >>> left_open([Case("drq", "resnet", "course", {})], ["eager"])
    []
    """
    return [
        f"{case.id} is not held {mode}: {LEFT_OPEN[case.id, mode]}"
        for mode in modes
        for case in cases
        if (case.id, mode) in LEFT_OPEN
    ]


def modes_of(case: Case) -> tuple[Mode, ...]:
    """The modes that a case has.

    >>> modes_of(Case("losses", "quantile", "losses", {}))
    ('eager', 'compiled', 'vmapped')
    >>> modes_of(Case("dataset", "split", "dataset", {}))
    ('eager',)
    """
    if case.program in _LIFTED:
        modes = MODES
    else:
        modes = ("eager", "vmapped") if case.program in _DRAWN else ("eager",)
    return tuple(mode for mode in modes if (case.id, mode) not in LEFT_OPEN)


# Compiling takes seconds to a minute a program, so that by default one case stands for all that
# compile alike: every learner class (SAC by its richest variant, dropped-out critics and a subset),
# action choice, the sorts of networks, draws, losses, optimisers and crops. The longest come first.
COMPILED: tuple[str, ...] = (
    *("drq/plain", "update/simple-dropout", "update/general-exp_adv-warm", "droq/redq-heavy"),
    *("td3/every_step", "actions/simple", "iql/plain", "pixel_bc/plain", "bc/plain"),
    *("network/ensemble-2", "network/fourier", "encoders/pass-d4pg", "augmentation/crops"),
    *("random/randint-5-older-32", "random/permutation-7-older-32", "random/choice-p-older-32"),
    *("random/categorical-rows-older-32", "losses/expectile-0.7", "losses/quantile-0.8"),
    *("losses/exponential-second-clip", "optim/adamw-cosine-32", "optim/adamw-masked-64"),
    "optim/ema-32",
)
"""The cases that run compiled unless every case is asked for."""

VMAPPED_STEPS = 25
"""Longer runs, all in double precision, run vmapped only with every case: a batching rule that
differs does so at the first update."""


def chosen(case: Case, mode: Mode, every: bool = False) -> bool:
    """Whether a case runs in a mode: it has it and, unless ``every`` one is to, it costs little.

    Compiled, those run that stand for all; vmapped, runs of up to :data:`VMAPPED_STEPS` updates.

    >>> chosen(Case("losses", "quantile-0.8", "losses", {}), "compiled")
    True
    """
    if mode not in modes_of(case):
        return False
    if every or mode == "eager":
        return True
    return case.id in COMPILED if mode == "compiled" else _steps(case) <= VMAPPED_STEPS


def _steps(case: Case) -> int:
    return case.settings.get("steps", 1)


def compiled_part(case: Case) -> Part | None:
    """The part of a learner that a case compiles by default; None where it is not about one.

    Runs are about the update, actions about their choice; the other part would only cost time.

    >>> compiled_part(Case("bc", "plain", "course", {})), compiled_part(Case("a", "b", "act", {}))
    ('update', 'choice')
    """
    parts: dict[str, Part] = {"run": "update", "course": "update", "act": "choice"}
    return parts.get(case.program)


def seconds(case: Case, mode: Mode) -> float:
    """About how long a case takes, so that the longest can begin first.

    >>> seconds(Case("bc", "plain", "course", {"steps": 25}), "eager")
    0.25
    """
    steps = _steps(case) * case.settings.get("utd_ratio", 1)
    if mode == "compiled":
        if case.id in COMPILED:
            return 60.0 - COMPILED.index(case.id)
        return 30.0 if case.program in {"run", "act", "course"} else 5.0
    return 0.01 * steps * (2 if mode == "vmapped" else 1)
