"""Read and write upstream's Flax and Orbax checkpoints, and export policies as modules.

A checkpoint of upstream's learner loads into a learner of the same class and sizes: parameters,
targets, optimiser states, steps, key and hyper-parameters. Flax's msgpack needs no JAX.

>>> import gymnasium as gym, tempfile
>>> from idql_func import interop
>>> from idql_func.agents import IQLLearner
>>> box = gym.spaces.Box(-1, 1, (3,))
>>> one, other = (IQLLearner.create(seed, box, box, hidden_dims=(8,)) for seed in (0, 1))
>>> with tempfile.TemporaryDirectory() as folder:  # or a folder that upstream's scripts wrote
...     path = interop.save_checkpoint(folder, one, step=1000)
...     other = interop.restore_checkpoint(folder, other)
>>> other.rng.tolist() == one.rng.tolist()
True
"""

from idql_func.boundary import explain_classes
from idql_func.interop.files import latest_checkpoint, restore_checkpoint, save_checkpoint
from idql_func.interop.flax_bytes import msgpack_restore, msgpack_serialize
from idql_func.interop.orbax import restore_orbax, save_orbax
from idql_func.interop.policy import (
    DiffusionPolicy,
    GreedyPolicy,
    Policy,
    build_policy,
    load_policy,
    policy_module,
    save_policy,
)
from idql_func.interop.state import from_bytes, from_state_dict, to_bytes, to_state_dict

__all__ = [
    "DiffusionPolicy",
    "GreedyPolicy",
    "Policy",
    "build_policy",
    "from_bytes",
    "from_state_dict",
    "latest_checkpoint",
    "load_policy",
    "msgpack_restore",
    "msgpack_serialize",
    "policy_module",
    "restore_checkpoint",
    "restore_orbax",
    "save_checkpoint",
    "save_orbax",
    "save_policy",
    "to_bytes",
    "to_state_dict",
]

explain_classes(Policy, GreedyPolicy, DiffusionPolicy)
