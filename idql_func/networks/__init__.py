"""Networks as pure functions of Flax parameter trees, after ``jaxrl5/networks``."""

from idql_func.networks.conv import Conv, GroupNorm, max_pool
from idql_func.networks.diffusion import (
    DDPM,
    FourierFeatures,
    cosine_beta_schedule,
    ddpm_sampler,
    linear_beta_schedule,
    vp_beta_schedule,
)
from idql_func.networks.encoders import D4PGEncoder, ResNetV2Block, ResNetV2Encoder
from idql_func.networks.ensemble import Ensemble, subsample_ensemble
from idql_func.networks.layers import (
    Dense,
    Dropout,
    LayerNorm,
    default_init,
    mish,
    relu,
    swish,
)
from idql_func.networks.mlp import MLP, get_weight_decay_mask
from idql_func.networks.module import LazyRng, Module, apply, init
from idql_func.networks.pixel_multiplexer import PixelMultiplexer
from idql_func.networks.resnet import MLPResNet, MLPResNetBlock
from idql_func.networks.values import StateActionValue, StateValue

__all__ = [
    "DDPM",
    "MLP",
    "Conv",
    "D4PGEncoder",
    "Dense",
    "Dropout",
    "Ensemble",
    "FourierFeatures",
    "GroupNorm",
    "LayerNorm",
    "LazyRng",
    "MLPResNet",
    "MLPResNetBlock",
    "Module",
    "PixelMultiplexer",
    "ResNetV2Block",
    "ResNetV2Encoder",
    "StateActionValue",
    "StateValue",
    "apply",
    "cosine_beta_schedule",
    "ddpm_sampler",
    "default_init",
    "get_weight_decay_mask",
    "init",
    "linear_beta_schedule",
    "max_pool",
    "mish",
    "relu",
    "subsample_ensemble",
    "swish",
    "vp_beta_schedule",
]
