"""Bugs that ports from JAX have, to be planted one at a time: data only.

Each is a slip that somebody has made or well might: another library's default, the textbook's form
where the original departs from it, an index or a key that is off by one. None is a bug that every
run would show; most train as well as the right thing.
"""

from __future__ import annotations

from parity.mutations.data import DATA
from parity.mutations.floor import FLOOR
from parity.mutations.learners import LEARNERS
from parity.mutations.mutation import Mutation
from parity.mutations.networks import NETWORKS

__all__ = ["MUTATIONS", "Mutation"]

MUTATIONS: tuple[Mutation, ...] = (*FLOOR, *NETWORKS, *LEARNERS, *DATA)
"""All of them, from the floor up."""
