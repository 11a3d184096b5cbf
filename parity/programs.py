"""The steps that both sides run, one function for each sort of case.

A program takes a backend and a case's settings and returns named NumPy arrays. The first part of a
name, up to the slash, decides which promise the array is held to (see ``Case.kinds``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from parity import inputs
from parity.backend import Backend, Outputs, Program, Settings
from parity.digest import digest, excerpt

NETWORKS = ("score_model", "target_score_model", "critic", "target_critic", "value")
TRAINED = ("score_model", "critic", "value")


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


def initial(backend: Backend, settings: Settings) -> Outputs:
    """Initial parameters of one network from several seeds."""
    network, out = backend.network(settings["network"]), {}
    for seed in settings["seeds"]:
        params = backend.nested(network.init(backend.random.PRNGKey(seed)))
        for path, leaf in inputs.flatten(params).items():
            out[f"params/{seed}/{path}"] = excerpt(leaf, settings["keep"])
    return out


def network_inputs(settings: Settings, batch: int, dtype: str) -> list[np.ndarray]:
    """What a network of these settings is fed, from the shared generator."""

    def values(name: str, width: int) -> np.ndarray:
        return inputs.uniform(f"network/{name}", (batch, width), -2.0, 2.0).astype(dtype)

    match settings["net"]:
        case "MLP" | "MLPResNet":
            return [values("x", settings["input_dim"])]
        case "FourierFeatures":
            return [values("time", settings["input_dim"])]
        case "StateValue":
            return [values("observations", settings["obs_dim"])]
        case "StateActionValue" | "Ensemble":
            return [
                values("observations", settings["obs_dim"]),
                values("actions", settings["act_dim"]),
            ]
        case "DDPM":
            steps = inputs.uniform("network/steps", (batch, 1), 0.0, settings.get("T", 5))
            return [
                values("observations", settings["obs_dim"]),
                values("actions", settings["act_dim"]),
                steps.astype(np.int32),
            ]
    raise ValueError(f"unknown network {settings['net']!r}")


def given_parameters(backend: Backend, network: Any, tag: str, dtype: str) -> Any:
    """Parameters from the shared generator, in the shapes of the network's own tree."""
    flat = inputs.flatten(backend.nested(network.init(backend.random.PRNGKey(0))))
    shapes = {path: tuple(leaf.shape) for path, leaf in flat.items()}
    return backend.tree(inputs.parameters(tag, shapes, dtype))


def network_pass(backend: Backend, settings: Settings) -> Outputs:
    """Forward pass and parameter gradient of one network, dropout off and (if it has any) on.

    The scalar that is differentiated is the product of the output with a fixed cotangent.
    """
    dtype = "float64" if settings.get("x64") else "float32"
    network = backend.network(settings["network"])
    params = given_parameters(backend, network, "network", dtype)
    feed = [backend.array(x) for x in network_inputs(settings["network"], settings["batch"], dtype)]
    out = {}
    for mode in settings["modes"]:
        options: dict[str, Any] = {"training": mode == "train"}
        if mode == "train":
            options["dropout_key"] = backend.random.PRNGKey(settings["dropout_seed"])
        result = backend.numpy(network.apply(params, *feed, **options))
        out[f"forward/{mode}"] = result
        cotangent = backend.array(inputs.uniform("cotangent", result.shape).astype(dtype))

        def scalar(p: Any, options: Any = options, cotangent: Any = cotangent) -> Any:
            return (network.apply(p, *feed, **options) * cotangent).sum()

        if inputs.flatten(backend.nested(params)):
            gradient = backend.nested(backend.grad(scalar)(params))
            for path, leaf in inputs.flatten(gradient).items():
                out[f"gradient/{mode}/{path}"] = excerpt(leaf, settings["keep"])
    return out


def schedules(backend: Backend, settings: Settings) -> Outputs:
    """Betas of one schedule for several numbers of steps."""
    return {
        f"betas/{steps}": backend.numpy(backend.beta_schedule(settings["schedule"], steps))
        for steps in settings["timesteps"]
    }


