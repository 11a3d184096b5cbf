"""The steps that both sides run, one function for each sort of case.

A program takes a backend and a case's settings and returns named NumPy arrays. The first part of a
name, up to the slash, decides which promise the array is held to (see ``Case.kinds``).
"""

from __future__ import annotations

from collections.abc import Callable

from parity.backend import Backend, Outputs, Program, Settings
from parity.cases.case import Case
from parity.programs import captured, data, evaluation, floor, learners, loaders, networks, policies

PROGRAMS: dict[str, Program] = {
    "keys": floor.keys,
    "draws": floor.draws,
    "initial": networks.initial,
    "network_pass": networks.network_pass,
    "schedules": floor.schedules,
    "sampler": networks.sampler,
    "losses": floor.losses,
    "optimiser": floor.optimiser,
    "average": floor.average,
    "decay_schedule": floor.decay_schedule,
    "mask": floor.mask,
    "create": learners.create,
    "run": learners.run,
    "act": learners.act,
    "course": learners.course,
    "distribution": policies.distribution,
    "crops": policies.crops,
    "dataset": data.dataset,
    "replay": data.replay,
    "d4rl": loaders.d4rl,
    "binary": loaders.binary,
    "normalised": loaders.normalised,
    "initialiser": networks.initialiser,
    "subsample": networks.subsample,
    "estimates": learners.estimates,
    "evaluated": evaluation.evaluated,
    "layers": captured.layers,
    "calls": captured.calls,
}


def execute(backend: Backend, program: str, settings: Settings) -> Outputs:
    """Run ``program`` under the number width and stream layout that the settings name.

    Raises:
        ValueError: there is no such program.
    """
    if program not in PROGRAMS:
        raise ValueError(f"unknown program {program!r}; there are {', '.join(sorted(PROGRAMS))}")
    x64 = bool(settings.get("x64", False))
    with backend.flags(x64, bool(settings.get("partitionable", False))):
        return PROGRAMS[program](backend, settings)


def on(backend: Backend) -> Callable[[Case], Outputs]:
    """What a backend makes of a case: one side of the comparison, as a function."""
    return lambda case: execute(backend, case.program, case.settings)
