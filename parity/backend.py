"""The protocol that both sides of the comparison implement.

Two classes implement it: :class:`parity.original.backend.JaxBackend` (the original, in its
own environment) and :class:`parity.port.backend.TorchBackend` (the port). A program sees neither
jax nor torch: arrays go in as NumPy through ``array`` and come out through ``numpy``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import numpy as np

Settings = Mapping[str, Any]
Outputs = dict[str, np.ndarray]

Event = tuple[str, str, dict[str, Any]]
"""An event recorded from a learner: ``call`` or ``step``, the network, arrays by name.

Of a call of a network ``inputs``, ``params``, ``dropout`` (the key, if there was one), ``layers``
(the output of each submodule by its path) and ``out``; of a step of its optimiser ``gradient``.
Distributions are ``loc`` and ``scale``.
"""


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

    def layers(
        self, params: Any, *inputs: Any, training: bool = False, dropout_key: Any = None
    ) -> dict[str, np.ndarray]:
        """Output of every submodule on a forward pass, by its path in Flax's tree.

        A distribution has two, ``<path>/loc`` and ``<path>/scale``.
        """
        ...


class Backend(Protocol):
    """One side: its functions under common names."""

    random: Any
    """``jax.random`` or the port's module of the same functions."""
    losses: Any
    """Namespace with ``expectile_loss, quantile_loss, exponential_loss, exp_w_clip``."""
    optim: Any
    """Namespace with ``adam, adamw, cosine_decay_schedule, apply_updates, incremental_update``."""

    helpers: Any
    """Namespace with ``dynamic_slice`` and its like, ``logsumexp, stop_gradient, freeze``."""

    def flags(self, x64: bool, partitionable: bool) -> AbstractContextManager[None]:
        """Set the precision and the layout of random streams inside the block."""
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

    def distribution(self, loc: Any, log_scale: Any, tanh: bool) -> Any:
        """A normal distribution, or its image under tanh, with ``log_prob, mode, entropy``."""
        ...

    def draw(self, distribution: Any, key: Any, shape: tuple[int, ...]) -> tuple[Any, Any]:
        """Draws, and their log-density as the distribution returns it with them."""
        ...

    def probability(self, settings: Settings, params: Any) -> Any:
        """A distribution of distrax, with these parameters.

        It has ``log_prob, prob, sample, sample_and_log_prob``, ``moment(name)`` and
        ``divergence(other)``. ``settings`` name it, from the outside to the inside.
        """
        ...

    def printed(
        self, transform: str, fmt: str, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> str:
        """What ``debug.print`` writes, ``eager`` or under ``jit``, ``vmap`` or ``grad``."""
        ...

    def leaves(self, tree: Any) -> list[Any]:
        """The leaves of a tree."""
        ...

    def eval_shape(
        self, function: Callable[..., Any], *args: Any
    ) -> dict[str, tuple[tuple[int, ...], str]]:
        """The shape and dtype of each leaf of a function's result, a nested dict, by path."""
        ...

    def crop(self, key: Any, image: Any, padding: int) -> Any:
        """One image, padded by its edges and cropped at random."""
        ...

    def crops(self, key: Any, observations: Any, name: str, padding: int) -> Mapping[str, Any]:
        """Observations of a batch, the images of one name cropped at random."""
        ...

    def beta_schedule(self, name: str, timesteps: int) -> Any:
        """``cosine``, ``linear`` or ``vp`` betas, ``[T]``."""
        ...

    def ddpm_sampler(self, network: Network, *arguments: Any) -> tuple[Any, Any]:
        """The reverse process of a network's actor; ``(actions [B, A], key)``.

        ``arguments`` are those of the function of that name, in the same order on both sides.
        """
        ...

    def decay_mask(self, params: Any) -> Any:
        """A tree of booleans: which leaves decay."""
        ...

    def learner(self, settings: Settings) -> Any:
        """A new learner, converted to float64 if ``settings`` require it."""
        ...

    def updated(
        self, learner: Any, method: str, batch: Any, *ratio: int
    ) -> tuple[Any, Mapping[str, Any]]:
        """``update`` or a part of it: the next learner and the logged values.

        ``ratio`` is the ratio of updates to data, for learners that have one.
        """
        ...

    def batch(self, arrays: Any) -> Any:
        """Arrays, or a nested dict of them, converted for this side's learners."""
        ...

    def choose(self, learner: Any, how: str, observations: Any) -> tuple[np.ndarray, Any]:
        """``eval_actions``, ``sample_actions`` or a like method; actions and the next learner.

        ``literal_implicit`` is an action by the original's literal sampling weights (quirks E1
        and E2 included).
        """
        ...

    def watched(
        self, learner: Any, names: Sequence[str]
    ) -> AbstractContextManager[tuple[Any, list[Event]]]:
        """The learner with its networks instrumented, and the events; complete after the block.

        Events are in the order of this side's computation.
        """
        ...

    def first_moments(self, learner: Any, name: str) -> dict[str, Any]:
        """Adam's first moments of one TrainState, as nested dicts of NumPy arrays."""
        ...

    def dataset(self, arrays: Mapping[str, np.ndarray], seed: int | None) -> Any:
        """A dataset object."""
        ...

    def sample_device(self, dataset: Any, batch_size: int) -> Mapping[str, Any]:
        """One batch by the dataset's key (the original's ``sample_jax``)."""
        ...

    def d4rl(self, source: Any, options: Settings) -> Any:
        """A dataset from the arrays that ``source.get_dataset()`` returns."""
        ...

    def binary(self, folder: Path, name: str, options: Settings) -> Any:
        """A dataset of the files in AWAC's format in a folder."""
        ...

    def normalised(self, fitted: Mapping[str, np.ndarray], x: Mapping[str, np.ndarray]) -> Outputs:
        """Fields of ``x`` at mean 0 and deviation 1 of those of ``fitted``, and back again.

        ``whole/<field>``, ``field/<field>`` (by the field's own normaliser) and ``back/<field>``.
        """
        ...

    def initialiser(self, described: Sequence[Any], key: Any, shape: tuple[int, ...]) -> Any:
        """Weights of that shape by the initialiser of that name and arguments.

        ``["default_init"]`` is the networks' usual one.
        """
        ...

    def subsample(self, key: Any, params: Any, num_sample: int | None, num_qs: int) -> Any:
        """The parameters of some members of an ensemble, drawn without replacement."""
        ...

    def estimates(self, learner: Any, observations: Any, actions: Any) -> tuple[Any, Any]:
        """A learner's minimum Q and its V, ``[B]`` each."""
        ...

    def evaluated(self, learner: Any, walk: Any, episodes: int, how: str) -> float:
        """Mean return in an environment of the programs, by the side's own loop named ``how``."""
        ...

    def replay(self, settings: Settings) -> Any:
        """A replay buffer, of stacked frames where ``settings`` name ``pixel_keys``."""
        ...

    def replay_rows(self, buffer: Any) -> np.ndarray:
        """The rows that may be drawn, in order."""
        ...


Program = Callable[[Backend, Settings], Outputs]
Shape = Sequence[int]
