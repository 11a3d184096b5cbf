"""Networks as pure functions of Flax parameter trees, after ``jaxrl5/networks``."""

from idql_func.networks.conv import Conv, GroupNorm, max_pool
from idql_func.networks.diffusion import candidate_sampler, ddpm_sampler
from idql_func.networks.dropout import Dropout
from idql_func.networks.encoders import D4PGEncoder, ResNetV2Block, ResNetV2Encoder
from idql_func.networks.ensemble import subsample_ensemble
from idql_func.networks.initializers import default_init
from idql_func.networks.layers import Dense, LayerNorm, mish, relu, swish
from idql_func.networks.mlp import MLP, MLPResNet, MLPResNetBlock, StateActionValue, StateValue
from idql_func.networks.module import Ensemble, LazyRng, Module, apply, init
from idql_func.networks.noise_predictor import DDPM, FourierFeatures
from idql_func.networks.noise_schedules import (
    cosine_beta_schedule,
    linear_beta_schedule,
    vp_beta_schedule,
)
from idql_func.networks.pixel_multiplexer import PixelMultiplexer
from idql_func.networks.temperature import Temperature
from idql_func.networks.weight_decay import get_weight_decay_mask

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
    "Temperature",
    "apply",
    "candidate_sampler",
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
