"""The modes in which the port's functions run, and which cases run in which mode.

``eager``: called directly. ``compiled``: through :func:`idql_func.jit`, with native matrix
products. ``vmapped``: as one member of a stack. :mod:`parity.port.lift` applies the mode. The modes
of a case depend on its program.
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
        *(
            "keys",
            "draws",
            "losses",
            "prediction_losses",
            "optimiser",
            "average",
            "decay_schedule",
            "schedule",
        ),
        *("network_pass", "sampler", "subsample", "distribution", "probability", "crops"),
        *("slices", "log_sum", "stopped"),
        *("run", "act", "course", "estimates"),
    }
)
"""Programs with all modes: they call only functions of tensors. Action choice returns NumPy arrays,
so it is not mapped; under ``vmapped`` a learner taken from a stack acts."""

_DRAWN = frozenset({"initial", "initialiser"})
"""Programs that draw parameters: they are mapped over keys, and never jitted."""

# Other programs run eagerly only: they run once on the host (creation, masks, schedules, datasets,
# buffers), or record intermediate values, which transforms hide (layers, calls).

UNCHECKED: dict[tuple[str, Mode], str] = {
    ("encoders/pass-resnet-stem", "vmapped"): (
        "2.04e-6 from the original, bound 2e-6; the original's rounding error is 1.8e-6, that of "
        "the convolution under vmap 0.8e-6 with the opposite sign"
    ),
    ("drq/resnet", "vmapped"): (
        "a gradient of the critic's second layer 1.9e-5 from the original, bound 1e-5 (eager "
        "0.6e-5); one rounding of the 11 million weights moves it by 1.5e-5"
    ),
}
"""Cases that do not run in a mode, because float32 rounding alone reaches their bound in any order
of summation. Every check that omits one prints it. The original's residual encoder computes only
in float32, so no recorded case can be stricter; a test in double precision shows that the encoder
under vmap equals each member alone (tests/networks)."""


def unchecked(cases: Iterable[Case], modes: Sequence[Mode]) -> list[str]:
    """One line for each case that is left out of one of the modes, with the reason.

    >>> unchecked([Case("drq", "resnet", "course", {})], ["eager"])
    []
    """
    return [
        f"{case.id} is not checked {mode}: {UNCHECKED[case.id, mode]}"
        for mode in modes
        for case in cases
        if (case.id, mode) in UNCHECKED
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
    return tuple(mode for mode in modes if (case.id, mode) not in UNCHECKED)


# Compiling a program takes seconds to a minute. So by default one example runs of the cases with
# similar programs: each learner class (for SAC with dropout and a subset of critics), action
# choice, each kind of network, draws, losses, optimisers and crops. The longest come first.
COMPILED: tuple[str, ...] = (
    *("drq/plain", "update/simple-dropout", "update/general-exp_adv-warm", "droq/redq-heavy"),
    *("fql/normalized", "ifql/few", "rebrac/every_step"),
    *("td3/every_step", "actions/simple", "iql/plain", "pixel_bc/plain", "bc/plain"),
    *("network/ensemble-2", "network/fourier", "encoders/pass-d4pg", "augmentation/crops"),
    *("random/randint-5-older-32", "random/permutation-7-older-32", "random/choice-p-older-32"),
    *("random/categorical-rows-older-32", "losses/expectile-0.7", "losses/quantile-0.8"),
    *("losses/exponential-second-clip", "optim/adamw-cosine-32", "optim/adamw-masked-64"),
    "optim/ema-32",
)
"""The cases that run compiled unless every case is requested."""

VMAPPED_STEPS = 25
"""Longer runs (all in double precision) run vmapped only with ``--every``, since the first update
already shows a wrong batching rule."""


def chosen(case: Case, mode: Mode, every: bool = False) -> bool:
    """Whether a case runs in a mode.

    Without ``every``, only :data:`COMPILED` runs compiled, and only runs of at most
    :data:`VMAPPED_STEPS` updates run vmapped.

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
    """The part of a learner that a case compiles by default: its update or its action choice.

    None for cases without a learner.

    >>> compiled_part(Case("bc", "plain", "course", {})), compiled_part(Case("a", "b", "act", {}))
    ('update', 'choice')
    """
    parts: dict[str, Part] = {"run": "update", "course": "update", "act": "choice"}
    return parts.get(case.program)


def seconds(case: Case, mode: Mode) -> float:
    """Estimated duration of a case, so that the longest can start first.

    >>> seconds(Case("bc", "plain", "course", {"steps": 25}), "eager")
    0.25
    """
    steps = _steps(case) * case.settings.get("utd_ratio", 1)
    if mode == "compiled":
        if case.id in COMPILED:
            return 60.0 - COMPILED.index(case.id)
        return 30.0 if case.program in {"run", "act", "course"} else 5.0
    return 0.01 * steps * (2 if mode == "vmapped" else 1)
