"""Edge cases, each for a bug that no other case would show (see parity/mutations)."""

from __future__ import annotations

from collections.abc import Iterator

from parity.cases.case import Case, Options


def edge_cases() -> Iterator[Case]:
    """Permutations that are sorted more than once; a filter on its threshold; a size cut off."""
    for name, partitionable in (("older", False), ("newer", True)):
        # From 1,626 entries on 32-bit words are likely enough to repeat for a second round.
        settings: Options = {"fn": "permutation", "args": {"n": 2000}, "seeds": [0, 2**32 - 1]}
        settings = {**settings, "shapes": [[]], "partitionable": partitionable}
        yield Case("edges", f"permutation-2000-{name}", "draws", settings, {"out": "bits"})
    datasets: dict[str, Options] = {
        # The worst episode returns exactly the threshold.
        "filter-all": {"method": "filter", "args": {"take_top": 100.0}, "size": 999},
        # 0.95 * 989 is 939.55
        "split-cut": {"method": "split", "ratio": 0.95, "size": 989},
    }
    for name, settings in datasets.items():
        yield Case("edges", name, "dataset", {"seed": 3, **settings}, {"rows": "bits"})
