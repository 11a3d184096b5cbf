"""DrQ (arXiv 2004.13649): soft actor-critic on images, after ``jaxrl5/agents/drq``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from idql_func import optim
from idql_func.agents.agent import TRANSITION_FIELDS
from idql_func.agents.checks import box_size
from idql_func.agents.pixels import (
    PixelAgent,
    VisionConfig,
    pixel_critic,
    pixel_policy,
    random_crops,
    unpack,
)
from idql_func.agents.sac import SACLearner
from idql_func.agents.sac_build import check_sac_settings, soft_actor_critic_states
from idql_func.networks.conv import Padding
from idql_func.struct import TrainState
from idql_func.types import Batch, InfoDict


def share_encoder(source: TrainState, target: TrainState) -> TrainState:
    """Copy the encoders of ``source`` into ``target``: the convolutions, not the latent layers.

    As upstream, this copies all entries with "encoder" in their name (quirk A12), but into a new
    dict (A9).

    >>> import torch
    >>> one, two = ({"encoder_0": torch.tensor(x), "Dense_0": torch.tensor(x)} for x in (1, 2))
    >>> share_encoder(TrainState.create(params=one), TrainState.create(params=two)).params
    {'encoder_0': tensor(1), 'Dense_0': tensor(2)}
    """
    encoders = {name: value for name, value in source.params.items() if "encoder" in name}
    return target.replace(params={**target.params, **encoders})


class DrQLearner(PixelAgent, SACLearner):
    """SAC on random crops; the actor uses the critic's encoder.

    >>> import gymnasium as gym
    >>> frames = gym.spaces.Box(0, 255, (16, 16, 3, 2), "uint8")
    >>> learner = DrQLearner.create(
    ...     0, gym.spaces.Dict(pixels=frames), gym.spaces.Box(-1, 1, (2,)), cnn_features=(4,),
    ...     cnn_filters=(3,), cnn_strides=(2,), hidden_dims=(8,))
    >>> sorted(learner.critic.params)
    ['Dense_0', 'Ensemble_0', 'LayerNorm_0', 'encoder_0']
    """

    @classmethod
    def create(
        cls,
        seed: int,
        observation_space: Any,
        action_space: Any,
        *,
        actor_lr: float | optim.Schedule = 3e-4,
        critic_lr: float = 3e-4,
        temp_lr: float = 3e-4,
        cnn_features: Sequence[int] = (32, 32, 32, 32),
        cnn_filters: Sequence[int] = (3, 3, 3, 3),
        cnn_strides: Sequence[int] = (2, 1, 1, 1),
        cnn_padding: Padding = "VALID",
        latent_dim: int = 50,
        encoder: str = "d4pg",
        hidden_dims: Sequence[int] = (256, 256),
        discount: float = 0.99,
        tau: float = 0.005,
        num_qs: int = 2,
        num_min_qs: int | None = None,
        critic_dropout_rate: float | None = None,
        critic_layer_norm: bool = False,
        target_entropy: float | None = None,
        init_temperature: float = 1.0,
        backup_entropy: bool = True,
        pixel_keys: Sequence[str] = ("pixels",),
        depth_keys: Sequence[str] = (),
    ) -> DrQLearner:
        """Create a learner with upstream's keywords, defaults and initial values.

        ``observation_space`` is a Dict with ``(H, W, C, S)`` uint8 boxes under ``pixel_keys``,
        ``(H, W, 1, S)`` under ``depth_keys`` (none, or one per camera) and optionally ``state``.
        ``encoder`` is ``d4pg``, with the layers that the ``cnn_`` keywords set, or ``resnet``.
        With ``num_min_qs`` upstream's target network crashes (quirk A8); here it works as in SAC.

        Raises:
            InputError: a setting is out of range, or the space lacks a key.
            TypeError: a keyword is unknown.
        """
        act_dim = box_size(action_space, "action_space")
        check_sac_settings(
            actor_lr, critic_lr, temp_lr, hidden_dims, critic_dropout_rate, discount, tau,
            num_qs, num_min_qs, target_entropy, init_temperature,
        )  # fmt: skip
        vision = VisionConfig.create(
            observation_space, pixel_keys, depth_keys, encoder,
            cnn_features, cnn_filters, cnn_strides, cnn_padding, latent_dim,
        )  # fmt: skip
        layers = tuple(hidden_dims)
        return cls(
            **soft_actor_critic_states(
                seed,
                pixel_policy(vision, act_dim, layers, stop_gradient=True),
                pixel_critic(
                    vision, act_dim, layers, num_qs, critic_dropout_rate, critic_layer_norm
                ),
                init_temperature,
                (actor_lr, critic_lr, temp_lr),
            ),
            obs_dim=vision.shapes,
            act_dim=act_dim,
            tau=tau,
            discount=discount,
            target_entropy=-act_dim / 2 if target_entropy is None else target_entropy,
            num_qs=num_qs,
            num_min_qs=num_min_qs,
            backup_entropy=backup_entropy,
            data_augmentation_fn=random_crops(vision.pixel_keys, vision.depth_keys),
            pixel_keys=vision.pixel_keys,
            depth_keys=vision.depth_keys,
        )

    def update(
        self, batch: Batch, utd_ratio: int = 1, *, donate: bool = False
    ) -> tuple[Self, InfoDict]:
        """Apply SAC's update to crops; the actor gets the critic's encoder from before its step.

        ``observations`` and ``next_observations`` are dicts of ``[B, ...]``. A camera that is
        missing in the latter must be packed in the former (see :func:`unpack`).

        Raises:
            InputError: an entry is missing or has a wrong shape or dtype, or B is not divisible
                by ``utd_ratio``.
        """
        checked = self._checked_batch(unpack(batch, self.frames), TRANSITION_FIELDS)
        learner, crops = self._with_crops(checked, "observations", "next_observations")
        learner = learner.replace(actor=share_encoder(self.critic, self.actor))
        return super(DrQLearner, learner).update(crops, utd_ratio, donate=donate)
