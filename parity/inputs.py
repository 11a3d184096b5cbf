"""Deterministic inputs for both sides: batches, observations, parameters, gradients.

The inputs are not stored with the reference, so these numbers must never change, whatever the
version of NumPy. They are made from the raw 64-bit words of Philox, which NumPy promises to keep;
it does not promise that for its distributions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

Tree = dict[str, Any]


def uniform(tag: str, shape: tuple[int, ...], low: float = -1.0, high: float = 1.0) -> np.ndarray:
    """Float64 numbers of ``shape`` in ``[low, high)`` that depend only on ``tag``.

    >>> float(uniform("example", (2,))[0]) == float(uniform("example", (2,))[0])
    True
    """
    key = int.from_bytes(hashlib.sha256(tag.encode()).digest()[:16], "little")
    size = int(np.prod(shape, dtype=np.int64))
    words = np.random.Philox(key=key).random_raw(size) if size else np.zeros(0, np.uint64)
    unit = (np.asarray(words, np.uint64) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return (low + (high - low) * unit).reshape(shape)


def batch(
    seed: int, step: int, size: int, obs_dim: int, act_dim: int, *, dtype: str = "float32"
) -> dict[str, np.ndarray]:
    """One training batch: the six arrays of the offline contract, ``[B, O]``, ``[B, A]``, ``[B]``.

    One transition in ten ends an episode.

    >>> sorted(batch(0, 0, 4, 3, 2))
    ['actions', 'dones', 'masks', 'next_observations', 'observations', 'rewards']
    """
    tag = f"batch/{seed}/{step}"
    observations = uniform(f"{tag}/observations", (size, obs_dim), -2.0, 2.0)
    dones = (uniform(f"{tag}/dones", (size,), 0.0, 1.0) < 0.1).astype(np.float64)
    arrays = {
        "observations": observations,
        "actions": uniform(f"{tag}/actions", (size, act_dim), -0.999, 0.999),
        "rewards": uniform(f"{tag}/rewards", (size,)),
        "masks": 1.0 - dones,
        "dones": dones,
        "next_observations": observations + uniform(f"{tag}/next", (size, obs_dim), -0.2, 0.2),
    }
    return {name: value.astype(dtype) for name, value in arrays.items()}


def observations(seed: int, count: int, obs_dim: int, dtype: str = "float32") -> np.ndarray:
    """Observations to act on, ``[count, O]``."""
    return uniform(f"observations/{seed}", (count, obs_dim), -2.0, 2.0).astype(dtype)


def pixel_observations(
    seed: int | str, count: int, space: Mapping[str, list[int]], dtype: str = "float32"
) -> Tree:
    """Nested observations, ``[count, *shape]`` for each name of ``space``.

    Shapes of four axes (height, width, channels, stack) are images: bytes, or, for names that
    contain "depth", numbers in ``[0, 1)``. Others are states.

    >>> seen = pixel_observations(0, 2, {"pixels": [4, 4, 3, 2], "state": [3]})
    >>> seen["pixels"].dtype, seen["state"].shape
    (dtype('uint8'), (2, 3))
    """
    out: Tree = {}
    for name, shape in space.items():
        tag, full = f"observations/{seed}/{name}", (count, *shape)
        if len(shape) < 4:
            out[name] = uniform(tag, full, -2.0, 2.0).astype(dtype)
        elif "depth" in name:
            out[name] = uniform(tag, full, 0.0, 1.0).astype(dtype)
        else:
            out[name] = uniform(tag, full, 0.0, 256.0).astype(np.uint8)
    return out


def observation_space(spaces: Any, settings: Mapping[str, Any]) -> Any:
    """The space of a case's observations: a box of ``obs_dim``, or nested as ``space`` says.

    ``spaces`` is the module of either side: Gym's, or Gymnasium's.
    """
    if "space" not in settings or settings.get("flat"):
        return spaces.Box(-np.inf, np.inf, (settings["obs_dim"],), np.float32)
    boxes: dict[str, Any] = {}
    for name, values in pixel_observations(0, 1, settings["space"]).items():
        low, high = (0, 255) if values.ndim == 5 else (-np.inf, np.inf)
        boxes[name] = spaces.Box(low, high, values.shape[1:], values.dtype.type)
    return spaces.Dict(boxes)


def pixel_batch(
    seed: int,
    step: int,
    size: int,
    space: Mapping[str, list[int]],
    act_dim: int,
    *,
    packed: bool = False,
    dtype: str = "float32",
) -> Tree:
    """A batch with nested observations; the next observations are one frame later.

    With ``packed``, images come once with one more frame than the stack, and the next
    observations have none, as in batches of a memory-efficient buffer.

    >>> pixel_batch(0, 0, 4, {"pixels": [4, 4, 3, 2]}, 2, packed=True)["observations"][
    ...     "pixels"
    ... ].shape
    (4, 4, 4, 3, 3)
    """
    longer = {name: [*s[:-1], s[-1] + 1] if len(s) == 4 else s for name, s in space.items()}
    frames = pixel_observations(f"pixels/{seed}/{step}", size, longer, dtype)
    now, later = dict(frames), {}
    for name, values in frames.items():
        if values.ndim != 5:
            moved = uniform(f"pixels/{seed}/{step}/{name}/next", values.shape, -0.2, 0.2)
            later[name] = (values + moved).astype(dtype)
        elif not packed:
            now[name], later[name] = values[..., :-1].copy(), values[..., 1:].copy()
    flat = batch(seed, step, size, 1, act_dim, dtype=dtype)
    return {**flat, "observations": now, "next_observations": later}


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Leaves of a nested mapping by path, in sorted order.

    >>> flatten({"b": {"y": 2, "x": 1}, "a": 0})
    {'a': 0, 'b/x': 1, 'b/y': 2}
    """
    flat: dict[str, Any] = {}
    for name in sorted(tree):
        value, path = tree[name], f"{prefix}{name}"
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{path}/"))
        else:
            flat[path] = value
    return flat


