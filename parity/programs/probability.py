"""Programs of the distributions of distrax."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from parity import inputs
from parity.backend import Backend, Outputs, Settings


def _label(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) if shape else "scalar"


def _parameters(settings: Settings, tag: str, dtype: str) -> dict[str, np.ndarray]:
    """The parameters of a distribution by name; deviations are positive."""
    made: dict[str, np.ndarray] = {}
    low, high = settings.get("range", [-2.0, 2.0])
    for name, shape in settings["parameters"].items():
        bounds = (0.05, 1.5) if name in ("scale", "scale_diag", "probs") else (low, high)
        values = inputs.uniform(f"probability/{tag}/{name}", tuple(shape), *bounds)
        if settings.get("excluded") and name in ("logits", "probs"):
            values[..., 1] = 0.0 if name == "probs" else -np.inf
        made[name] = values.astype(dtype)
    return made


def _points(
    settings: Settings, shape: tuple[int, ...], dtype: str, mode: np.ndarray
) -> Iterator[tuple[str, np.ndarray]]:
    """Values to compute the density of."""
    kind = settings["values"]
    if kind == "categories":
        count = settings["categories"]
        for number in range(-1, count + 1):
            yield str(number), np.full(shape, number, np.int32)
    elif kind == "near the mode":
        yield "mode", mode
        for name, distance in {"near": 0.01, "far": 0.4}.items():
            yield name, (mode + distance).astype(dtype)
    elif kind == "within":
        inside = inputs.uniform("probability/x", shape, -0.999, 0.999).astype(dtype)
        yield "inside", inside
        yield "clipped", (np.sign(inside) * (1.0 - 1e-5)).astype(dtype)
        yield "edge", (np.sign(inside) * (1.0 - np.finfo(dtype).epsneg)).astype(dtype)
    else:
        yield "anywhere", inputs.uniform("probability/x", shape, -4.0, 4.0).astype(dtype)


def probability(backend: Backend, settings: Settings) -> Outputs:
    """Draws, densities and moments of a distribution, divergence from another, and gradients."""
    dtype = "float64" if settings.get("x64") else "float32"
    first, second = (backend.tree(_parameters(settings, tag, dtype)) for tag in ("one", "other"))

    def made(p: Any) -> Any:
        return backend.probability(settings, p)

    out: Outputs = {}
    dist = made(first)
    for name in settings["moments"]:
        out[name] = backend.numpy(dist.moment(name))
    shape = out["mode"].shape

    def differentiate(name: str, function: Any) -> None:
        gradient = backend.nested(backend.grad(lambda p: function(made(p)).sum())(first))
        out.update({f"gradient/{name}/{leaf}": value for leaf, value in gradient.items()})

    if "entropy" in settings["moments"] and settings["gradients"]:
        differentiate("entropy", lambda d: d.moment("entropy"))
    out["kl"] = backend.numpy(dist.divergence(made(second)))
    if settings["gradients"]:
        differentiate("kl", lambda d: d.divergence(made(second)))
    for name, values in _points(settings, shape, dtype, out["mode"]):
        x = backend.array(values)
        out[f"log_prob/{name}"] = backend.numpy(dist.log_prob(x))
        if settings["values"] in ("categories", "near the mode"):
            # of a density it is the exponential of what is there already
            out[f"prob/{name}"] = backend.numpy(dist.prob(x))
        # outside the categories every log-probability is -inf, whatever the parameters
        if settings["gradients"] and np.isfinite(out[f"log_prob/{name}"]).all():
            differentiate(name, lambda d, x=x: d.log_prob(x))
    for seed in settings["seeds"]:
        key = backend.random.PRNGKey(seed)
        for drawn in map(tuple, settings["shapes"]):
            label = f"{seed}/{_label(drawn)}"
            out[f"sample/{label}"] = backend.numpy(dist.sample(key, drawn))
            both = dist.sample_and_log_prob(key, drawn)
            out[f"drawn/{label}"], out[f"own_log_prob/{label}"] = map(backend.numpy, both)
    if settings["gradients"] and settings["values"] != "categories":
        key, drawn = backend.random.PRNGKey(settings["seeds"][0]), tuple(settings["shapes"][-1])
        differentiate("draw", lambda d: d.sample(key, drawn) ** 2)
        differentiate("own", lambda d: d.sample_and_log_prob(key, drawn)[1])
    return out
