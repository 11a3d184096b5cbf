"""Distributions of distrax, which upstream itself does not use. Imports no torch."""
# pyright: reportMissingImports=false

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class JaxProbability:
    """A distribution: its names from the outside to the inside, and the base's parameters."""

    def __init__(self, names: Sequence[str], args: Mapping[str, Any], params: Mapping[str, Any]):
        import distrax

        *wrappers, base = names
        native = getattr(distrax, base)(**params, **args)
        for name in reversed(wrappers):
            if name == "Independent":
                native = distrax.Independent(native, reinterpreted_batch_ndims=1)
            else:
                block = distrax.Block(distrax.Tanh(), len(native.event_shape))
                native = distrax.Transformed(native, block)
        self.native = native

    def log_prob(self, value: Any) -> Any:
        return self.native.log_prob(value)

    def prob(self, value: Any) -> Any:
        return self.native.prob(value)

    def sample(self, key: Any, shape: tuple[int, ...]) -> Any:
        return self.native.sample(seed=key, sample_shape=shape)

    def sample_and_log_prob(self, key: Any, shape: tuple[int, ...]) -> tuple[Any, Any]:
        return self.native.sample_and_log_prob(seed=key, sample_shape=shape)

    def moment(self, name: str) -> Any:
        import distrax

        native = self.native
        if name == "mode" and type(native) is distrax.Transformed:
            return native.bijector.forward(native.distribution.mode())
        return getattr(native, name)()

    def divergence(self, other: Any) -> Any:
        return self.native.kl_divergence(other.native)
