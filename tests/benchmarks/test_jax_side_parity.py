"""The benchmarks' JAX side against the recorded tensors, within the parity suite's bounds."""

# ruff: noqa: E402 (imports that need JAX come after the skip)
from __future__ import annotations

import pytest

for _name in ("jax", "flax", "optax"):
    pytest.importorskip(_name, reason=f"the benchmark's JAX side needs {_name}")

import jax_side_backend

from parity.compare import run_case
from parity.store import recorded

_FEW = (
    "actions/simple-N64-repeat",
    "iql/antmaze",
    "redq/utd-4",
    "td3/redq",
)
"""Cases that, with ``test_jax_side_live.py``, execute most of the JAX side.

The slow ones execute the rest.
"""

_MORE = (
    "update25/simple-dropout",
    "create/simple-default",
    "update/general-default",
    "bc/decay",
    "sac/newer",
    "td3/delay-3-utd-2",
    "drq/state-packed",
    "pixel_bc/dropout",
    "update/simple-dropout",
    "update/simple-newer",
    "update/simple-actor_update",
    "update/simple-critic_update",
    "update25/simple-dropout-cosine",
    "update25/simple-linear-no_layer_norm",
    "update25/simple-T1-qs5",
    "update25/simple-two_blocks",
    "update25/simple-rates",
    "update25/simple-default",
    "update25/general-default",
    "update25/general-dropout-decay",
    "actions/simple-T1",
    "actions/simple-N1",
    "actions/simple-cold",
    "actions/simple-unclipped",
    "actions/general",
    "double/simple-dropout",
    "double/general-dropout-decay",
    "bc/dropout",
    "bc/entropy-dropout-double",
    "iql/capped",
    "iql/plain-double",
    "sac/rates",
    "sac/no_backup-double",
    "redq/plain",
    "redq/utd-4-double",
    "droq/redq-heavy",
    "droq/utd-2-double",
    "td3/plain",
    "td3/dropout-double",
    "drq/plain",
    "drq/utd-2",
    "drq/rates",
    "drq/dropout-double",
    "pixel_bc/entropy",
)


@pytest.mark.parametrize(
    "name", [*_FEW, *(pytest.param(name, marks=pytest.mark.slow) for name in _MORE)]
)
def test_equals_upstream(name: str) -> None:
    [(case, expected)] = recorded(case=name)
    result = run_case(jax_side_backend.JaxSideBackend(), case, expected)
    failed = [f for f in result.findings if not f.passed]
    lines = [f"{f.tensor}: {f.error:.3g} above {f.bound:g}, {f.detail}" for f in failed]
    assert result.passed, "\n".join([result.crash, *lines])


@pytest.mark.slow
def test_planted_error_is_reported() -> None:
    """A discount that is wrong by 0.01 changes the losses: the comparison can fail."""
    [(case, expected)] = recorded(case="iql/plain")
    side = jax_side_backend.JaxSideBackend()
    learner = side.learner
    side.learner = lambda settings: learner(settings).replace(discount=0.98)  # type: ignore[method-assign]
    result = run_case(side, case, expected)
    assert "losses/critic_loss" in {f.tensor for f in result.findings if not f.passed}
