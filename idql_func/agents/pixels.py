"""Networks, nested observations and random crops of the learners on images."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Self, TypeGuard

import torch
from torch import Tensor

from idql_func import random
from idql_func.agents.agent import Agent
from idql_func.agents.augmentations import batched_random_crop
from idql_func.agents.checks import check_integer, check_layers, check_name, real_tensor
from idql_func.agents.factories import critic_head, policy_head
from idql_func.boundary import describe
from idql_func.compiler.torch_internals import register_constant
from idql_func.deprecation import moved_names
from idql_func.networks import D4PGEncoder, PixelMultiplexer, ResNetV2Encoder
from idql_func.networks.conv import Padding, check_padding
from idql_func.struct import field
from idql_func.transforms import jit
from idql_func.types import Batch, InputError, PRNGKey

Shapes = tuple[tuple[str, tuple[int, ...]], ...]
"""Pairs of the key and the shape of each entry of an observation; hashable."""

Augmentation = Callable[[PRNGKey, Mapping[str, Any]], dict[str, Any]]

ENCODERS = ("d4pg", "resnet")


# --- settings and networks ------------------------------------------------------------------


@dataclass(frozen=True)
class VisionConfig:
    """Settings of the image part of a network: cameras, encoder and latent size."""

    shapes: Shapes
    pixel_keys: tuple[str, ...]
    depth_keys: tuple[str, ...]
    encoder: str
    cnn_features: tuple[int, ...]
    cnn_filters: tuple[int, ...]
    cnn_strides: tuple[int, ...]
    cnn_padding: Padding
    latent_dim: int

    @classmethod
    def create(
        cls,
        observation_space: Any,
        pixel_keys: Sequence[str],
        depth_keys: Sequence[str],
        encoder: str,
        cnn_features: Sequence[int],
        cnn_filters: Sequence[int],
        cnn_strides: Sequence[int],
        cnn_padding: Padding,
        latent_dim: int,
    ) -> VisionConfig:
        """Check the keywords of a learner's ``create`` and collect those of the image part.

        Raises:
            InputError: a setting is out of range, or the space lacks a key.
        """
        check_name("encoder", encoder, ENCODERS)
        check_layers("cnn_features", cnn_features)
        check_layers("cnn_filters", cnn_filters)
        check_layers("cnn_strides", cnn_strides)
        check_integer("latent_dim", latent_dim, 1)
        keys = _key_names("pixel_keys", pixel_keys), _key_names("depth_keys", depth_keys)
        layers = tuple(cnn_features), tuple(cnn_filters), tuple(cnn_strides)
        shapes = observation_shapes(observation_space, *keys)
        return cls(shapes, *keys, encoder, *layers, check_padding(cnn_padding), latent_dim)

    def network(
        self, head: Callable[..., Any], action_dim: int = 0, stop_gradient: bool = False
    ) -> PixelMultiplexer:
        """A multiplexer whose latents are the input of ``head(input_dim=...)``."""
        encoder: Callable[..., Any] = functools.partial(ResNetV2Encoder, stage_sizes=(2, 2, 2, 2))
        if self.encoder == "d4pg":
            encoder = functools.partial(
                D4PGEncoder,
                features=self.cnn_features,
                filters=self.cnn_filters,
                strides=self.cnn_strides,
                padding=self.cnn_padding,
            )
        return PixelMultiplexer(
            encoder, head, self.latent_dim, dict(self.shapes),
            action_dim, stop_gradient, self.pixel_keys, self.depth_keys,
        )  # fmt: skip


# Equal settings share one network object, as in factories.py.


@functools.cache
def pixel_policy(
    vision: VisionConfig,
    act_dim: int,
    hidden_dims: tuple[int, ...],
    tanh: bool = True,
    stop_gradient: bool = False,
    dropout_rate: float | None = None,
    layer_norm: bool = False,
) -> PixelMultiplexer:
    """A normal policy on latents, with or without tanh; it trains the encoder by default.

    >>> camera = ("pixels", (8, 8, 3, 1))
    >>> vision = VisionConfig((camera,), ("pixels",), (), "d4pg", (4,), (3,), (2,), "VALID", 5)
    >>> sorted(pixel_policy(vision, 2, (8,))._modules)
    ['Dense_0', 'LayerNorm_0', 'Normal_0', 'encoder_0']
    """
    head = policy_head(act_dim, hidden_dims, dropout_rate, layer_norm, tanh)
    return vision.network(head, stop_gradient=stop_gradient)


@functools.cache
def pixel_critic(
    vision: VisionConfig,
    act_dim: int,
    hidden_dims: tuple[int, ...],
    num: int,
    dropout_rate: float | None = None,
    layer_norm: bool = False,
) -> PixelMultiplexer:
    """An ensemble of ``num`` critics on latents and actions, with one encoder per camera.

    >>> camera = ("pixels", (8, 8, 3, 1))
    >>> vision = VisionConfig((camera,), ("pixels",), (), "d4pg", (4,), (3,), (2,), "VALID", 5)
    >>> sorted(pixel_critic(vision, 2, (8,), 2)._modules)
    ['Dense_0', 'Ensemble_0', 'LayerNorm_0', 'encoder_0']
    """
    head = critic_head(hidden_dims, num, dropout_rate, layer_norm)
    return vision.network(head, action_dim=act_dim)


def observation_shapes(
    observation_space: Any, pixel_keys: Sequence[str], depth_keys: Sequence[str]
) -> Shapes:
    """The shapes of the entries that a pixel learner reads: its cameras, and ``state``.

    Raises:
        InputError: the space is not a Dict, lacks a key, or has pixels that are not 8-bit images.

    >>> import gymnasium as gym
    >>> frames = gym.spaces.Box(0, 255, (64, 64, 3, 3), "uint8")
    >>> observation_shapes(gym.spaces.Dict(pixels=frames, time=frames), ("pixels",), ())
    (('pixels', (64, 64, 3, 3)),)
    """
    spaces = getattr(observation_space, "spaces", None)
    if not isinstance(spaces, Mapping):
        raise InputError(
            "observation_space must be a Dict with a space for each of pixel_keys "
            f"{tuple(pixel_keys)}, got {observation_space}."
        )
    for key in (*pixel_keys, *depth_keys):
        if key not in spaces:
            raise InputError(
                f"observation_space has no {key!r}, a key in pixel_keys or depth_keys; it has "
                f"{', '.join(sorted(map(str, spaces))) or 'nothing'}."
            )
    for key in pixel_keys:
        if spaces[key].dtype != "uint8":
            raise InputError(
                f"observation_space[{key!r}] must be of dtype uint8, got {spaces[key].dtype}."
            )
    names = [*pixel_keys, *depth_keys, *(["state"] if "state" in spaces else [])]
    return tuple((name, tuple(map(int, spaces[name].shape))) for name in names)


def _key_names(what: str, keys: Any) -> tuple[str, ...]:
    if isinstance(keys, str) or not all(isinstance(key, str) for key in keys):
        raise InputError(
            f"{what} must be a tuple of names such as ('pixels',), got {describe(keys)}."
        )
    return tuple(keys)


# --- augmentation ---------------------------------------------------------------------------


@dataclass(unsafe_hash=True)  # torch.compile takes no frozen one as a constant
class RandomCrops:
    """Random crops of some cameras, as a function ``(key, observations) -> observations``."""

    pixel_keys: tuple[str, ...]
    depth_keys: tuple[str, ...]

    def __call__(self, rng: PRNGKey, observations: Mapping[str, Any]) -> dict[str, Any]:
        observations = dict(observations)
        for pixel_key, depth_key in zip_longest(self.pixel_keys, self.depth_keys):
            key, rng = random.split(rng)
            observations = batched_random_crop(key, observations, pixel_key)
            if depth_key is not None:
                observations = batched_random_crop(key, observations, depth_key)
        return observations


register_constant(RandomCrops)  # jitted functions take one as a static argument


def random_crops(pixel_keys: tuple[str, ...], depth_keys: tuple[str, ...]) -> Augmentation:
    """Random crops of these cameras as a function ``(key, observations) -> observations``.

    Each camera has different crops; its depth images have the same crops as it (quirk A14).

    >>> frames = {"pixels": torch.zeros(2, 8, 8, 3, 1, dtype=torch.uint8)}
    >>> random_crops(("pixels",), ())(random.PRNGKey(0), frames)["pixels"].shape
    torch.Size([2, 8, 8, 3, 1])
    """
    return RandomCrops(pixel_keys, depth_keys)


@functools.partial(jit, static_argnames="augment")
def augmented(
    rng: PRNGKey, observations: tuple[Any, ...], *, augment: Augmentation
) -> tuple[PRNGKey, tuple[Any, ...]]:
    """Augment each of several observations with a different key; return the next key first.

    >>> from idql_func import disable_jit
    >>> frames = {"pixels": torch.zeros(2, 8, 8, 3, 1, dtype=torch.uint8)}
    >>> with disable_jit():
    ...     _, (now, later) = augmented(
    ...         random.PRNGKey(0), (frames, frames), augment=random_crops(("pixels",), ()))
    >>> sorted(later)
    ['pixels']
    """
    results: list[Any] = []
    for each in observations:
        rng, key = random.split(rng)
        results.append(augment(key, each))
    return rng, tuple(results)


def unpack(batch: Batch, frames: Mapping[str, int]) -> dict[str, Any]:
    """Split image stacks that also contain the next frame (upstream's ``_unpack``).

    ``frames`` gives the size ``S`` of each camera's frame stack. If ``next_observations`` lacks a
    camera, ``observations`` must hold ``[B, H, W, C, S + 1]``: the first ``S`` frames are the
    observation, the last ``S`` the next one. Upstream uses the key ``pixels`` for any
    camera (quirk A11), and unpacks the last camera only (A10).

    Raises:
        InputError: ``next_observations`` lacks a camera whose images do not hold ``S + 1`` frames.

    >>> batch = {"observations": {"pixels": torch.arange(4).reshape(1, 1, 1, 1, 4)}}
    >>> batch = unpack(batch, {"pixels": 3})
    >>> batch["next_observations"]["pixels"].flatten().tolist()
    [1, 2, 3]
    """
    parts = dict(batch.items())
    present, following = parts.get("observations"), parts.get("next_observations", {})
    if not (_is_nested(present) and _is_nested(following)):
        return parts  # the later check of the batch raises the error
    now, later = dict(present.items()), dict(following.items())
    for name, stack in frames.items():
        if name in later or name not in now:
            continue
        packed = now[name]
        if packed.shape[-1] != stack + 1:
            raise InputError(
                f"batch['next_observations'] has no {name!r}; then batch['observations']"
                f"[{name!r}] must hold {stack + 1} frames on its last axis, including the "
                f"next one, got shape {tuple(packed.shape)}."
            )
        now[name], later[name] = packed[..., :-1], packed[..., 1:]
    return {**parts, "observations": now, "next_observations": later}


def _is_nested(value: Any) -> TypeGuard[Mapping[str, Any]]:
    return isinstance(value, Mapping) or hasattr(value, "items")


# --- base class -----------------------------------------------------------------------------


class PixelAgent(Agent):
    """A learner whose observations are dicts of images, depth images and ``state``.

    ``obs_dim`` holds their shapes. Images are uint8 ``[B, H, W, C, S]``, the frame stack last;
    depth ``[B, H, W, 1, S]`` and state ``[B, n]`` are of the parameters' dtype.
    """

    data_augmentation_fn: Augmentation = field(pytree_node=False)
    pixel_keys: tuple[str, ...] = field(pytree_node=False)
    depth_keys: tuple[str, ...] = field(pytree_node=False)

    @property
    def frames(self) -> dict[str, int]:
        """The size of the frame stack of each camera, depth included."""
        return {name: shape[-1] for name, shape in self.obs_dim if name != "state"}

    def _with_crops(self, batch: Mapping[str, Any], *names: str) -> tuple[Self, dict[str, Any]]:
        """The learner with the next key, and the batch with crops of these entries."""
        rng, crops = augmented(
            self.rng, tuple(batch[name] for name in names), augment=self.data_augmentation_fn
        )
        return self.replace(rng=rng), {**batch, **dict(zip(names, crops, strict=True))}

    def _entry(self, observations: Any, name: str, what: str) -> Any:
        if not _is_nested(observations):
            raise InputError(
                f"{type(self).__name__}: {what} must be a dict with the entries "
                f"{', '.join(key for key, _ in self.obs_dim)}, got {type(observations).__name__}."
            )
        names = sorted(map(str, observations.keys()))
        if name not in names:
            raise InputError(
                f"{type(self).__name__}: {what} must have an entry {name!r}; it has "
                f"{', '.join(names) or 'nothing'}."
            )
        return observations[name]

    def _observations_to_act_on(self, observations: Any) -> tuple[dict[str, Tensor], bool]:
        checked: dict[str, Tensor] = {}
        rows: set[int | None] = set()
        for name, shape in self.obs_dim:
            value = self._entry(observations, name, "observations")
            value = real_tensor(value, f"{type(self).__name__}: observations[{name!r}]")
            leading = tuple(value.shape[: value.ndim - len(shape)])
            if len(leading) > 1 or tuple(value.shape) != (*leading, *shape) or leading == (0,):
                raise InputError(
                    f"{type(self).__name__}: observations[{name!r}] must have shape {shape} or "
                    f"(batch, {', '.join(map(str, shape))}), got {tuple(value.shape)}."
                )
            dtype = torch.uint8 if name in self.pixel_keys else self.float_dtype
            if dtype == torch.uint8 and value.dtype != dtype:
                raise InputError(
                    f"{type(self).__name__}: observations[{name!r}] must be torch.uint8, "
                    f"got {value.dtype}."
                )
            rows.add(leading[0] if leading else None)
            value = value.to(dtype=dtype, device=self.rng.device)
            checked[name] = value if leading else value.unsqueeze(0)
        if len(rows) > 1:
            raise InputError(
                f"{type(self).__name__}: the entries of observations must all be single or all "
                "have the same batch size, got "
                + ", ".join(f"{name!r} {tuple(v.shape)}" for name, v in checked.items())
                + "."
            )
        return checked, rows == {None}

    def _checked_observations(
        self, value: Any, name: str, rows: int | None, floats: torch.dtype
    ) -> tuple[Any, int]:
        checked: dict[str, Tensor] = {}
        for key, shape in self.obs_dim:
            entry = self._entry(value, key, f"batch[{name!r}]")
            dtype = torch.uint8 if key in self.pixel_keys else floats
            checked[key] = self._checked_entry(entry, f"{name}.{key}", rows, shape, dtype)
            rows = checked[key].shape[0]
        assert rows is not None  # there is at least one camera
        return checked, rows


__getattr__ = moved_names(__name__)
