"""Programs of the helpers of JAX and Flax: slices, ``logsumexp``, printed lines, frozen dicts."""

from __future__ import annotations

from typing import Any

import numpy as np

from parity import inputs
from parity.backend import Backend, Outputs, Settings


def slices(backend: Backend, settings: Settings) -> Outputs:
    """Slices and updates at given starts, and their gradients; some starts pass an end."""
    dtype = "float64" if settings.get("x64") else "float32"
    h, shape, sizes = backend.helpers, tuple(settings["shape"]), tuple(settings["sizes"])
    x = backend.array(inputs.uniform("slices/x", shape).astype(dtype))
    update = backend.array(inputs.uniform("slices/update", sizes).astype(dtype))
    out: Outputs = {}
    axis = settings["axis"]
    for starts in settings["starts"]:
        label = ",".join(map(str, starts))
        where = [backend.array(np.array(start, np.int32)) for start in starts]
        functions: dict[str, Any] = {
            "slice": lambda x, u, where=where: h.dynamic_slice(x, where, sizes),
            "update": lambda x, u, where=where: h.dynamic_update_slice(x, u, where),
            "in_dim": lambda x, u, where=where: h.dynamic_slice_in_dim(
                x, where[axis], sizes[axis], axis
            ),
            "index": lambda x, u, where=where: h.dynamic_index_in_dim(x, where[axis], axis, False),
        }
        for name, function in functions.items():
            out[f"{name}/{label}"] = backend.numpy(function(x, update))
            slope = backend.grad(lambda p, f=function: (f(p["x"], p["u"]) ** 2).sum())
            for leaf, value in backend.nested(slope({"x": x, "u": update})).items():
                out[f"gradient/{name}/{label}/{leaf}"] = value
    return out


def log_sum(backend: Backend, settings: Settings) -> Outputs:
    """``logsumexp`` along axes, with weights or without, and its gradients."""
    dtype = "float64" if settings.get("x64") else "float32"
    spread = settings["spread"]
    x = inputs.uniform("log_sum/x", (3, 4), -spread, spread)
    b = inputs.uniform("log_sum/b", (3, 4), *settings.get("weights", [0.1, 2.0]))
    if settings.get("infinite"):
        x[0, 1], x[1, :], x[2, 0], b[2, 3] = -np.inf, -np.inf, spread, 0.0
    given = backend.tree({"x": x.astype(dtype), "b": b.astype(dtype)})
    out: Outputs = {}
    for axis in (None, 0, -1):
        options = {"axis": axis, "keepdims": axis == -1}

        def plain(p: Any, options: Any = options) -> Any:
            return backend.helpers.logsumexp(p["x"], **options)

        def weighted(p: Any, options: Any = options) -> Any:
            return backend.helpers.logsumexp(p["x"], b=p["b"], **options)

        for name, function in {"plain": plain, "weighted": weighted}.items():
            out[f"value/{name}/{axis}"] = backend.numpy(function(given))
            if not settings.get("infinite"):
                slopes = backend.nested(backend.grad(lambda p, f=function: f(p).sum())(given))
                out |= {f"gradient/{name}/{axis}/{k}": leaf for k, leaf in slopes.items()}
    return out


def stopped(backend: Backend, settings: Settings) -> Outputs:
    """First and second derivatives of a function of a tree that holds a stopped copy of it."""
    sizes = {"a": 3, "c": 2}
    drawn = {k: inputs.uniform(f"stopped/{k}", (n,)).astype("float32") for k, n in sizes.items()}
    given = backend.tree({"a": drawn["a"], "b": {"c": drawn["c"]}})

    def loss(p: Any) -> Any:
        fixed = backend.helpers.stop_gradient(p)
        return (p["a"] ** 2 * fixed["a"]).sum() * (p["b"]["c"] * fixed["b"]["c"]).sum()

    def twice(p: Any) -> Any:
        return (backend.grad(loss)(p)["a"] ** 2).sum()

    out: Outputs = {"value": backend.numpy(loss(given))}
    for name, function in {"first": loss, "second": twice}.items():
        slopes = inputs.flatten(backend.nested(backend.grad(function)(given)))
        out |= {f"gradient/{name}/{path}": leaf for path, leaf in slopes.items()}
    return out