def unflatten(flat: Mapping[str, Any]) -> Tree:
    """Inverse of :func:`flatten`.

    >>> unflatten({"a": 0, "b/x": 1})
    {'a': 0, 'b': {'x': 1}}
    """
    tree: Tree = {}
    for path, value in flat.items():
        *parents, name = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = value
    return tree


def parameters(tag: str, shapes: Mapping[str, tuple[int, ...]], dtype: str = "float32") -> Tree:
    """Parameters of the given shapes, without the zeros and ones of initialisers.

    Kernels are scaled by fan-in, so that activations keep their size from layer to layer; this
    keeps a test of forward passes independent of the test of initialisers.
    """
    flat = {}
    for path, shape in shapes.items():
        name = path.rsplit("/", 1)[-1]
        values = uniform(f"{tag}/{path}", shape)
        if name == "scale":
            values = 1.0 + 0.3 * values
        elif len(shape) >= 2:
            fan_in = np.prod(shape[:-1]) if len(shape) == 4 else shape[-2]
            values = values * np.sqrt(3.0 / fan_in)
        else:
            values = 0.3 * values
        flat[path] = values.astype(dtype)
    return unflatten(flat)


def optimiser_tree(tag: str, dtype: str = "float32") -> Tree:
    """A small parameter-like tree with the names that the weight-decay mask distinguishes."""
    shapes = {
        "Dense_0/kernel": (4, 3),
        "Dense_0/bias": (3,),
        "LayerNorm_0/scale": (3,),
        "OutputVDense/kernel": (3, 1),
        "OutputVDense/bias": (1,),
    }
    return unflatten(
        {path: uniform(f"{tag}/{path}", s).astype(dtype) for path, s in shapes.items()}
    )


def fingerprint() -> str:
    """SHA-256 over a sample of every generator here; the manifest has that of the recording."""
    digest = hashlib.sha256()
    for array in batch(0, 0, 3, 2, 2, dtype="float64").values():
        digest.update(array.tobytes())
    digest.update(observations(0, 2, 3, "float64").tobytes())
    for array in flatten(parameters("probe", {"a/kernel": (2, 3), "a/scale": (3,)})).values():
        digest.update(array.tobytes())
    for array in flatten(optimiser_tree("probe")).values():
        digest.update(array.tobytes())
    probe = pixel_batch(0, 0, 2, {"pixels": [2, 2, 1, 2], "depth": [2, 2, 1, 2], "state": [2]}, 2)
    for array in flatten(probe).values():
        digest.update(array.tobytes())
    return digest.hexdigest()
