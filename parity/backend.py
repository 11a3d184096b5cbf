"""What a side of the comparison has to offer.

Two classes keep this protocol: :class:`parity.jax_backend.JaxBackend` (the original, in its own
environment) and :class:`parity.torch_backend.TorchBackend` (the port). A program sees neither jax
nor torch: arrays go in as NumPy through ``array`` and come out through ``numpy``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np

Settings = Mapping[str, Any]
Outputs = dict[str, np.ndarray]


class Network(Protocol):
    """A network of either side, without weights."""

    def init(self, key: Any) -> Any:
        """Parameter tree that this side draws from ``key``."""
        ...

    def apply(
        self, params: Any, *inputs: Any, training: bool = False, dropout_key: Any = None
    ) -> Any:
        """Forward pass."""
        ...


class Backend(Protocol):
    """One side: its functions under common names."""

    random: Any
    """``jax.random`` or the port's module of the same functions."""
    losses: Any
    """Namespace with ``expectile_loss, quantile_loss, exponential_loss, exp_w_clip``."""
    optim: Any
    """Namespace with ``adam, adamw, cosine_decay_schedule, apply_updates, incremental_update``."""

    def flags(self, x64: bool, partitionable: bool) -> AbstractContextManager[None]:
        """Number width and stream layout in force inside the block."""
        ...

    def array(self, value: np.ndarray) -> Any:
        """A native array of the same type."""
        ...

    def numpy(self, value: Any) -> np.ndarray:
        """The NumPy array of a native one."""
        ...

    def grad(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Gradient of a scalar function in its first argument, a tree."""
        ...

    def tree_map(self, function: Callable[..., Any], tree: Any) -> Any:
        """Apply ``function`` to every leaf."""
        ...

    def nested(self, tree: Any) -> dict[str, Any]:
        """A parameter tree as nested dicts of NumPy arrays."""
        ...

    def tree(self, nested: Mapping[str, Any]) -> Any:
        """A parameter tree of native arrays from nested dicts of NumPy arrays."""
        ...

    def network(self, settings: Settings) -> Network:
        """The network that ``settings`` describes."""
        ...

    def beta_schedule(self, name: str, timesteps: int) -> Any:
        """``cosine``, ``linear`` or ``vp`` betas, ``[T]``."""
        ...

    def sample_ddpm(
        self, network: Network, params: Any, key: Any, observations: Any, settings: Settings
    ) -> tuple[Any, Any]:
        """Run the reverse chain; ``(actions [B, A], key)``."""
        ...

    def decay_mask(self, params: Any) -> Any:
        """The tree of booleans that says which leaves decay."""
        ...

    def learner(self, settings: Settings) -> Any:
        """A freshly created learner, widened to float64 where ``settings`` ask for it."""
        ...

    def first_moments(self, learner: Any, name: str) -> dict[str, Any]:
        """Adam's first moments of one TrainState, as nested dicts of NumPy arrays."""
        ...

    def implicit_action(self, learner: Any, observation: Any) -> tuple[np.ndarray, Any]:
        """An action by the original's literal sampling weights (quirks E1 and E2 included)."""
        ...

    def dataset(self, arrays: Mapping[str, np.ndarray], seed: int | None) -> Any:
        """A dataset object."""
        ...

    def sample_device(self, dataset: Any, batch_size: int) -> Mapping[str, Any]:
        """One batch by the dataset's key (the original's ``sample_jax``)."""
        ...


Program = Callable[[Backend, Settings], Outputs]
Shape = Sequence[int]
