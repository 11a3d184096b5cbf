"""The port's distributions, in the modes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from idql_func import distributions
from parity.port.lift import Lift

_NAMES = {"Normal": "UnivariateNormal", "Tanh": "TanhTransformed"}


class TorchProbability:
    """As :class:`parity.original.probability.JaxProbability`."""

    def __init__(
        self, names: Sequence[str], args: Mapping[str, Any], params: Mapping[str, Any], lift: Lift
    ):
        *wrappers, base = (getattr(distributions, _NAMES.get(name, name)) for name in names)
        native = base(**params, **args)
        for wrapper in reversed(wrappers):
            native = wrapper(native, 1) if wrapper is distributions.Independent else wrapper(native)
        self.native: distributions.Distribution = native
        self._lift = lift

    def _call(self, name: str, *args: Any) -> Any:
        return self._lift(getattr(type(self.native), name))(self.native, *args)

    def log_prob(self, value: Tensor) -> Tensor:
        return self._call("log_prob", value)

    def prob(self, value: Tensor) -> Tensor:
        return self._call("prob", value)

    def sample(self, key: Tensor, shape: tuple[int, ...]) -> Tensor:
        return self._call("sample", key, shape)

    def sample_and_log_prob(self, key: Tensor, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        return self._call("sample_and_log_prob", key, shape)

    def moment(self, name: str) -> Tensor:
        return self._call(name)

    def divergence(self, other: TorchProbability) -> Tensor:
        return self._call("kl_divergence", other.native)
