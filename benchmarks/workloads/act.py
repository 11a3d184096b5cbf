"""Action choice: ``N`` candidates by ``T`` diffusion steps, the best by min-Q."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """``eval_actions`` of a ``DDPMIQLLearner`` for a batch of environments.

    A call takes observations of the host (NumPy, ``[num_envs, observations]``), as an environment
    gives them, and ends with actions on the host. The key advances from call to call.
    """

    num_envs: int = 1
    N: int = 64
    T: int = 5
    observations: int = 17
    actions: int = 6
    hidden: int = 256
    blocks: int = 3
    dropout: float = 0.1
    """Of the actor's layers; off at action choice."""
    seed: int = 0
    inputs: int = 16
    """How many different batches of observations rotate."""
