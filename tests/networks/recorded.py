"""Recorded outputs of Flax's image layers and upstream's encoders, and the comparison.

``reference/encoders.safetensors`` is written by ``upstream_encoders.py``.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from idql_func import random, value_and_grad
from idql_func.networks import Module
from idql_func.tree import flatten_params

FILE = Path(__file__).parent / "reference" / "encoders.safetensors"


@functools.cache
def _tensors() -> dict[str, Tensor]:
    return load_file(FILE)


def recorded(prefix: str) -> Any:
    """The tensor of this name, or the nested dict of tensors whose names begin with it."""
    tensors = _tensors()
    if prefix in tensors:
        return tensors[prefix]
    tree: dict[str, Any] = {}
    for name, value in tensors.items():
        if name.startswith(f"{prefix}/"):
            *path, leaf = name.removeprefix(f"{prefix}/").split("/")
            node = tree
            for entry in path:
                node = node.setdefault(entry, {})
            node[leaf] = value
    return tree


def check_case(name: str, module: Module) -> None:
    """Initial parameters within 4 ulp, the output within 2e-6, the gradient within 1e-5."""
    inputs = list(recorded(f"{name}/in").values())  # by position; there are at most two
    w, expected = recorded(f"{name}/w"), recorded(f"{name}/params")
    params = module.init(random.PRNGKey(7))
    flat, flat_expected = flatten_params(params), flatten_params(expected)
    assert set(flat) == set(flat_expected)
    for path, value in flat_expected.items():
        assert flat[path].shape == value.shape, path
        torch.testing.assert_close(flat[path], value, rtol=4 * 2**-23, atol=0.0)

    def objective(params: Any) -> tuple[Tensor, Tensor]:
        output = module.apply(params, *inputs)
        return (output * w).sum(), output

    (_, output), grads = value_and_grad(objective, has_aux=True)(expected)
    assert relative(output, recorded(f"{name}/out")) <= 2e-6
    flat_grads = flatten_params(grads)
    for path, value in flatten_params(recorded(f"{name}/grad")).items():
        assert relative(flat_grads[path], value) <= 1e-5, path


def relative(actual: Tensor, expected: Tensor) -> float:
    """L2 error relative to the expected norm; the plain error where that is 0."""
    assert actual.shape == expected.shape
    error, norm = (actual - expected).double().norm().item(), expected.double().norm().item()
    return error / norm if norm else error
