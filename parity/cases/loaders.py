"""Cases of the loaders and the normaliser, and of small independent parts."""

from __future__ import annotations

from collections.abc import Iterator

from parity.cases.case import Case, Options
from parity.cases.idql import learners
from parity.cases.learners import state_learners


def loader_cases() -> Iterator[Case]:
    """Recordings in D4RL's format and in AWAC's, with every option; the normaliser."""
    kinds = {"arrays": "bits"}
    recordings: dict[str, Options] = {
        "timeouts": {"timeouts": True},
        "counted": {"max_episode_steps": 17},
        "columns": {"columns": True, "wide": True, "max_episode_steps": 5, "args": {"eps": 1e-2}},
        "short": {"max_episode_steps": 2},
        "unclipped": {"timeouts": True, "wide": True, "args": {"clip_to_eps": False}},
    }
    for name, options in recordings.items():
        yield Case("loaders", f"d4rl-{name}", "d4rl", {"length": 160, "args": {}, **options}, kinds)
    demonstrations: dict[str, Options] = {
        "default": {},
        "terminals": {"remove_terminals": False},
        "expert": {"include_bc_data": False, "remove_terminals": False},
        "unclipped": {"clip_to_eps": False},
        "wide-eps": {"eps": 0.25},
    }
    for name, args in demonstrations.items():
        # The last tenth of the episodes is left out, one of each file.
        settings = {"lengths": [4, 1, 6, 3], "clones": [5, 2, 2], "args": args}
        yield Case("loaders", f"binary-{name}", "binary", settings, kinds)
    for size in (2, 1000):
        settings = {"size": size, "batch": 17}
        yield Case("loaders", f"normaliser-{size}", "normalised", settings, {"forward": "forward"})


def part_cases() -> Iterator[Case]:
    """One layer's weights, members of an ensemble, and the learners' Q and V alone."""
    shapes = [[3, 5], [1, 1], [64, 32], [3, 3, 4, 6]]
    for name, flags in {"older": {}, "newer": {"partitionable": True}}.items():
        settings = {"seeds": [0, 7, 2**32 - 1], "shapes": shapes, **flags}
        yield Case("parts", f"default_init-{name}", "initialiser", settings, {"params": "init"})
    counts: dict[str, tuple[int | None, int]] = {"all": (None, 5), "2-10": (2, 10), "5-5": (5, 5)}
    for name, (sample, total) in counts.items():
        settings = {"num_sample": sample, "num_qs": total, "seeds": [0, 3]}
        yield Case("parts", f"subsample-{name}", "subsample", settings, {"params": "bits"})
    for name in ("simple-T1-qs5", "general-expectile-bc"):
        learner = learners()[name]
        yield Case("parts", f"estimates-{name}", "estimates", learner, {"forward": "forward"})
        wide = {**learner, "x64": True}
        kinds = {"forward": "double"}
        yield Case("parts", f"estimates-{name}-double", "estimates", wide, kinds)


def evaluation_cases() -> Iterator[Case]:
    """Mean returns of new learners that take the best candidate, or a drawn one."""
    few = {"N": 8}
    chosen: dict[str, tuple[Options, Options, str]] = {
        "iql": (state_learners()["iql"]["plain"], {}, "evaluate"),
        "simple": (learners()["simple-T1-qs5"], few, "evaluate"),
        "general-implicit": (learners()["general-expectile-bc"], few, "implicit_evaluate"),
    }
    for name, (learner, changes, how) in chosen.items():
        kwargs = {**learner["kwargs"], **changes}
        settings = {**learner, "kwargs": kwargs, "episodes": 3, "how": how}
        yield Case("parts", f"evaluation-{name}", "evaluated", settings, {"return": "action"})
