"""All cases: what is compared, with which settings, and within which bounds.

A case is data only, so that the manifest can carry it and ``check`` can run from the manifest.
"""

from __future__ import annotations

from parity.cases.captured import call_cases, layer_cases
from parity.cases.case import COMMIT, Case, Options
from parity.cases.data import dataset_cases, replay_cases
from parity.cases.edges import edge_cases
from parity.cases.flow import flow_cases
from parity.cases.helpers import helper_cases
from parity.cases.idql import learner_cases
from parity.cases.layers import initializer_cases, more_network_cases
from parity.cases.learners import pixel_learner_cases, state_learner_cases
from parity.cases.loaders import evaluation_cases, loader_cases, part_cases
from parity.cases.networks import diffusion_cases, network_cases
from parity.cases.numerics import loss_cases, optimiser_cases
from parity.cases.policies import augmentation_cases, distribution_cases, encoder_cases
from parity.cases.probability import probability_cases
from parity.cases.random import random_cases

__all__ = ["COMMIT", "Case", "Options", "all_cases", "flow_cases"]


def all_cases() -> list[Case]:
    """Every case of the original of IDQL, in the order of their groups."""
    return [
        *random_cases(),
        *network_cases(),
        *diffusion_cases(),
        *loss_cases(),
        *optimiser_cases(),
        *learner_cases(),
        *dataset_cases(),
        *replay_cases(),
        *loader_cases(),
        *part_cases(),
        *evaluation_cases(),
        *distribution_cases(),
        *encoder_cases(),
        *augmentation_cases(),
        *state_learner_cases(),
        *pixel_learner_cases(),
        *layer_cases(),
        *call_cases(),
        *edge_cases(),
        *initializer_cases(),
        *more_network_cases(),
        *probability_cases(),
        *helper_cases(),
    ]
