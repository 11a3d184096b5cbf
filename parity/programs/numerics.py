"""Programs of the numeric functions: random numbers, losses, optimisers, schedules."""

from __future__ import annotations

from typing import Any

import numpy as np

from parity import inputs
from parity.backend import Backend, Outputs, Settings


def _label(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) if shape else "scalar"


def keys(backend: Backend, settings: Settings) -> Outputs:
    """Keys from seeds, and from other keys by splitting and folding in."""
    r, out = backend.random, {}
    for seed in settings["seeds"]:
        key = r.PRNGKey(seed)
        out[f"out/{seed}/key"] = backend.numpy(key)
        for num in settings["split"]:
            out[f"out/{seed}/split{num}"] = backend.numpy(r.split(key, num))
        for data in settings["fold_in"]:
            out[f"out/{seed}/fold_in{data}"] = backend.numpy(r.fold_in(key, data))
    return out


def _draw(backend: Backend, settings: Settings, key: Any, shape: tuple[int, ...]) -> Any:
    r, a = backend.random, settings["args"]
    floats = "float64" if settings.get("x64") else "float32"

    def given(name: str) -> Any:
        return backend.array(np.asarray(a[name], floats))

    match settings["fn"]:
        case "bits":
            return r.bits(key, shape)
        case "uniform":
            return r.uniform(key, shape, **a)
        case "normal":
            return r.normal(key, shape)
        case "truncated_normal":
            return r.truncated_normal(key, a["lower"], a["upper"], shape)
        case "randint":
            return r.randint(key, shape, a["minval"], a["maxval"])
        case "bernoulli":
            return r.bernoulli(key, a["p"], shape)
        case "permutation":
            return r.permutation(key, a["n"])
        case "permutation_array":
            rows = np.arange(np.prod(a["shape"])).reshape(a["shape"]).astype(floats)
            return r.permutation(key, backend.array(rows))
        case "choice":
            p = given("p") if "p" in a else None
            return r.choice(key, a["n"], shape, replace=a["replace"], p=p)
        case "choice_array":
            return r.choice(key, given("values"), shape, replace=a["replace"])
        case "categorical":
            return r.categorical(key, given("logits"), axis=a["axis"])
        case "categorical_shape":
            return r.categorical(key, given("logits"), shape=shape)
    raise ValueError(f"unknown draw {settings['fn']!r}")


def draws(backend: Backend, settings: Settings) -> Outputs:
    """One function of the random module, for several seeds and shapes."""
    out = {}
    for seed in settings["seeds"]:
        for shape in map(tuple, settings["shapes"]):
            value = _draw(backend, settings, backend.random.PRNGKey(seed), shape)
            out[f"out/{seed}/{_label(shape)}"] = backend.numpy(value)
    return out


def losses(backend: Backend, settings: Settings) -> Outputs:
    """A loss function of one difference: its values and its derivatives."""
    dtype = "float64" if settings.get("x64") else "float32"
    special = np.array([0.0, -0.0, 1e-7, -1e-7, 1.0, -1.0])
    diff = np.concatenate([special, inputs.uniform("losses", (58,), -4.0, 4.0)]).astype(dtype)
    function = getattr(backend.losses, settings["loss"])
    args = settings["args"]

    def values(x: Any) -> Any:
        return function(x, **args)

    x = backend.array(diff)
    return {
        "value": backend.numpy(values(x)),
        "gradient": backend.numpy(backend.grad(lambda d: values(d).sum())(x)),
    }


_EXTREME_LOGITS = (0.0, -0.0, 1e-7, 17.0, -17.0, 88.0, -89.0, 104.0, -104.0, 1e4, -1e4, 3e38, -3e38)


def prediction_losses(backend: Backend, settings: Settings) -> Outputs:
    """A loss of predictions and targets: values, derivatives in both, and second derivatives.

    Some errors are 0, some are ``delta``, the switch-over point of the Huber loss, and some are
    next to it. Logits are of any size; labels are probabilities, and some are 0 or 1.
    """
    dtype = "float64" if settings.get("x64") else "float32"
    delta = np.array([settings["args"].get("delta", 1.0)], dtype)
    if settings["loss"] == "sigmoid_binary_cross_entropy":
        special = np.repeat(np.array(_EXTREME_LOGITS, dtype), 3)
        targets = np.tile([0.0, 1.0, 0.25], len(_EXTREME_LOGITS)).astype(dtype)
    else:
        beside = [np.nextafter(delta, end) for end in (np.zeros_like(delta), delta + delta)]
        sizes = np.concatenate([np.array([0.0, 1e-7], dtype), delta, *beside])
        special = np.concatenate([sizes, -sizes])
        targets = np.zeros(len(special), dtype)
    drawn = [inputs.uniform(f"prediction_losses/{k}", (29,), -4.0, 4.0) for k in "xy"]
    if settings["loss"] == "sigmoid_binary_cross_entropy":
        drawn[1] = (drawn[1] + 4.0) / 8.0
    x = backend.array(np.concatenate([special, drawn[0].astype(dtype)]))
    y = backend.array(np.concatenate([targets, drawn[1].astype(dtype)]))
    function, args = getattr(backend.losses, settings["loss"]), settings["args"]

    def loss(pair: Any) -> Any:
        return function(pair["x"], pair["y"], **args)

    def slopes(pair: Any) -> Any:
        return backend.grad(lambda p: loss(p).sum())(pair)

    pair = {"x": x, "y": y}
    out: Outputs = {"value": backend.numpy(loss(pair))}
    if settings["loss"] != "sigmoid_binary_cross_entropy":
        out["value/alone"] = backend.numpy(function(x, **args))
    for name, leaf in backend.nested(slopes(pair)).items():
        out[f"gradient/{name}"] = leaf
    curves = backend.grad(lambda p: slopes(p)["x"].sum())(pair)
    out["curve"] = backend.nested(curves)["x"]
    return out


