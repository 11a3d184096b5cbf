"""The programs that both sides run, one function for each kind of case.

A program takes a backend and a case's settings and returns named NumPy arrays. The first part of a
name, up to the slash, decides which bound applies to the array (see ``Case.kinds``).
"""

from __future__ import annotations

from collections.abc import Callable

from parity.backend import Backend, Outputs, Program, Settings
from parity.cases.case import Case
from parity.programs import (
    captured,
    data,
    evaluation,
    helpers,
    learners,
    loaders,
    networks,
    numerics,
    policies,
    probability,
)

PROGRAMS: dict[str, Program] = {
    "keys": numerics.keys,
    "draws": numerics.draws,
    "initial": networks.initial,
    "network_pass": networks.network_pass,
    "schedules": numerics.schedules,
    "sampler": networks.sampler,
    "losses": numerics.losses,
    "prediction_losses": numerics.prediction_losses,
    "optimiser": numerics.optimiser,
    "average": numerics.average,
    "decay_schedule": numerics.decay_schedule,
    "schedule": numerics.schedule,
    "mask": numerics.mask,
    "create": learners.create,
    "run": learners.run,
    "act": learners.act,
    "course": learners.course,
    "distribution": policies.distribution,
    "crops": policies.crops,
    "probability": probability.probability,
    "dataset": data.dataset,
    "replay": data.replay,
    "d4rl": loaders.d4rl,
    "binary": loaders.binary,
    "normalised": loaders.normalised,
    "initialiser": networks.initialiser,
    "refused": networks.refused,
    "subsample": networks.subsample,
    "estimates": learners.estimates,
    "evaluated": evaluation.evaluated,
    "slices": helpers.slices,
    "log_sum": helpers.log_sum,
    "stopped": helpers.stopped,
    "printed": helpers.printed,
    "frozen": helpers.frozen,
    "shapes": helpers.shapes,
    "layers": captured.layers,
    "calls": captured.calls,
}


def execute(backend: Backend, program: str, settings: Settings) -> Outputs:
    """Run ``program`` with the number width and stream layout of the settings.

    Raises:
        ValueError: there is no such program.
    """
    if program not in PROGRAMS:
        raise ValueError(f"unknown program {program!r}; there are {', '.join(sorted(PROGRAMS))}")
    x64 = bool(settings.get("x64", False))
    with backend.flags(x64, bool(settings.get("partitionable", False))):
        return PROGRAMS[program](backend, settings)


def on(backend: Backend) -> Callable[[Case], Outputs]:
    """A function that runs a case's program on a backend: one side of the comparison."""
    return lambda case: execute(backend, case.program, case.settings)
