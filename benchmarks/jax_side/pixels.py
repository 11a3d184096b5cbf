"""DrQ and behaviour cloning from the pixels of one camera (arXiv 2004.13649)."""

# pyright: reportMissingImports=false
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.jax_side.actor_critic import SAC
from benchmarks.jax_side.networks import Ensemble, Normal, xavier
from benchmarks.jax_side.offline import BC
from benchmarks.jax_side.steps import Batch, Info, trained

# --- networks -----------------------------------------------------------------------------


class D4PGEncoder(nn.Module):
    """Convolutions with ReLU, ``[B, H, W, C] -> [B, F]``."""

    features: Sequence[int]
    filters: Sequence[int]
    strides: Sequence[int]
    padding: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for size, side, stride in zip(self.features, self.filters, self.strides, strict=True):
            x = nn.Conv(
                size, (side, side), (stride, stride), padding=self.padding, kernel_init=xavier()
            )(x)
            x = nn.relu(x)
        return x.reshape(*x.shape[:-3], -1)


class PixelMultiplexer(nn.Module):
    """Encode frames ``[B, H, W, C, S]``, and ``state`` if present, and apply a head."""

    encoder: tuple[Any, ...]
    head: Callable[[], Any]
    latent_dim: int
    stop_gradient: bool = False

    @nn.compact
    def __call__(self, observations: Mapping[str, jax.Array], *inputs: Any) -> Any:
        x = observations["pixels"].astype(jnp.float32) / 255.0
        x = D4PGEncoder(*self.encoder, name="encoder_0")(x.reshape(*x.shape[:-2], -1))
        x = jax.lax.stop_gradient(x) if self.stop_gradient else x
        latents = [self.latent(x)]
        if "state" in observations:
            latents.append(self.latent(observations["state"]))
        return self.head()(jnp.concatenate(latents, axis=-1), *inputs)

    def latent(self, x: jax.Array) -> jax.Array:
        return nn.tanh(nn.LayerNorm()(nn.Dense(self.latent_dim, kernel_init=xavier())(x)))


# --- augmentation -------------------------------------------------------------------------


def random_crop(key: jax.Array, image: jax.Array, padding: int = 4) -> jax.Array:
    """Pad ``[H, W, C, S]`` by its edges, then crop the old size at a random place."""
    corner = jax.random.randint(key, (2,), 0, 2 * padding + 1)
    sides = ((padding, padding), (padding, padding), (0, 0), (0, 0))
    return jax.lax.dynamic_slice(
        jnp.pad(image, sides, mode="edge"), (corner[0], corner[1], 0, 0), image.shape
    )


def random_crops(key: jax.Array, images: jax.Array) -> jax.Array:
    """Crop each image of ``[B, H, W, C, S]`` with its own key."""
    return jax.vmap(random_crop)(jax.random.split(key, images.shape[0]), images)


def _augment(key: jax.Array, observations: Mapping[str, Any]) -> dict[str, Any]:
    key, _ = jax.random.split(key)  # one key for each camera; there is one camera
    return {**observations, "pixels": random_crops(key, observations["pixels"])}


def _unpack(batch: Batch) -> Batch:
    """Split packed frames, which hold the next frame too, into observation and next one."""
    if "pixels" in batch["next_observations"]:
        return batch
    frames = batch["observations"]["pixels"]
    return {
        **batch,
        "observations": {**batch["observations"], "pixels": frames[..., :-1]},
        "next_observations": {**batch["next_observations"], "pixels": frames[..., 1:]},
    }


# --- a buffer of single frames ------------------------------------------------------------


def episode(rows: int, image: int, actions: int, seed: int) -> Batch:
    """One long episode of random frames ``[rows, image, image, 3]`` on the device."""
    draws = np.random.default_rng(seed)
    return {
        "frames": jnp.asarray(draws.integers(0, 256, (rows, image, image, 3), np.uint8)),
        "actions": jnp.asarray(draws.uniform(-1, 1, (rows, actions)), jnp.float32),
        "rewards": jnp.asarray(draws.uniform(0, 1, rows), jnp.float32),
        "masks": jnp.ones(rows),
    }


def packed(key: jax.Array, buffer: Batch, batch: int, frames: int) -> Batch:
    """Sample transitions: ``frames + 1`` successive frames from random starts."""
    starts = jax.random.randint(key, (batch,), 0, buffer["rewards"].shape[0] - frames)
    rows = starts[:, None] + jnp.arange(frames + 1)
    pixels = jnp.moveaxis(buffer["frames"][rows], 1, -1)
    now = starts + frames - 1
    columns = {name: buffer[name][now] for name in ("actions", "rewards", "masks")}
    return {**columns, "observations": {"pixels": pixels}, "next_observations": {}}


