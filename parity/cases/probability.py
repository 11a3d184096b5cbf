"""Cases of the distributions of distrax."""

from __future__ import annotations

from collections.abc import Iterator

from parity.cases.case import Case, Options

_MOMENTS = ["mode", "mean", "stddev", "variance", "entropy"]
_NORMAL: Options = {"values": "anywhere", "moments": _MOMENTS}
_CATEGORIES: Options = {"values": "categories", "categories": 4, "moments": ["mode", "entropy"]}
_WITHIN: Options = {"values": "within", "moments": ["mode"]}
_LOGITS = {"parameters": {"logits": [5, 3, 4]}}
_VECTORS = {"parameters": {"loc": [5, 3], "scale_diag": [5, 3]}}
_NUMBERS = {"parameters": {"loc": [5, 3], "scale": [5, 3]}}


def _variants() -> dict[str, Options]:
    categorical: Options = {"distribution": ["Categorical"], **_CATEGORIES}
    vector: Options = {"distribution": ["MultivariateNormalDiag"], **_NORMAL}
    number: Options = {"distribution": ["Normal"], **_NORMAL}
    point: Options = {
        "distribution": ["Deterministic"],
        "parameters": {"loc": [5, 3]},
        "values": "near the mode",
        "moments": _MOMENTS,
        "gradients": False,
    }
    tanh: Options = {"distribution": ["Tanh", "MultivariateNormalDiag"], **_WITHIN}
    return {
        "categorical": {**categorical, **_LOGITS},
        "categorical-one": {**categorical, "parameters": {"logits": [4]}},
        "categorical-probs": {**categorical, "parameters": {"probs": [5, 4]}},
        "categorical-spread": {**categorical, **_LOGITS, "range": [-60.0, 60.0]},
        "categorical-excluded": {**categorical, **_LOGITS, "excluded": True},
        "categorical-probs-excluded": {
            **categorical,
            "parameters": {"probs": [5, 4]},
            "excluded": True,
            "gradients": False,
        },
        "categorical-newer": {**categorical, **_LOGITS, "partitionable": True},
        "normal": {**number, **_NUMBERS},
        "normal-shared": {**number, "parameters": {"loc": [5, 3], "scale": []}},
        "diag": {**vector, **_VECTORS},
        "diag-one": {**vector, "parameters": {"loc": [3], "scale_diag": [3]}},
        "diag-shared": {**vector, "parameters": {"loc": [5, 3], "scale_diag": [3]}},
        "diag-loc": {**vector, "parameters": {"loc": [5, 3]}},
        "diag-scale": {**vector, "parameters": {"scale_diag": [5, 3]}},
        "deterministic": point,
        "deterministic-near": {**point, "args": {"atol": 0.05, "rtol": 0.1}},
        "independent-normal": {**number, "distribution": ["Independent", "Normal"], **_NUMBERS},
        "independent-categorical": {
            **categorical,
            **_LOGITS,
            "distribution": ["Independent", "Categorical"],
        },
        "independent-deterministic": {**point, "distribution": ["Independent", "Deterministic"]},
        "tanh": {**tanh, **_VECTORS},
        "tanh-one": {**tanh, "parameters": {"loc": [3], "scale_diag": [3]}},
        "tanh-saturated": {**tanh, **_VECTORS, "range": [-12.0, 12.0]},
        "tanh-normal": {**tanh, "distribution": ["Tanh", "Normal"], **_NUMBERS},
        "tanh-independent": {
            **tanh,
            "distribution": ["Tanh", "Independent", "Normal"],
            **_NUMBERS,
        },
        "tanh-newer": {**tanh, **_VECTORS, "partitionable": True},
    }


def probability_cases() -> Iterator[Case]:
    """Draws, densities, moments and divergences; in double precision too."""
    base: Options = {"gradients": True, "seeds": [0, 2**32 - 1], "shapes": [[], [2, 3]]}
    names = (*_MOMENTS, "kl", "log_prob", "prob", "sample", "drawn", "own_log_prob")
    doubles = ("categorical", "diag", "diag-shared", "normal", "tanh", "tanh-saturated")
    for name, options in _variants().items():
        for x64 in (False, True) if name in doubles else (False,):
            kinds = dict.fromkeys(names, "double" if x64 else "forward")
            kinds["gradient"] = "double" if x64 else "gradient"
            if options["values"] == "categories":
                kinds |= dict.fromkeys(("sample", "drawn", "mode"), "bits")
            settings = {**base, **options, "x64": x64}
            whole = f"{name}-double" if x64 else name
            yield Case("distrax", whole, "probability", settings, kinds)
