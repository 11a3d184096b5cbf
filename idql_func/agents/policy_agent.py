"""Action choice of learners whose actor is a distribution over actions."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, Self

import numpy as np
from torch import Tensor

from idql_func import random
from idql_func.agents.agent import Agent
from idql_func.struct import TrainState
from idql_func.transforms import jit
from idql_func.types import Params, PRNGKey


@functools.partial(jit, static_argnames="apply_fn")
def _modes(params: Params, observations: Any, *, apply_fn: Any) -> Tensor:
    return apply_fn(params, observations).mode()


@functools.partial(jit, static_argnames="apply_fn")
def _draws(
    params: Params, observations: Any, rng: PRNGKey, *, apply_fn: Any
) -> tuple[Tensor, PRNGKey]:
    key, rng = random.split(rng)
    return apply_fn(params, observations).sample(key), rng


class PolicyAgent(Agent):
    """A learner whose actor outputs a distribution: actions are its mode or samples of it."""

    actor: TrainState

    def eval_actions(self, observations: Any) -> tuple[np.ndarray, Self]:
        """The policy's mode for ``[O]`` or ``[E, O]``: ``[A]`` or ``[E, A]``; the key stays.

        Raises:
            InputError: an observation has another size.
        """
        return self._act(observations, lambda agent, obs: agent.greedy_actions(obs))

    def greedy_actions(self, observations: Any) -> tuple[Tensor, PRNGKey]:
        """:meth:`eval_actions` as a function of tensors, ``[E, O]`` to ``[E, A]``, and the key.

        It does not check the observations and can be called inside ``vmap``.
        """
        actor = self.actor
        return _modes(actor.params, observations, apply_fn=actor.apply_fn), self.rng

    def to_act(self) -> Self:
        """The learner without the tensors that no action depends on."""
        idle = {
            f.name: state.replace(params={}, opt_state=(), tx=None)
            for f in dataclasses.fields(self)
            if isinstance(state := getattr(self, f.name), TrainState)
        }
        return self.replace(**{**idle, "actor": self.actor.replace(opt_state=(), tx=None)})

    def sample_actions(self, observations: Any) -> tuple[np.ndarray, Self]:
        """A sample of the policy for ``[O]`` or ``[E, O]``, and the learner with the next key.

        Raises:
            InputError: an observation has another size.
        """
        actor = self.actor
        return self._act(
            observations,
            lambda agent, obs: _draws(actor.params, obs, agent.rng, apply_fn=actor.apply_fn),
        )
