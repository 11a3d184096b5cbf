"""A fixture that creates tiny learners of each IDQL class."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tiny_learners import ACT, OBS, TINY, box

from idql_func.agents import DDPMIQLLearner, GeneralDDPMIQLLearner


@pytest.fixture(params=[DDPMIQLLearner, GeneralDDPMIQLLearner], ids=["simple", "general"])
def create(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """``create(seed=0, **keywords)`` of each learner in turn."""

    def make(seed: int = 0, obs: int = OBS, act: int = ACT, **keywords: Any) -> Any:
        settings = {**TINY[request.param], **keywords}
        return request.param.create(seed, box(obs), box(act), **settings)

    return make
