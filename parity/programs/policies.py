"""Programs of the action distributions and of the image augmentation."""

from __future__ import annotations

from typing import Any

import numpy as np

from parity import inputs
from parity.backend import Backend, Outputs, Settings


def _label(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) if shape else "scalar"


def _points(settings: Settings, shape: tuple[int, ...], dtype: str) -> dict[str, np.ndarray]:
    """Actions to compute the density of: ordinary ones and, with tanh, some near the bounds."""
    if not settings["tanh"]:
        return {"inside": inputs.uniform("distribution/x", shape, -4.0, 4.0).astype(dtype)}
    inside = inputs.uniform("distribution/x", shape, -0.999, 0.999).astype(dtype)
    # Upstream clips recorded actions to 1 - 1e-5; the other is the largest number below 1.
    last = 1.0 - np.finfo(dtype).epsneg
    signs = np.sign(inputs.uniform("distribution/signs", shape))
    edges = {"clipped": (signs * (1.0 - 1e-5)).astype(dtype), "edge": (signs * last).astype(dtype)}
    return {"inside": inside, **edges}


def distribution(backend: Backend, settings: Settings) -> Outputs:
    """Draws, densities, mode, entropy, and their gradients in location and log-deviation.

    The density of a draw is computed separately: the original's bijectors cache the input of a
    draw, so that it never passes through the inverse of tanh.
    """
    dtype = "float64" if settings.get("x64") else "float32"
    shape = (*settings["batch"], settings["act_dim"])
    spread = settings["spread"]
    loc = inputs.uniform("distribution/loc", shape, -spread, spread).astype(dtype)
    rows = shape if settings["scale"] == "rows" else shape[-1:]
    log_scale = inputs.uniform("distribution/log_scale", rows, -3.0, 1.0).astype(dtype)
    given = backend.tree({"loc": loc, "log_scale": log_scale})

    def made(p: Any) -> Any:
        return backend.distribution(p["loc"], p["log_scale"], settings["tanh"])

    def cotangent(name: str, size: tuple[int, ...]) -> Any:
        return backend.array(inputs.uniform(f"cotangent/{name}", size).astype(dtype))

    out: Outputs = {"mode": backend.numpy(made(given).mode())}

    def differentiate(name: str, function: Any) -> None:
        gradient = backend.nested(backend.grad(lambda p: function(made(p)).sum())(given))
        out.update({f"gradient/{name}/{leaf}": value for leaf, value in gradient.items()})

    if not settings["tanh"]:
        out["entropy"] = backend.numpy(made(given).entropy())
        differentiate("entropy", lambda d: d.entropy() * cotangent("entropy", shape[:-1]))
    for name, points in _points(settings, shape, dtype).items():
        x = backend.array(points)
        out[f"log_prob/{name}"] = backend.numpy(made(given).log_prob(x))
        differentiate(name, lambda d, x=x: d.log_prob(x) * cotangent("log_prob", shape[:-1]))
    for seed in settings["seeds"]:
        key = backend.random.PRNGKey(seed)
        for drawn in map(tuple, settings["shapes"]):
            label = f"{seed}/{_label(drawn)}"
            actions, density = backend.draw(made(given), key, drawn)
            out[f"sample/{label}"] = backend.numpy(actions)
            out[f"own_log_prob/{label}"] = backend.numpy(density)

            def both(d: Any, key: Any = key, drawn: tuple[int, ...] = drawn) -> Any:
                actions, density = backend.draw(d, key, drawn)
                pulled = (actions * cotangent("sample", (*drawn, *shape))).sum()
                return pulled + (density * cotangent("own", (*drawn, *shape[:-1]))).sum()

            differentiate(f"draw/{label}", both)
    return out


def crops(backend: Backend, settings: Settings) -> Outputs:
    """One image, and a batch of observations, cropped at random."""
    seen = inputs.pixel_observations(0, settings["batch"], settings["space"])
    out: Outputs = {}
    for seed in settings["seeds"]:
        key = backend.random.PRNGKey(seed)
        for name, images in seen.items():
            if images.ndim != 5:
                continue
            one = backend.crop(key, backend.array(images[0]), settings["padding"])
            out[f"crop/{seed}/{name}"] = backend.numpy(one)
            all_of_them = backend.crops(key, backend.batch(seen), name, settings["padding"])
            for entry in seen:
                out[f"crops/{seed}/{name}/{entry}"] = backend.numpy(all_of_them[entry])
    return out