def _optimiser(backend: Backend, settings: Settings) -> Any:
    optim, args = backend.optim, dict(settings["args"])
    if "parts" in settings:
        parts = [_part(optim, name, value) for name, value in settings["parts"]]
        return optim.chain(*parts, getattr(optim, settings["optimiser"])(**args))
    if "decay_steps" in settings:
        args["learning_rate"] = optim.cosine_decay_schedule(
            args["learning_rate"], settings["decay_steps"]
        )
    if settings.get("masked"):
        args["mask"] = backend.decay_mask
    return getattr(optim, settings["optimiser"])(**args)


def _part(optim: Any, name: str, value: Any) -> Any:
    """One transformation of a chain; a list is the schedule that it takes."""
    return getattr(optim, name)(_schedule(optim, value) if isinstance(value, list) else value)


def _schedule(optim: Any, described: Any) -> Any:
    """A schedule of its name and arguments; those of ``join_schedules`` are schedules too."""
    name, *args = described
    if name == "join_schedules":
        args[0] = [_schedule(optim, part) for part in args[0]]
    return getattr(optim, name)(*args)


def optimiser(backend: Backend, settings: Settings) -> Outputs:
    """Ten steps of an optimiser on a small tree, parameters kept after the first and the last."""
    dtype = "float64" if settings.get("x64") else "float32"
    transform = _optimiser(backend, settings)
    params = backend.tree(inputs.optimiser_tree("optimiser/params", dtype))
    state, out = transform.init(params), {}
    for step in range(settings["steps"]):
        gradient = backend.tree(inputs.optimiser_tree(f"optimiser/gradient/{step}", dtype))
        updates, state = transform.update(gradient, state, params)
        params = backend.optim.apply_updates(params, updates)
        if step in (0, settings["steps"] - 1):
            for path, leaf in inputs.flatten(backend.nested(params)).items():
                out[f"params/{step}/{path}"] = leaf
    return out


def average(backend: Backend, settings: Settings) -> Outputs:
    """Exponential moving average of a tree that moves."""
    dtype = "float64" if settings.get("x64") else "float32"
    mean, out = backend.tree(inputs.optimiser_tree("ema/start", dtype)), {}
    for step in range(settings["steps"]):
        new = backend.tree(inputs.optimiser_tree(f"ema/{step}", dtype))
        mean = backend.optim.incremental_update(new, mean, settings["tau"])
    for path, leaf in inputs.flatten(backend.nested(mean)).items():
        out[f"params/{path}"] = leaf
    return out


def decay_schedule(backend: Backend, settings: Settings) -> Outputs:
    """Values of the cosine decay at several counts."""
    described = ["cosine_decay_schedule", settings["value"], settings["decay_steps"]]
    return schedule(backend, {**settings, "schedule": described})


def schedule(backend: Backend, settings: Settings) -> Outputs:
    """Values of any schedule at several counts."""
    function = _schedule(backend.optim, settings["schedule"])
    counts = np.array(settings["counts"], np.int32)
    values = [np.asarray(backend.numpy(function(backend.array(c)))) for c in counts]
    return {"value": np.stack(values)}


def mask(backend: Backend, settings: Settings) -> Outputs:
    """Which leaves of a network's parameters decay."""
    network = backend.network(settings["network"])
    params = network.init(backend.random.PRNGKey(0))
    flat = inputs.flatten(backend.nested(backend.decay_mask(params)))
    return {f"mask/{path}": np.asarray(flag) for path, flag in flat.items()}


def schedules(backend: Backend, settings: Settings) -> Outputs:
    """Betas of one schedule for several numbers of steps."""
    return {
        f"betas/{steps}": backend.numpy(backend.beta_schedule(settings["schedule"], steps))
        for steps in settings["timesteps"]
    }
