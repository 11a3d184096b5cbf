"""Cases of the random module."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from parity.cases.case import Case, Options

SHAPES = [[], [1], [7], [0], [5, 3], [1001]]
SEEDS = [0, 2**31, 2**32 - 1, -1]


def _layouts() -> Iterator[tuple[str, Options]]:
    for partitionable, x64 in itertools.product((False, True), (False, True)):
        name = f"{'newer' if partitionable else 'older'}-{64 if x64 else 32}"
        yield name, {"partitionable": partitionable, "x64": x64}


def random_cases() -> Iterator[Case]:
    """Every function of the random module, in both layouts and both widths."""
    probabilities = [0.1, 0.0, 0.4, 0.05, 0.25, 0.2]
    unnormalised = [1.0, 0.3, 2.0, 0.7, 0.7, 0.1, 0.2]
    few = {"seeds": [0, 2**32 - 1], "shapes": [[]]}
    small = {"seeds": [0, 3], "shapes": [[], [7], [5, 3]]}
    draws: dict[str, Options] = {
        "bits": {"fn": "bits", "args": {}},
        "uniform": {"fn": "uniform", "args": {}},
        "uniform-range": {"fn": "uniform", "args": {"minval": -2.5, "maxval": 3.0}},
        "uniform-narrow": {"fn": "uniform", "args": {"minval": -1e-3, "maxval": 0.3}},
        "normal": {"fn": "normal", "args": {}},
        "truncated_normal": {"fn": "truncated_normal", "args": {"lower": -2.0, "upper": 2.0}},
        "truncated_normal-skewed": {
            "fn": "truncated_normal",
            "args": {"lower": -0.5, "upper": 3.0},
            "shapes": [[7], [257]],
        },
        "randint-2**4": {"fn": "randint", "args": {"minval": 0, "maxval": 16}},
        "randint-5": {"fn": "randint", "args": {"minval": 0, "maxval": 5}},
        "randint-one": {"fn": "randint", "args": {"minval": 3, "maxval": 4}, "shapes": [[7]]},
        "randint-signed": {"fn": "randint", "args": {"minval": -17, "maxval": 100_003}},
        "randint-large": {
            "fn": "randint",
            "args": {"minval": 0, "maxval": 2**31 - 1},
            "shapes": [[7], [257]],
        },
        "bernoulli-0.5": {"fn": "bernoulli", "args": {"p": 0.5}},
        "bernoulli-0.9": {"fn": "bernoulli", "args": {"p": 0.9}},
        "permutation-1": {"fn": "permutation", "args": {"n": 1}, **few},
        "permutation-7": {"fn": "permutation", "args": {"n": 7}, **few},
        "permutation-1000": {"fn": "permutation", "args": {"n": 1000}, **few},
        "permutation-array": {"fn": "permutation_array", "args": {"shape": [11, 3]}, **few},
        "choice": {"fn": "choice", "args": {"n": 12, "replace": True}, **small},
        "choice-p": {
            "fn": "choice",
            "args": {"n": 6, "replace": True, "p": probabilities},
            "seeds": [0, 3],
            "shapes": [[], [7], [257]],
        },
        "choice-p-unnormalised": {
            "fn": "choice",
            "args": {"n": 7, "replace": True, "p": unnormalised},
            "seeds": [0, 3],
            "shapes": [[], [7], [257]],
        },
        "choice-distinct": {
            "fn": "choice",
            "args": {"n": 10, "replace": False},
            "seeds": [0, 3],
            "shapes": [[2], [10], [2, 3]],
        },
        "choice-distinct-p": {
            "fn": "choice",
            "args": {"n": 7, "replace": False, "p": unnormalised},
            "seeds": [0, 3, 5, 9],
            "shapes": [[2], [7]],
        },
        "choice-array": {
            "fn": "choice_array",
            "args": {"values": [[1, 2], [3, 4], [5, 6]], "replace": True},
            "seeds": [0, 3],
            "shapes": [[4]],
        },
        "categorical": {
            "fn": "categorical",
            "args": {"logits": [0.1, -2.0, 3.0, 0.0, 2.5], "axis": -1},
            "seeds": [0, 1, 2, 3, 4, 5],
            "shapes": [[]],
        },
        "categorical-rows": {
            "fn": "categorical",
            "args": {"logits": [[0.1, -2.0, 3.0], [0.0, 0.0, 0.0]], "axis": 0},
            "seeds": [0, 1, 2, 3],
            "shapes": [[]],
        },
        "categorical-shape": {
            "fn": "categorical_shape",
            "args": {"logits": [0.1, -2.0, 1.0, 0.0, 0.5]},
            "seeds": [0, 1],
            "shapes": [[257], [3, 5]],
        },
    }
    for layout, flags in _layouts():
        settings = {"seeds": [0, 1, 7, 42, 2**31, 2**32 - 1, -1, -12345], "split": [1, 2, 3, 5]}
        settings["fold_in"] = [0, 1, 7, 2**31]
        kinds = {"out": "bits"}
        yield Case("random", f"keys-{layout}", "keys", {**settings, **flags}, kinds)
        for name, draw in draws.items():
            kind = "normal" if "normal" in draw["fn"] else "bits"
            settings = {"seeds": SEEDS, "shapes": SHAPES, **draw, **flags}
            yield Case("random", f"{name}-{layout}", "draws", settings, {"out": kind})