def printed(backend: Backend, settings: Settings) -> Outputs:
    """The characters that ``debug.print`` writes for some texts and values."""
    out: Outputs = {}
    for k, (fmt, args, kwargs) in enumerate(settings["lines"]):

        def values(given: Any) -> Any:
            return backend.array(np.array(given, np.float32 if _has_floats(given) else np.int32))

        text = backend.printed(
            settings["transform"],
            fmt,
            [values(x) for x in args],
            {name: values(x) for name, x in kwargs.items()},
        )
        out[f"text/{k}"] = np.frombuffer(text.encode(), np.uint8)
    return out


def _has_floats(value: Any) -> bool:
    return any(map(_has_floats, value)) if isinstance(value, list) else isinstance(value, float)


_TREES: dict[str, Any] = {
    "flat": {"b": 1, "a": 2},
    "nested": {"z": {"y": {"x": 1.5}, "w": "text"}, "a": {}},
    "empty": {},
}


def frozen(backend: Backend, settings: Settings) -> Outputs:
    """The representation of frozen dicts, their order of leaves, and what copy and pop give."""
    h, out = backend.helpers, Outputs()
    for name, tree in _TREES.items():
        frozen = h.freeze(tree)
        parts: dict[str, Any] = {
            "repr": repr(frozen),
            "leaves": repr(backend.leaves(frozen)),
            "keys": repr([*frozen]),
            "copy": repr(frozen.copy({"new": {"k": 1}})),
            "thawed": repr(h.unfreeze(frozen)),
            "equal": repr((frozen == tree, frozen == h.freeze(tree), frozen != h.freeze({"o": 1}))),
            "hash": repr(hash(frozen) == hash(h.freeze(dict(reversed(tree.items()))))),
        }
        if tree:
            parts["pop"] = repr(frozen.pop(next(iter(tree))))
        for part, text in parts.items():
            out[f"text/{name}/{part}"] = np.frombuffer(text.encode(), np.uint8)
    return out


def shapes(backend: Backend, settings: Settings) -> Outputs:
    """The shapes and dtypes by ``eval_shape`` of draws, a network and a step of Adam."""
    network, r = backend.network(settings["network"]), backend.random
    params, key = network.init(r.PRNGKey(0)), r.PRNGKey(1)
    x = backend.array(inputs.observations(0, 5, settings["network"]["obs_dim"]))

    def draws(key: Any) -> Any:
        logits = backend.array(np.zeros((2, 3), np.float32))
        return {
            "normal": r.normal(key, (2, 3)),
            "randint": r.randint(key, (4,), 0, 9),
            "choice": r.choice(key, 9, (2,), replace=False),
            "category": r.categorical(key, logits),
        }

    def applied(params: Any, x: Any) -> Any:
        value = network.apply(params, x)
        return {"value": value, "positive": value > 0, "sum": value.sum()}

    def step(params: Any, x: Any) -> Any:
        tx = backend.optim.adam(1e-3)
        slopes = backend.grad(lambda p: (network.apply(p, x) ** 2).sum())(params)
        updates, _ = tx.update(slopes, tx.init(params), params)
        return {"params": backend.optim.apply_updates(params, updates)}

    found = {
        "draws": backend.eval_shape(draws, key),
        "applied": backend.eval_shape(applied, params, x),
        "step": backend.eval_shape(step, params, x),
    }
    return {
        f"shape/{name}/{path}": np.array([*shape, *dtype.encode()], np.int64)
        for name, leaves in found.items()
        for path, (shape, dtype) in leaves.items()
    }