def sampler(backend: Backend, settings: Settings) -> Outputs:
    """The reverse diffusion chain of a network with given parameters."""
    dtype = "float64" if settings.get("x64") else "float32"
    network = backend.network(settings["network"])
    params = given_parameters(backend, network, "sampler", dtype)
    feed = inputs.observations(5, settings["batch"], settings["network"]["obs_dim"], dtype)
    key = backend.random.PRNGKey(settings["seed"])
    actions, key = backend.sample_ddpm(network, params, key, backend.array(feed), settings)
    return {"actions": backend.numpy(actions), "rng": backend.numpy(key)}


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


def _optimiser(backend: Backend, settings: Settings) -> Any:
    optim, args = backend.optim, dict(settings["args"])
    if "decay_steps" in settings:
        args["learning_rate"] = optim.cosine_decay_schedule(
            args["learning_rate"], settings["decay_steps"]
        )
    if settings.get("masked"):
        args["mask"] = backend.decay_mask
    return getattr(optim, settings["optimiser"])(**args)


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
    schedule = backend.optim.cosine_decay_schedule(settings["value"], settings["decay_steps"])
    counts = np.array(settings["counts"], np.int32)
    values = [np.asarray(backend.numpy(schedule(backend.array(c)))) for c in counts]
    return {"value": np.stack(values)}


def mask(backend: Backend, settings: Settings) -> Outputs:
    """Which leaves of a network's parameters decay."""
    network = backend.network(settings["network"])
    params = network.init(backend.random.PRNGKey(0))
    flat = inputs.flatten(backend.nested(backend.decay_mask(params)))
    return {f"mask/{path}": np.asarray(flag) for path, flag in flat.items()}


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


def sampling_arrays(size: int) -> dict[str, np.ndarray]:
    """A dataset whose observations name their own row; an episode ends every seventh row."""
    rows = np.arange(size)
    dones = ((rows % 7 == 6) | (rows == size - 1)).astype(np.float32)
    return {
        "observations": rows[:, None].astype(np.float32),
        "actions": inputs.uniform("dataset/actions", (size, 2)).astype(np.float32),
        "rewards": inputs.uniform("dataset/rewards", (size,)).astype(np.float32),
        "masks": 1.0 - dones,
        "dones": dones,
        "next_observations": rows[:, None].astype(np.float32) + 1.0,
    }


def _rows(backend: Backend, batch: Mapping[str, Any]) -> np.ndarray:
    return np.asarray(backend.numpy(batch["observations"]))[:, 0].astype(np.int64)


def dataset(backend: Backend, settings: Settings) -> Outputs:
    """Row numbers and arrays that a dataset hands out."""
    arrays = sampling_arrays(settings["size"])
    data = backend.dataset(arrays, settings["seed"])
    count, out = settings.get("count", 0), {}
    match settings["method"]:
        case "sample_device":
            for call in range(count):
                rows = _rows(backend, backend.sample_device(data, settings["batch"]))
                out[f"rows/{call}"] = rows
            out["rows/rng"] = backend.numpy(data.rng)
        case "sample":
            for call in range(count):
                out[f"rows/{call}"] = _rows(backend, data.sample(settings["batch"]))
        case "split":
            for name, part in zip(("train", "test"), data.split(settings["ratio"]), strict=True):
                out[f"rows/{name}"] = part.dataset_dict["observations"][:, 0].astype(np.int64)
        case "filter":
            # One side filters in place, the other hands back a new dataset.
            kept = data.filter(**settings["args"]) or data
            out["rows/kept"] = kept.dataset_dict["observations"][:, 0].astype(np.int64)
        case "normalize_returns":
            scaled = data.normalize_returns(**settings["args"]) or data
            out["rows/rewards"] = np.asarray(scaled.dataset_dict["rewards"])
    return out


PROGRAMS: dict[str, Program] = {
    "keys": keys,
    "draws": draws,
    "initial": initial,
    "network_pass": network_pass,
    "schedules": schedules,
    "sampler": sampler,
    "losses": losses,
    "optimiser": optimiser,
    "average": average,
    "decay_schedule": decay_schedule,
    "mask": mask,
    "create": create,
    "run": run,
    "act": act,
    "run_and_act": run_and_act,
    "dataset": dataset,
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
