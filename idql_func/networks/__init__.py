"""Networks as pure functions of Flax parameter trees, after ``jaxrl5/networks``.

A network of one's own is a :class:`Module` that creates its layers in ``__init__`` and calls them
in ``forward``. It holds no weights: ``init`` draws them, ``apply`` runs the network on them.

- A layer that is assigned to an attribute has the attribute's name in the parameter tree, as in
  Flax's ``setup``. Layers in a list are called ``blocks_0``, ``blocks_1``, ... ``self.add(layer)``
  gives the names of Flax's compact modules: ``Dense_0``, ``Dense_1``, ...
- A layer that is used at two places has one set of parameters, under its first name.
- ``declare`` is for parameters of the network itself. ``initializers`` has all of Flax's.
- ``Sequential`` runs networks and functions one after another; ``Ensemble`` stacks copies of one.
- A network with dropout takes ``training`` and ``rng``, and pushes the name of each layer that it
  passes ``rng`` to; any other network needs neither.

>>> import torch
>>> from idql_func import random
>>> from idql_func.networks.initializers import zeros
>>> class Policy(Module):
...     def __init__(self, obs_dim, act_dim):
...         super().__init__()
...         self.blocks = [Dense(obs_dim, 16), Dense(16, 16)]
...         self.drop = Dropout(0.1)
...         self.head = Dense(16, act_dim)
...         self.declare("log_scale", (act_dim,), zeros)
...
...     def forward(self, x, training=False, rng=None):
...         for block in self.blocks:
...             x = torch.relu(block(x))
...         x = self.drop(x, training, rng and rng.push("drop"))
...         return self.head(x) * self.log_scale.exp()
>>> policy = Policy(obs_dim=3, act_dim=2)
>>> params = policy.init(random.PRNGKey(0))
>>> sorted(params)
['blocks_0', 'blocks_1', 'head', 'log_scale']
>>> key = random.PRNGKey(1)
>>> policy.apply(params, torch.ones(5, 3), training=True, rngs={"dropout": key}).shape
torch.Size([5, 2])
"""

from idql_func.networks.error_sentences import explain_classes  # isort: skip  # the first one
from idql_func.networks import initializers
from idql_func.networks.activations import gelu, mish
from idql_func.networks.conv import Conv, GroupNorm, max_pool
from idql_func.networks.diffusion import candidate_sampler, ddpm_sampler
from idql_func.networks.dropout import Dropout
from idql_func.networks.encoders import D4PGEncoder, ResNetV2Block, ResNetV2Encoder
from idql_func.networks.ensemble import subsample_ensemble
from idql_func.networks.impala import ImpalaEncoder, ResnetStack, encoder_modules
from idql_func.networks.initializers import default_init
from idql_func.networks.layers import Dense, LayerNorm, relu, swish
from idql_func.networks.mlp import MLP, MLPResNet, MLPResNetBlock, StateActionValue, StateValue
from idql_func.networks.module import Ensemble, LazyRng, Module, apply, init
from idql_func.networks.noise_predictor import DDPM, FourierFeatures
from idql_func.networks.noise_schedules import (
    cosine_beta_schedule,
    linear_beta_schedule,
    vp_beta_schedule,
)
from idql_func.networks.pixel_multiplexer import PixelMultiplexer
from idql_func.networks.sequential import Sequential
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
    "ImpalaEncoder",
    "LayerNorm",
    "LazyRng",
    "MLPResNet",
    "MLPResNetBlock",
    "Module",
    "PixelMultiplexer",
    "ResNetV2Block",
    "ResNetV2Encoder",
    "ResnetStack",
    "Sequential",
    "StateActionValue",
    "StateValue",
    "Temperature",
    "apply",
    "candidate_sampler",
    "cosine_beta_schedule",
    "ddpm_sampler",
    "default_init",
    "encoder_modules",
    "gelu",
    "get_weight_decay_mask",
    "init",
    "initializers",
    "linear_beta_schedule",
    "max_pool",
    "mish",
    "relu",
    "subsample_ensemble",
    "swish",
    "vp_beta_schedule",
]

explain_classes(
    *(value for value in [*globals().values()] if isinstance(value, type)),
)
