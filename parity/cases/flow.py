"""Cases of the learners of seohongpark/fql: FQL, IFQL and ReBRAC.

Each is a whole run, as those of ``cases/learners.py``. Networks are small; options differ from the
defaults in at least one case each.
"""

from __future__ import annotations

from typing import Any

from parity.cases.case import Case, Options
from parity.cases.learners import DOUBLE, SINGLE, state_learner

_SIZES: Options = {"actor_hidden_dims": [32, 32], "value_hidden_dims": [32, 32]}


def flow_learners() -> dict[str, dict[str, Options]]:
    """Settings of each learner, by group and name."""

    def settings(learner: str, seed: int, /, together: bool = True, **kwargs: Any) -> Options:
        made = state_learner(learner, seed, kwargs={**_SIZES, **kwargs}, together=together)
        del made["kwargs"]["hidden_dims"]
        return made

    def fql(seed: int, **kwargs: Any) -> Options:
        return settings("fql", seed, **kwargs)

    def ifql(seed: int, **kwargs: Any) -> Options:
        # the original chooses an action for one observation only
        return settings("ifql", seed, False, **kwargs)

    def rebrac(seed: int, **kwargs: Any) -> Options:
        frequency = kwargs.get("actor_freq", 2)
        return {
            **settings("rebrac", seed, **kwargs),
            "full_update_every": frequency,
            "first_gradient": frequency,
        }

    return {
        "fql": {
            "plain": fql(0),
            "cube": fql(1, alpha=300.0, actor_layer_norm=True),
            "antmaze": fql(2, q_agg="min", alpha=3.0, discount=0.995),
            "normalized": fql(3, normalize_q_loss=True, flow_steps=3, tau=0.05, lr=1e-3),
            "layers": fql(
                2**32 - 1,
                actor_hidden_dims=[16, 24, 8],
                value_hidden_dims=[24],
                layer_norm=False,
                flow_steps=1,
            ),
        },
        "ifql": {
            "plain": ifql(0),
            "few": ifql(1, num_samples=4, expectile=0.7, flow_steps=3),
            "single": ifql(2, num_samples=1, discount=0.995, layer_norm=False),
            "layers": ifql(
                2**32 - 1,
                actor_hidden_dims=[24],
                value_hidden_dims=[16, 24, 8],
                actor_layer_norm=True,
                tau=0.05,
                lr=1e-3,
            ),
        },
        "rebrac": {
            "plain": rebrac(0),
            "regularised": rebrac(1, alpha_actor=0.1, alpha_critic=0.01),
            "every_step": rebrac(2, actor_freq=1, alpha_actor=1.0, actor_layer_norm=True),
            "untransformed": rebrac(3, tanh_squash=False, actor_fc_scale=1.0, alpha_critic=0.1),
            "noisy": rebrac(4, actor_noise=0.6, actor_noise_clip=0.3, actor_freq=3, discount=0.9),
            "layers": rebrac(
                2**32 - 1,
                actor_hidden_dims=[16, 24, 8],
                value_hidden_dims=[24],
                layer_norm=False,
                tau=0.05,
                lr=1e-3,
            ),
        },
    }


def flow_cases() -> list[Case]:
    """25 updates of each in float32, and longer runs of some in double precision."""
    cases = []
    for group, named in flow_learners().items():
        for name, settings in named.items():
            cases.append(Case(group, name, "course", {**settings, "steps": 25}, SINGLE))
        for name, settings in named.items():
            wide = {**settings, "steps": 100, "x64": True, "batch": 16}
            cases.append(Case(group, f"{name}-double", "course", wide, DOUBLE))
        newer = {**named["plain"], "steps": 5, "partitionable": True}
        cases.append(Case(group, "newer", "course", newer, SINGLE))
    return cases
