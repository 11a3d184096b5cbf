"""One encoder per camera, then one network on all latents, after ``pixel_multiplexer.py``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from idql_func.boundary import describe
from idql_func.networks.initializers import default_init
from idql_func.networks.layers import Dense, LayerNorm
from idql_func.networks.module import LazyRng, Module
from idql_func.types import InputError


class _Latent(NamedTuple):
    """``tanh(LayerNorm(Dense(x)))``; the multiplexer holds the parameters of both layers."""

    dense: Dense
    norm: LayerNorm

    def __call__(self, x: Tensor) -> Tensor:
        return torch.tanh(self.norm(self.dense(x)))


class PixelMultiplexer(Module):
    """Encode nested observations to latents and apply a network to them.

    The frames of each camera, ``[..., H, W, C, S]`` with the frame stack last, are scaled to
    [0, 1], concatenated with its depth frames on the channel axis, and passed through the
    camera's encoder (``encoder_0``, ...), Dense, LayerNorm and tanh. ``state`` passes through
    Dense, LayerNorm and tanh only. The network takes the concatenated latents and the actions.

    Args:
        encoder_cls: called as ``encoder_cls(input_shape=(H, W, C * S))``.
        network_cls: called as ``network_cls(input_dim=latents + action_dim)``.
        latent_dim: size of each latent.
        observation_shapes: the shape of each entry of an observation: ``(H, W, C, S)`` of the
            pixel and depth keys, ``(n,)`` of the optional ``state``.
        action_dim: size of the actions that the network also takes; 0 if it takes none.
        stop_gradient: whether to stop gradients before the encoders, as in DrQ's actor.
        pixel_keys, depth_keys: the cameras; either no depth keys or one per pixel key.

    Raises:
        InputError: a key has no shape, a shape has the wrong rank, or the numbers of keys differ.

    >>> from functools import partial
    >>> from idql_func import random
    >>> from idql_func.networks import MLP, D4PGEncoder
    >>> net = PixelMultiplexer(partial(D4PGEncoder, features=(4,), filters=(3,), strides=(2,)),
    ...     partial(MLP, hidden_dims=(2,)), 8, {"pixels": (8, 8, 3, 2), "state": (5,)})
    >>> params = net.init(random.PRNGKey(0))
    >>> sorted(params)
    ['Dense_0', 'Dense_1', 'LayerNorm_0', 'LayerNorm_1', 'MLP_0', 'encoder_0']
    >>> frames = torch.zeros(3, 8, 8, 3, 2, dtype=torch.uint8)
    >>> net.apply(params, {"pixels": frames, "state": torch.ones(3, 5)}).shape
    torch.Size([3, 2])
    """

    def __init__(
        self,
        encoder_cls: Callable[..., Module],
        network_cls: Callable[..., Module],
        latent_dim: int,
        observation_shapes: Mapping[str, Sequence[int]],
        action_dim: int = 0,
        stop_gradient: bool = False,
        pixel_keys: Sequence[str] = ("pixels",),
        depth_keys: Sequence[str] = (),
    ) -> None:
        super().__init__()
        _check_keys(observation_shapes, pixel_keys, depth_keys)
        self.stop_gradient = stop_gradient
        self.cameras: list[tuple[str, str | None, Module, _Latent]] = []
        depths = depth_keys or [None] * len(pixel_keys)
        for i, (pixel_key, depth_key) in enumerate(zip(pixel_keys, depths, strict=True)):
            height, width, channels, stack = observation_shapes[pixel_key]
            if depth_key is not None:
                channels += observation_shapes[depth_key][2]
            encoder = encoder_cls(input_shape=(height, width, channels * stack))
            self.add(encoder, f"encoder_{i}")
            latent = self._add_latent(encoder.output_dim, latent_dim)
            self.cameras.append((pixel_key, depth_key, encoder, latent))
        self.state_latent: _Latent | None = None
        if "state" in observation_shapes:
            self.state_latent = self._add_latent(observation_shapes["state"][0], latent_dim)
        latents = len(self.cameras) + (self.state_latent is not None)
        self.network = self.add(network_cls(input_dim=latents * latent_dim + action_dim))
        self.network_name = next(reversed(self._modules))
        self.output_dim = self.network.output_dim

    def _add_latent(self, input_dim: int, latent_dim: int) -> _Latent:
        dense = self.add(Dense(input_dim, latent_dim, default_init()))
        return _Latent(dense, self.add(LayerNorm(latent_dim)))

    def forward(
        self,
        observations: Mapping[str, Tensor],
        actions: Tensor | None = None,
        training: bool = False,
        rng: LazyRng | None = None,
    ) -> Any:
        latents: list[Tensor] = []
        for pixel_key, depth_key, encoder, latent in self.cameras:
            # multiply: XLA replaces upstream's division by a constant with this product
            x = observations[pixel_key].to(torch.float32) * (1.0 / 255.0)
            if depth_key is not None:
                x = torch.cat([x, observations[depth_key]], dim=-2)
            # without gradients autograd does not save the activations of the convolutions
            with torch.set_grad_enabled(torch.is_grad_enabled() and not self.stop_gradient):
                x = encoder(x.reshape(*x.shape[:-2], -1))
            # in forward mode only this stops the derivative
            latents.append(latent(x.detach() if self.stop_gradient else x))
        if self.state_latent is not None:
            latents.append(self.state_latent(observations["state"]))
        inputs = [torch.cat(latents, dim=-1), *([] if actions is None else [actions])]
        return self.network(*inputs, training=training, rng=rng and rng.push(self.network_name))


def _check_keys(
    shapes: Mapping[str, Sequence[int]], pixel_keys: Sequence[str], depth_keys: Sequence[str]
) -> None:
    if not pixel_keys or len(depth_keys) not in (0, len(pixel_keys)):
        raise InputError(
            "PixelMultiplexer: pixel_keys must name at least one camera, and depth_keys none or "
            f"one per camera, got {describe(tuple(pixel_keys))} and {describe(tuple(depth_keys))}."
        )
    for key in (*pixel_keys, *depth_keys):
        if key not in shapes:
            raise InputError(
                f"PixelMultiplexer: there is no observation {key!r}; the keys are {sorted(shapes)}."
            )
        if len(shapes[key]) != 4:
            raise InputError(
                f"PixelMultiplexer: {key!r} must have shape (height, width, channels, frames), "
                f"got {tuple(shapes[key])}."
            )
    for pixel_key, depth_key in zip(pixel_keys, depth_keys, strict=False):
        image, depth = shapes[pixel_key], shapes[depth_key]
        if (*image[:2], image[3]) != (*depth[:2], depth[3]):
            raise InputError(
                f"PixelMultiplexer: {depth_key!r} {tuple(depth)} must have the height, width and "
                f"frames of {pixel_key!r} {tuple(image)}."
            )
    if len(shapes.get("state", (1,))) != 1:
        raise InputError(f"PixelMultiplexer: 'state' must have one axis, got {shapes['state']}.")
