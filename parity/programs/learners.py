"""Programs of the learners."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from parity import inputs
from parity.backend import Backend, Outputs, Settings
from parity.digest import digest

_IDQL = ("score_model", "target_score_model", "critic", "target_critic", "value")
_SAC = ("actor", "critic", "target_critic", "temp")

NETWORKS: dict[str, tuple[str, ...]] = {
    "simple": _IDQL,
    "general": _IDQL,
    "bc": ("actor",),
    "iql": ("actor", "critic", "target_critic", "value"),
    "sac": _SAC,
    "td3": ("actor", "target_actor", "critic", "target_critic"),
    "drq": _SAC,
    "pixel_bc": ("actor",),
    "fql": ("network",),
    "ifql": ("network",),
    "rebrac": ("network",),
}
"""The networks of each learner."""

_DIFFUSION = ("betas", "alphas", "alpha_hats")

CONSTANTS: dict[str, tuple[str, ...]] = {
    "simple": _DIFFUSION,
    "general": _DIFFUSION,
    "sac": ("target_entropy",),
    "drq": ("target_entropy",),
}
"""Values that a learner computes once, when it is created."""


def _networks(settings: Settings) -> tuple[str, ...]:
    return NETWORKS[settings["learner"]]


def _trained(settings: Settings) -> tuple[str, ...]:
    return tuple(name for name in _networks(settings) if not name.startswith("target_"))


def _state(backend: Backend, learner: Any, settings: Settings) -> Outputs:
    """Parameters of every network: leaf by leaf in double precision, else network by network.

    Adam divides a gradient by its own size, so that a gradient of rounding noise still changes its
    parameter by up to a full step. In float32 a bias that starts at zero may consist only of such
    steps; a whole network does not.
    """
    out: Outputs = {}
    for name in _networks(settings):
        excerpts = digest(backend.nested(getattr(learner, name).params), name, settings["keep"])
        out[f"norms/{name}"] = excerpts.pop(f"norms/{name}")
        if settings.get("x64"):
            out.update(excerpts)
        else:
            out[f"params/{name}"] = np.concatenate(list(excerpts.values()))
    return out


def _fresh(backend: Backend, settings: Settings, learner: Any, head: str) -> Outputs:
    out: Outputs = {}
    for name in CONSTANTS.get(settings["learner"], ()):
        out[f"constants/{name}"] = backend.numpy(getattr(learner, name))
    return {**out, **_leaves(backend, settings, learner, head)}


def _leaves(backend: Backend, settings: Settings, learner: Any, head: str) -> Outputs:
    """Excerpts ``head/<network>/<leaf>`` of the parameters of every network."""
    out: Outputs = {}
    for name in _networks(settings):
        excerpts = digest(backend.nested(getattr(learner, name).params), name, settings["keep"])
        del excerpts[f"norms/{name}"]
        out.update({path.replace("params", head, 1): leaf for path, leaf in excerpts.items()})
    return out


def create(backend: Backend, settings: Settings) -> Outputs:
    """A new learner: key, constants and initial parameters."""
    learner = backend.learner(settings)
    fresh = _fresh(backend, settings, learner, "params")
    return {"rng/rng": backend.numpy(learner.rng), **fresh}


def estimates(backend: Backend, settings: Settings) -> Outputs:
    """Minimum Q and V of a new learner, for a batch."""
    learner, batch = backend.learner(settings), _batch(backend, settings, 0)
    q, v = backend.estimates(learner, batch["observations"], batch["actions"])
    return {"forward/q": backend.numpy(q), "forward/v": backend.numpy(v)}


def _dtype(settings: Settings) -> str:
    return "float64" if settings.get("x64") else "float32"


def _batch(backend: Backend, settings: Settings, step: int) -> Any:
    seed, size = settings["batch_seed"], settings["batch"]
    if "space" in settings:
        arrays = inputs.pixel_batch(
            seed,
            step,
            size,
            settings["space"],
            settings["act_dim"],
            packed=settings.get("packed", False),
            dtype=_dtype(settings),
        )
    else:
        arrays = inputs.batch(
            seed, step, size, settings["obs_dim"], settings["act_dim"], dtype=_dtype(settings)
        )
    if "full_update_every" in settings:  # the only learner that reads next actions
        other = inputs.batch(
            seed, -1 - step, size, settings["obs_dim"], settings["act_dim"], dtype=_dtype(settings)
        )
        arrays["next_actions"] = other["actions"]
    return backend.batch(arrays)


def _sort(name: str) -> str:
    if name == "actor/q_loss":  # minus the mean of Q, which crosses zero
        return "means"
    return "losses" if name.endswith("loss") or name == "nll" else "means"


def _series(history: list[Mapping[str, Any]], backend: Backend) -> Outputs:
    out: Outputs = {}
    for name in sorted({name for info in history for name in info}):
        # One side logs a whole batch of advantages, the other their mean (quirk U20).
        logged = [info[name] for info in history if name in info]
        values = [np.mean(np.asarray(backend.numpy(value))) for value in logged]
        out[f"{_sort(name)}/{name}"] = np.stack(values)
    return out


def updated(
    backend: Backend, settings: Settings, learner: Any, step: int
) -> tuple[Any, Mapping[str, Any]]:
    """A learner after one call of ``settings['method']`` on the batch of a step, and the info.

    Learners with a ratio of updates to data take it as a second argument, and ReBRAC whether the
    update is full.
    """
    options: tuple[Any, ...] = ()
    if "utd_ratio" in settings:
        options = (settings["utd_ratio"],)
    elif "full_update_every" in settings:
        options = ((step + 1) % settings["full_update_every"] == 0,)
    batch = _batch(backend, settings, step)
    return backend.updated(learner, settings["method"], batch, *options)


def _moments(backend: Backend, settings: Settings, learner: Any) -> Outputs:
    out: Outputs = {}
    for name in _trained(settings):
        moments = digest(backend.first_moments(learner, name), name, settings["keep"])
        out.update({f"gradient/{path}": leaf for path, leaf in moments.items()})
    return out


def trained(backend: Backend, settings: Settings) -> tuple[Any, list[Mapping[str, Any]]]:
    """A learner after ``settings['steps']`` calls of ``settings['method']``, and their infos."""
    learner, history = backend.learner(settings), []
    for step in range(settings["steps"]):
        learner, info = updated(backend, settings, learner, step)
        history.append(info)
    return learner, history


def run_outputs(
    backend: Backend, settings: Settings, learner: Any, history: list[Mapping[str, Any]]
) -> Outputs:
    """The infos of each update of ``history``, then the key and the parameters."""
    names = settings.get("infos")
    if names is not None:
        history = [{name: info[name] for name in names} for info in history]
    out = _series(history, backend)
    out["rng/rng"] = backend.numpy(learner.rng)
    return {**out, **_state(backend, learner, settings)}


def run(backend: Backend, settings: Settings) -> Outputs:
    """Updates of a learner: the info of each step, then the final key and parameters.

    After one update Adam's first moment is a tenth of the gradient, so that a learner's gradients
    are compared by their first moments.
    """
    learner, history = trained(backend, settings)
    out = run_outputs(backend, settings, learner, history)
    return {**out, **(_moments(backend, settings, learner) if settings.get("moments") else {})}


def _choose(
    backend: Backend, settings: Settings, learner: Any, how: str
) -> tuple[np.ndarray, np.ndarray, Any]:
    """One action for each of several observations in sequence, the keys after each, the learner."""
    count, actions, rngs = settings["observations"], [], []
    seen = _observations(settings, count)
    for row in range(count):
        observation = backend.batch(_row(seen, row))
        action, learner = backend.choose(learner, how, observation)
        # The original squeezes (quirk E5): a single action of size 1 loses its axis there.
        actions.append(np.asarray(action).reshape(settings["act_dim"]))
        rngs.append(backend.numpy(learner.rng))
    return np.stack(actions), np.stack(rngs), learner


def _observations(settings: Settings, count: int) -> Any:
    if "space" in settings:
        return inputs.pixel_observations(11, count, settings["space"], _dtype(settings))
    return inputs.observations(11, count, settings["obs_dim"], _dtype(settings))


def _row(seen: Any, row: int) -> Any:
    if isinstance(seen, Mapping):
        return {name: values[row] for name, values in seen.items()}
    return seen[row]


def act(backend: Backend, settings: Settings) -> Outputs:
    """Updates, then one action for each of several observations in sequence, and each key."""
    learner, _ = trained(backend, settings)
    actions, rngs, _ = _choose(backend, settings, learner, settings["choose"])
    return {"actions": actions, "rng": rngs}


def course(backend: Backend, settings: Settings) -> Outputs:
    """A whole run of a learner, so that both sides create and compile it once.

    Initial parameters and constants; the gradients of the first update that trains every network
    (``first_gradient`` updates in); the info of each step; the final key and parameters; then
    actions and keys of every method of acting, for observations one by one and ``together``. With
    ``act_first`` the new learner acts. ``curve`` lists numbers of updates after which the
    parameters are recorded.
    """
    learner, history = backend.learner(settings), []
    out = _fresh(backend, settings, learner, "initial")
    if settings.get("act_first"):
        out.update(_actions(backend, settings, learner))
    for step in range(settings["steps"]):
        learner, info = updated(backend, settings, learner, step)
        history.append(info)
        if step + 1 == settings.get("first_gradient", 1):
            out.update(_moments(backend, settings, learner))
        if step + 1 in settings.get("curve", ()):
            out.update(_leaves(backend, settings, learner, f"curve/{step + 1}"))
    out.update(run_outputs(backend, settings, learner, history))
    if not settings.get("act_first"):
        out.update(_actions(backend, settings, learner))
    return out


def _actions(backend: Backend, settings: Settings, learner: Any) -> Outputs:
    """Actions of every method of acting, one after the other, and the keys after them."""
    out: Outputs = {}
    for how in settings.get("choose", ("eval_actions", "sample_actions")):
        actions, rngs, learner = _choose(backend, settings, learner, how)
        out[f"actions/{how}"], out[f"keys/{how}"] = actions, rngs
        if settings["together"]:
            many = backend.batch(_observations(settings, settings["observations"]))
            actions, learner = backend.choose(learner, how, many)
            out[f"actions/{how}-together"] = np.asarray(actions)
            out[f"keys/{how}-together"] = backend.numpy(learner.rng)
    return out
