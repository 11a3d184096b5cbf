"""Cases of the helpers of JAX and Flax."""

from __future__ import annotations

from collections.abc import Iterator

from parity.cases.case import Case, Options
from parity.cases.networks import networks

_STARTS = [[0, 0, 0], [1, 2, 0], [-1, 3, -2], [9, -9, 1]]
_LINES: list[list[object]] = [
    ["x = {x}", [], {"x": 3}],
    ["{} {y:.3f}", [0.1], {"y": 2.5}],
    ["{0} {1} {0}", [[0.1, -2.0], [[1, 2], [3, 4]]], {}],
    ["{{braces}} {:8.2e}|", [1234.5], {}],
]
_ROWS: list[list[object]] = [
    ["x = {x}", [], {"x": [3, -1]}],
    ["{} and {y}", [[0.1, 0.2]], {"y": [[1.0, 2.0], [3.0, 4.0]]}],
]
_FLOATS: list[list[object]] = [["{} {}", [0.1, [1.0, 2.0]], {}], ["{}", [3.0], {}]]
# Under jit this version of JAX refuses formats such as {:.2f}.
_PLAIN = [_LINES[0], _LINES[2]]


def helper_cases() -> Iterator[Case]:
    """Slices, sums of exponentials, stopped gradients, printed lines, frozen dicts, shapes."""
    for x64 in (False, True):
        suffix = "-double" if x64 else ""
        exact = "double" if x64 else "bits"
        kinds: dict[str, str] = {name: exact for name in ("slice", "update", "in_dim", "index")}
        kinds["gradient"] = "double" if x64 else "gradient"
        settings: Options = {"shape": [3, 5, 2], "starts": _STARTS, "axis": 1, "x64": x64}
        for name, sizes in {"part": [2, 3, 1], "whole": [3, 5, 2], "thin": [1, 5, 1]}.items():
            options = {**settings, "sizes": sizes}
            yield Case("helpers", f"slices-{name}{suffix}", "slices", options, kinds)
        double, single = {"value": "double", "gradient": "double"}, {"value": "forward"}
        kinds = double if x64 else {**single, "gradient": "gradient"}
        for name, more in {
            "small": {"spread": 2.0},
            "large": {"spread": 500.0},
            "signs": {"spread": 1.0, "weights": [-1.0, 3.0]},
            "infinite": {"spread": 3.0, "infinite": True},
        }.items():
            options = {**more, "x64": x64}
            yield Case("helpers", f"logsumexp-{name}{suffix}", "log_sum", options, kinds)
        network = networks()["state_value-layer_norm"]
        options = {"network": network, "x64": x64}
        yield Case("helpers", f"shapes{suffix}", "shapes", options, {"shape": "bits"})
    kinds = {"value": "forward", "gradient": "gradient"}
    yield Case("helpers", "stop_gradient", "stopped", {}, kinds)
    for transform, lines in {
        "eager": _LINES,
        "jit": _PLAIN,
        "vmap": _ROWS,
        "grad": _FLOATS,
    }.items():
        settings = {"transform": transform, "lines": lines}
        yield Case("helpers", f"print-{transform}", "printed", settings, {"text": "bits"})
    yield Case("helpers", "frozen_dict", "frozen", {}, {"text": "bits"})
