"""What is to be measured: a workload at certain settings, and what there is to measure it with."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import torch

from benchmarks.timing import Variant
from benchmarks.twin import variants as jax_side

__all__ = ["JAX", "UPSTREAM", "Case", "Effort", "Flops", "Plan", "of_others", "sizes", "twin"]

JAX = "jax"
"""The name of the variant that the others are compared with."""
UPSTREAM = "upstream"
"""That of the original itself."""

Effort = Literal["quick", "usual", "full"]
Of = TypeVar("Of")


def of_others(variant: str) -> bool:
    """Whether a variant is not this library's.

    >>> of_others("jax-vmap"), of_others("donated")
    (True, False)
    """
    return variant == UPSTREAM or variant.split("-", maxsplit=1)[0] == JAX


@dataclass(frozen=True)
class Plan:
    """What a run has at hand, and how far it goes."""

    effort: Effort = "usual"
    device: str = "cpu"
    jax: bool = False
    """Whether the twin on JAX runs beside."""
    upstream: str | None = None
    """A checkout of the original, to run beside too."""
    tiny: bool = False
    """Networks of a few units, for trying the benchmarks themselves."""
    one_process: bool = False
    """Whether the variants of others run in this process too, not in processes of their own."""

    @property
    def cuda(self) -> bool:
        return torch.device(self.device).type == "cuda"

    def pick(self, quick: Of, usual: Of, full: Of) -> Of:
        """What belongs to the plan's effort.

        >>> Plan("quick").pick(1, 2, 3)
        1
        """
        return {"quick": quick, "usual": usual, "full": full}[self.effort]


@dataclass(frozen=True)
class Flops:
    """Floating-point operations of products and convolutions for one unit of work."""

    executed: float
    """What this program does."""
    algorithm: float
    """What the original's arithmetic asks for: more, where the port leaves out repeated work."""


@dataclass(frozen=True)
class Case:
    """A workload at certain settings, and its variants in the order of a round."""

    workload: str
    settings: Any
    unit: str
    variants: tuple[Variant, ...]
    flops: Callable[[], Flops] | None = None
    """None where the work is no matrix work, and a share of the matmul limit means nothing."""
    baseline: str = "eager"
    """The variant that ``ratio_to_eager`` refers to: the plain way without the workload's trick."""
    wait_each: bool = False
    """Whether somebody waits for each call's result."""
    memory: bool = False
    """Whether a run that is not full looks at memory too: of its fastest variant and of JAX's."""
    limit_shape: tuple[int, int, int] | None = None
    """Rows, inner and columns of the workload's largest product, tried for the limit too."""

    def only(self, name: str) -> Variant:
        """The variant of that name.

        Raises:
            ValueError: there is none.
        """
        for variant in self.variants:
            if variant.name == name:
                return variant
        raise ValueError(f"{self.workload}: no variant is called {name!r}")

    def settings_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self.settings)


def sizes(plan: Plan, settings: Sequence[Of], **small: Any) -> list[Of]:
    """The settings as they are, or made tiny (``small`` replaces fields) where the plan says so."""
    if not plan.tiny:
        return list(settings)
    fields = [{f.name for f in dataclasses.fields(s)} for s in settings]  # type: ignore[arg-type]
    return [
        dataclasses.replace(s, **{k: v for k, v in small.items() if k in names})  # type: ignore[type-var]
        for s, names in zip(settings, fields, strict=True)
    ]


def twin(plan: Plan, function: str, settings: Any) -> tuple[Variant, ...]:
    """A variant of the twin on JAX, alone or none, as the plan says."""
    if not plan.jax:
        return ()
    return (getattr(jax_side, function)(settings, plan.device),)
