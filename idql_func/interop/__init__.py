"""Weights across: Flax and Orbax checkpoints of upstream's learners, and policies as modules."""

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