# --- learners -----------------------------------------------------------------------------


def _multiplexer(
    cnn_features: Sequence[int] = (32, 32, 32, 32),
    cnn_filters: Sequence[int] = (3, 3, 3, 3),
    cnn_strides: Sequence[int] = (2, 1, 1, 1),
    cnn_padding: str = "VALID",
    latent_dim: int = 50,
) -> Callable[..., PixelMultiplexer]:
    """A function from a head to the network; keywords and defaults are those of the port."""
    layers = tuple(cnn_features), tuple(cnn_filters), tuple(cnn_strides), cnn_padding
    return lambda head, stop_gradient=False: PixelMultiplexer(
        layers, head, latent_dim, stop_gradient
    )


def _pop_encoder_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """Remove the encoder's keywords from the settings and return them."""
    names = [name for name in settings if name.startswith("cnn_") or name == "latent_dim"]
    return {name: settings.pop(name) for name in names}


def _one_row(space: Mapping[str, Sequence[int]]) -> dict[str, jax.Array]:
    return {name: jnp.zeros((1, *shape)) for name, shape in space.items()}


class DrQ(SAC):
    """SAC on random crops; the actor uses the critic's convolutions."""

    @classmethod
    def create(  # type: ignore[override]
        cls,
        seed: int,
        space: Mapping[str, Sequence[int]],
        act_dim: int,
        *,
        hidden_dims: Sequence[int] = (256, 256),
        critic_dropout_rate: float | None = None,
        critic_layer_norm: bool = False,
        num_qs: int = 2,
        **settings: Any,
    ) -> Self:
        """The port's keywords; ``space`` has the shapes of ``pixels`` and optionally ``state``."""
        network_of, hidden = _multiplexer(**_pop_encoder_settings(settings)), tuple(hidden_dims)
        rate = critic_dropout_rate or 0.0
        return cls.from_networks(
            seed,
            network_of(lambda: Normal(hidden, act_dim, tanh=True), stop_gradient=True),
            lambda num: network_of(lambda: Ensemble(hidden, num, critic_layer_norm, rate)),
            _one_row(space),
            act_dim,
            num_qs=num_qs,
            num_min_qs=None,
            **settings,
        )

    def update(self, batch: Batch, utd_ratio: int = 1) -> tuple[Self, Info]:
        """SAC's update on crops; first the actor gets the critic's convolutions (A12)."""
        batch = _unpack(batch)
        rng, key = jax.random.split(self.rng)
        now = _augment(key, batch["observations"])
        rng, key = jax.random.split(rng)
        later = _augment(key, batch["next_observations"])
        shared = {**self.actor.params, "encoder_0": self.critic.params["encoder_0"]}
        learner = self.replace(rng=rng, actor=self.actor.replace(params=shared))
        batch = {**batch, "observations": now, "next_observations": later}
        return super(DrQ, learner).update(batch, utd_ratio)


class PixelBC(BC):
    """Maximum likelihood on random crops."""

    @classmethod
    def create(  # type: ignore[override]
        cls,
        seed: int,
        space: Mapping[str, Sequence[int]],
        act_dim: int,
        *,
        actor_lr: float = 1e-3,
        hidden_dims: Sequence[int] = (256, 256),
        use_layer_norm: bool = False,
        dropout_rate: float | None = None,
        entropy_bonus: float | None = None,
        **settings: Any,
    ) -> Self:
        """The port's keywords; ``space`` has the shapes of ``pixels`` and optionally ``state``."""
        network_of, hidden = _multiplexer(**_pop_encoder_settings(settings)), tuple(hidden_dims)

        def head() -> Normal:
            return Normal(
                hidden, act_dim, tanh=True, layer_norm=use_layer_norm, dropout=dropout_rate or 0.0
            )

        rng, key = jax.random.split(jax.random.PRNGKey(seed))
        actor = trained(network_of(head), key, (_one_row(space),), optax.adam(actor_lr))
        return cls(rng=rng, actor=actor, entropy_bonus=entropy_bonus)

    def update(self, batch: Batch) -> tuple[Self, Info]:
        rng, key = jax.random.split(self.rng)
        cropped = {**batch, "observations": _augment(key, batch["observations"])}
        return super(PixelBC, self.replace(rng=rng)).update(cropped)
