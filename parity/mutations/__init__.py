"""Typical bugs of ports from JAX, which ``mutate`` plants one at a time: data only.

Each is a realistic mistake: another library's default, the textbook's formula where the original
differs, an index or a key that is wrong by one. None crashes a run, and training works with most of
them.
"""

from __future__ import annotations

from parity.mutations.data import DATA
from parity.mutations.helpers import HELPERS
from parity.mutations.joint import JOINT
from parity.mutations.learners import LEARNERS
from parity.mutations.mutation import Mutation
from parity.mutations.networks import NETWORKS
from parity.mutations.numerics import NUMERICS
from parity.mutations.transforms import TRANSFORMS

__all__ = ["MUTATIONS", "Mutation"]

MUTATIONS: tuple[Mutation, ...] = (
    *NUMERICS,
    *NETWORKS,
    *LEARNERS,
    *JOINT,
    *DATA,
    *HELPERS,
    *TRANSFORMS,
)
"""All mutations."""
