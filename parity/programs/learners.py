"""Programs of the learners."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from parity import inputs
from parity.backend import Backend, Outputs, Settings
from parity.digest import digest

NETWORKS = ("score_model", "target_score_model", "critic", "target_critic", "value")
TRAINED = ("score_model", "critic", "value")


def _state(backend: Backend, learner: Any, settings: Settings) -> Outputs:
    """Parameters of every network: leaf by leaf in double precision, else network by network.

    Adam divides a gradient by its own size, so that one which cancels to rounding noise still moves
    its parameter by up to a whole step. In float32 a bias that starts at zero may consist of such
    steps alone; a network as a whole cannot.
    """
    out: Outputs = {}
    for name in NETWORKS:
        excerpts = digest(backend.nested(getattr(learner, name).params), name, settings["keep"])
        out[f"norms/{name}"] = excerpts.pop(f"norms/{name}")
        if settings.get("x64"):
            out.update(excerpts)
        else:
            out[f"params/{name}"] = np.concatenate(list(excerpts.values()))
    return out


def create(backend: Backend, settings: Settings) -> Outputs:
    """A fresh learner: key, diffusion constants and initial parameters."""
    learner = backend.learner(settings)
    out = {"rng/rng": backend.numpy(learner.rng)}
    for name in ("betas", "alphas", "alpha_hats"):
        out[f"constants/{name}"] = backend.numpy(getattr(learner, name))
    for name in NETWORKS:
        excerpts = digest(backend.nested(getattr(learner, name).params), name, settings["keep"])
        del excerpts[f"norms/{name}"]
        out.update(excerpts)
    return out


def _batch(backend: Backend, settings: Settings, step: int) -> dict[str, Any]:
    dtype = "float64" if settings.get("x64") else "float32"
    arrays = inputs.batch(
        settings["batch_seed"],
        step,
        settings["batch"],
        settings["obs_dim"],
        settings["act_dim"],
        dtype=dtype,
    )
    return {name: backend.array(value) for name, value in arrays.items()}


def _series(history: list[Mapping[str, Any]], backend: Backend) -> Outputs:
    out: Outputs = {}
    for name in sorted(history[0]) if history else ():
        values = [np.asarray(backend.numpy(info[name])) for info in history]
        sort = "losses" if name.endswith("loss") else "means"
        out[f"{sort}/{name}"] = np.stack(values)
    return out


def trained(backend: Backend, settings: Settings) -> tuple[Any, list[Mapping[str, Any]]]:
    """A learner after ``settings['steps']`` calls of ``settings['method']``, and their infos."""
    learner, history = backend.learner(settings), []
    for step in range(settings["steps"]):
        learner, info = getattr(learner, settings["method"])(_batch(backend, settings, step))
        history.append(info)
    return learner, history


def _run_outputs(
    backend: Backend, settings: Settings, learner: Any, history: list[Mapping[str, Any]]
) -> Outputs:
    names = settings.get("infos")
    if names is not None:
        history = [{name: info[name] for name in names} for info in history]
    out = _series(history, backend)
    out["rng/rng"] = backend.numpy(learner.rng)
    out.update(_state(backend, learner, settings))
    if settings.get("moments"):
        for name in TRAINED:
            moments = digest(backend.first_moments(learner, name), name, settings["keep"])
            out.update({f"gradient/{path}": leaf for path, leaf in moments.items()})
    return out


def run(backend: Backend, settings: Settings) -> Outputs:
    """Updates of a learner: everything logged at each step, then the final key and parameters.

    After a single update Adam's first moment is a tenth of the gradient, which is how a learner's
    own gradients are compared.
    """
    return _run_outputs(backend, settings, *trained(backend, settings))


def _choose(backend: Backend, settings: Settings, learner: Any) -> tuple[np.ndarray, np.ndarray]:
    dtype = "float64" if settings.get("x64") else "float32"
    seen = inputs.observations(11, settings["observations"], settings["obs_dim"], dtype)
    actions, rngs = [], []
    for observation in seen:
        if settings["choose"] == "literal_implicit":
            action, learner = backend.implicit_action(learner, backend.array(observation))
        else:
            action, learner = getattr(learner, settings["choose"])(backend.array(observation))
        # The original squeezes (quirk E5): one action of size 1 has lost its axis there.
        actions.append(np.asarray(action).reshape(settings["act_dim"]))
        rngs.append(backend.numpy(learner.rng))
    return np.stack(actions), np.stack(rngs)


def act(backend: Backend, settings: Settings) -> Outputs:
    """Updates, then one action for each of several observations in sequence, and each key."""
    actions, rngs = _choose(backend, settings, trained(backend, settings)[0])
    return {"actions": actions, "rng": rngs}


def run_and_act(backend: Backend, settings: Settings) -> Outputs:
    """:func:`run`, then :func:`act` with the learner it ends with."""
    learner, history = trained(backend, settings)
    actions, rngs = _choose(backend, settings, learner)
    out = _run_outputs(backend, settings, learner, history)
    return {**out, "actions": actions, "keys": rngs}
