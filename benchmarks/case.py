"""A benchmark case: a workload with its settings, and the variants that are compared."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import torch

from benchmarks.jax_side import variants as jax_variants_module
from benchmarks.timing import Variant

__all__ = [
    "JAX",
    "UPSTREAM",
    "Case",
    "Effort",
    "Flops",
    "Plan",
    "is_external",
    "jax_variants",
    "resized",
]

JAX = "jax"
"""Name of the variant on JAX; ratios are relative to it."""
UPSTREAM = "upstream"
"""Name of the variant that runs the original."""

Effort = Literal["quick", "usual", "full"]
T = TypeVar("T")


def is_external(variant: str) -> bool:
    """Whether a variant runs on JAX or runs the original, not this library.

    >>> is_external("jax-vmap"), is_external("donated")
    (True, False)
    """
    return variant == UPSTREAM or variant.split("-", maxsplit=1)[0] == JAX


@dataclass(frozen=True)
class Plan:
    """What a run measures, and what is installed for it."""

    effort: Effort = "usual"
    device: str = "cpu"
    jax: bool = False
    """Whether the variants on JAX run."""
    upstream: str | None = None
    """A checkout of the original, whose variants run too."""
    tiny: bool = False
    """Networks of a few units, for trying the benchmarks themselves."""
    one_process: bool = False
    """Whether JAX and the original run in this process, not in child processes."""

    @property
    def cuda(self) -> bool:
        return torch.device(self.device).type == "cuda"

    def pick(self, quick: T, usual: T, full: T) -> T:
        """The argument that belongs to the plan's effort.

        >>> Plan("quick").pick(1, 2, 3)
        1
        """
        return {"quick": quick, "usual": usual, "full": full}[self.effort]


@dataclass(frozen=True)
class Flops:
    """Floating-point operations of matrix products and convolutions in one unit of work."""

    executed: float
    """Operations of this library's program."""
    algorithm: float
    """Operations of the original's arithmetic: more, where the port leaves out repeated work."""


@dataclass(frozen=True)
class Case:
    """A workload at certain settings, and its variants in the order of a round."""

    workload: str
    settings: Any
    unit: str
    variants: tuple[Variant, ...]
    flops: Callable[[], Flops] | None = None
    """None for work without matrix products, where a share of the matmul limit has no meaning."""
    baseline: str = "eager"
    """The plain variant that ``ratio_to_eager`` refers to."""
    wait_each: bool = False
    """Whether to wait for the result of each call."""
    memory: bool = False
    """Whether a run that is not full measures memory too: of its fastest variant and of JAX's."""
    limit_shape: tuple[int, int, int] | None = None
    """Rows, inner size and columns of the workload's largest product, tried for the limit too."""

    def variant(self, name: str) -> Variant:
        """The variant of this name.

        Raises:
            ValueError: there is none.
        """
        for variant in self.variants:
            if variant.name == name:
                return variant
        raise ValueError(f"{self.workload}: no variant is called {name!r}")

    def settings_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self.settings)


def resized(plan: Plan, settings: Sequence[T], **tiny: Any) -> list[T]:
    """The settings unchanged, or with the fields ``tiny`` replaced if the plan is tiny."""
    if not plan.tiny:
        return list(settings)
    fields = [{f.name for f in dataclasses.fields(s)} for s in settings]  # type: ignore[arg-type]
    return [
        dataclasses.replace(s, **{k: v for k, v in tiny.items() if k in names})  # type: ignore[type-var]
        for s, names in zip(settings, fields, strict=True)
    ]


def jax_variants(plan: Plan, function: str, settings: Any) -> tuple[Variant, ...]:
    """The variant on JAX that ``function`` of ``jax_side.variants`` makes; empty without JAX."""
    if not plan.jax:
        return ()
    return (getattr(jax_variants_module, function)(settings, plan.device),)
