"""Programs of the networks and of the diffusion sampler."""

from __future__ import annotations

from typing import Any

import numpy as np

from parity import inputs
from parity.backend import Backend, Outputs, Settings
from parity.digest import excerpt


def initial(backend: Backend, settings: Settings) -> Outputs:
    """Initial parameters of one network from several seeds."""
    network, out = backend.network(settings["network"]), {}
    for seed in settings["seeds"]:
        params = backend.nested(network.init(backend.random.PRNGKey(seed)))
        for path, leaf in inputs.flatten(params).items():
            out[f"params/{seed}/{path}"] = excerpt(leaf, settings["keep"])
    return out


def network_inputs(settings: Settings, batch: int | None, dtype: str) -> list[Any]:
    """Inputs for a network with these settings, from the shared generator.

    Without a batch (None): a single image or observation.
    """
    rows = () if batch is None else (batch,)

    def values(name: str, width: int) -> np.ndarray:
        return inputs.uniform(f"network/{name}", (*rows, width), -2.0, 2.0).astype(dtype)

    match settings["net"]:
        case "MLP" | "MLPResNet" | "NormedMLP":
            return [values("x", settings["input_dim"])]
        case "FourierFeatures":
            return [values("time", settings["input_dim"])]
        case "StateValue" | "Normal" | "TanhDeterministic":
            return [values("observations", settings["obs_dim"])]
        case "StateActionValue" | "Ensemble" | "StackedValue":
            return [
                values("observations", settings["obs_dim"]),
                values("actions", settings["act_dim"]),
            ]
        case "DDPM":
            steps = inputs.uniform("network/steps", (*rows, 1), 0.0, settings.get("T", 5))
            return [
                values("observations", settings["obs_dim"]),
                values("actions", settings["act_dim"]),
                steps.astype(np.int32),
            ]
        case "D4PGEncoder" | "ResNetV2Encoder" | "Sequential":
            # Around zero: over a bright image of 224 x 224, E[x^2] - E[x]^2 loses the digits that
            # are compared (the original's own error is then 3e-6).
            shape = (*rows, *settings["shape"])
            return [inputs.uniform("network/image", shape).astype(dtype)]
        case "ImpalaEncoder":
            image = inputs.uniform("network/bytes", (*rows, *settings["shape"]), 0.0, 256.0)
            return [image.astype(np.uint8)]
        case "PixelMultiplexer":
            seen = inputs.pixel_observations("network", batch or 1, settings["space"], dtype)
            if batch is None:
                seen = {name: value[0] for name, value in seen.items()}
            acts = settings["head"]["net"] == "Ensemble"
            return [seen, *([values("actions", settings["act_dim"])] if acts else [])]
    raise ValueError(f"unknown network {settings['net']!r}")


def given_parameters(backend: Backend, network: Any, tag: str, dtype: str) -> Any:
    """Parameters from the shared generator, with the shapes of the network's tree."""
    flat = inputs.flatten(backend.nested(network.init(backend.random.PRNGKey(0))))
    shapes = {path: tuple(leaf.shape) for path, leaf in flat.items()}
    return backend.tree(inputs.parameters(tag, shapes, dtype))


def network_pass(backend: Backend, settings: Settings) -> Outputs:
    """Forward pass and parameter gradient of one network, without and (if any) with dropout.

    The differentiated scalar is the product of the output with a fixed cotangent.
    """
    dtype = "float64" if settings.get("x64") else "float32"
    network = backend.network(settings["network"])
    params = given_parameters(backend, network, "network", dtype)
    feed = [backend.batch(x) for x in network_inputs(settings["network"], settings["batch"], dtype)]
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


def sampler(backend: Backend, settings: Settings) -> Outputs:
    """The diffusion sampler of a network with given parameters."""
    dtype = "float64" if settings.get("x64") else "float32"
    network = backend.network(settings["network"])
    params = given_parameters(backend, network, "sampler", dtype)
    feed = inputs.observations(5, settings["batch"], settings["network"]["obs_dim"], dtype)
    betas = backend.beta_schedule(settings["schedule"], settings["T"])
    alphas = 1 - betas
    alpha_hats = [backend.numpy(alphas[: i + 1].prod()) for i in range(settings["T"])]
    actions, key = backend.ddpm_sampler(
        network,
        params,
        settings["T"],
        backend.random.PRNGKey(settings["seed"]),
        settings["network"]["act_dim"],
        backend.array(feed),
        alphas,
        backend.array(np.stack(alpha_hats)),
        betas,
        settings["temperature"],
        settings["repeat_last_step"],
        settings["clip_sampler"],
    )
    return {"actions": backend.numpy(actions), "rng": backend.numpy(key)}


def initialiser(backend: Backend, settings: Settings) -> Outputs:
    """Weights of single layers by the networks' usual initialiser, or by a described one."""
    described = settings.get("initializer", ["default_init"])
    out: Outputs = {}
    for seed in settings["seeds"]:
        for shape in map(tuple, settings["shapes"]):
            value = backend.initialiser(described, backend.random.PRNGKey(seed), shape)
            out[f"params/{seed}/{'x'.join(map(str, shape))}"] = backend.numpy(value)
    return out


def refused(backend: Backend, settings: Settings) -> Outputs:
    """Which of the described initialisers and shapes raise an error: 1 or 0 each."""
    out = []
    for described, shape in settings["calls"]:
        try:
            backend.initialiser(described, backend.random.PRNGKey(0), tuple(shape))
        except (ValueError, TypeError, ArithmeticError, LookupError):
            out.append(1)
        else:
            out.append(0)
    return {"refused": np.array(out)}


def subsample(backend: Backend, settings: Settings) -> Outputs:
    """Some members of an ensemble: from its tree, and from a tree that holds more."""
    total, leaves = settings["num_qs"], {"kernel": (settings["num_qs"], 2, 3)}
    shapes = {**{f"Dense_0/{name}": s for name, s in leaves.items()}, "bias": (total, 1)}
    whole = inputs.parameters("ensemble", shapes)
    trees = {
        "whole": whole,
        "part": {"Ensemble_0": whole, "encoder": {"kernel": np.ones(2, np.float32)}},
    }
    out: Outputs = {}
    for name, tree in trees.items():
        for seed in settings["seeds"]:
            key = backend.random.PRNGKey(seed)
            cut = backend.subsample(key, backend.tree(tree), settings["num_sample"], total)
            for path, leaf in inputs.flatten(backend.nested(cut)).items():
                out[f"params/{name}/{seed}/{path}"] = leaf
    return out
