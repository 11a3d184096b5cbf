"""Behaviour cloning on images, after ``jaxrl5/agents/pixel_bc``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from idql_func import optim, random
from idql_func.agents.bc import BCLearner
from idql_func.agents.checks import (
    box_size,
    check_dropout,
    check_layers,
    check_name,
    check_number,
    check_rate,
    key_of_seed,
)
from idql_func.agents.factories import train_state
from idql_func.agents.pixels import PixelAgent, VisionConfig, pixel_policy, random_crops
from idql_func.networks.conv import Padding
from idql_func.types import Batch, InfoDict

DISTRIBUTIONS = ("TanhNormal", "Normal")
_FIELDS = ("observations", "actions")


class PixelBCLearner(PixelAgent, BCLearner):
    """Maximum likelihood on random crops; the standard deviation depends on the state (not in BC).

    >>> import gymnasium as gym
    >>> frames = gym.spaces.Box(0, 255, (16, 16, 3, 2), "uint8")
    >>> learner = PixelBCLearner.create(
    ...     0, gym.spaces.Dict(pixels=frames), gym.spaces.Box(-1, 1, (2,)), cnn_features=(4,),
    ...     cnn_filters=(3,), cnn_strides=(2,), hidden_dims=(8,))
    >>> sorted(learner.actor.params)
    ['Dense_0', 'LayerNorm_0', 'Normal_0', 'encoder_0']
    """

    @classmethod
    def create(
        cls,
        seed: int,
        observation_space: Any,
        action_space: Any,
        *,
        actor_lr: float | optim.Schedule = 1e-3,
        cnn_features: Sequence[int] = (32, 32, 32, 32),
        cnn_filters: Sequence[int] = (3, 3, 3, 3),
        cnn_strides: Sequence[int] = (2, 1, 1, 1),
        cnn_padding: Padding = "VALID",
        latent_dim: int = 50,
        encoder: str = "d4pg",
        hidden_dims: Sequence[int] = (256, 256),
        use_layer_norm: bool = False,
        dropout_rate: float | None = None,
        distr_name: str = "TanhNormal",
        entropy_bonus: float | None = None,
        pixel_keys: Sequence[str] = ("pixels",),
        depth_keys: Sequence[str] = (),
    ) -> PixelBCLearner:
        """Create a learner with upstream's keywords, defaults and initial values.

        ``distr_name`` is ``TanhNormal`` or ``Normal``. Upstream looks the name up in its globals
        and does not import ``Normal``. The other keywords are those of
        :meth:`DrQLearner.create`.

        Raises:
            InputError: a setting is out of range, or the space lacks a key.
            TypeError: a keyword is unknown.
        """
        act_dim = box_size(action_space, "action_space")
        check_rate("actor_lr", actor_lr)
        check_layers("hidden_dims", hidden_dims)
        check_dropout("dropout_rate", dropout_rate)
        check_name("distr_name", distr_name, DISTRIBUTIONS)
        if entropy_bonus is not None:
            check_number("entropy_bonus", entropy_bonus)
        vision = VisionConfig.create(
            observation_space, pixel_keys, depth_keys, encoder,
            cnn_features, cnn_filters, cnn_strides, cnn_padding, latent_dim,
        )  # fmt: skip
        network = pixel_policy(
            vision,
            act_dim,
            tuple(hidden_dims),
            tanh=distr_name == "TanhNormal",
            dropout_rate=dropout_rate,
            layer_norm=use_layer_norm,
        )
        rng, actor_key = random.split(key_of_seed(seed)).unbind(0)
        return cls(
            rng=rng.clone(),
            obs_dim=vision.shapes,
            act_dim=act_dim,
            actor=train_state(network, network.init(actor_key), actor_lr),
            entropy_bonus=entropy_bonus,
            data_augmentation_fn=random_crops(vision.pixel_keys, vision.depth_keys),
            pixel_keys=vision.pixel_keys,
            depth_keys=vision.depth_keys,
        )

    def update(self, batch: Batch, *, donate: bool = False) -> tuple[Self, InfoDict]:
        """Train on crops of ``observations``, a dict of ``[B, ...]``, and ``actions [B, A]``.

        Raises:
            InputError: an entry is missing or has a wrong shape or dtype.
        """
        checked = self._checked_batch(batch, _FIELDS)
        learner, crops = self._with_crops(checked, "observations")
        return super(PixelBCLearner, learner).update(crops, donate=donate)
