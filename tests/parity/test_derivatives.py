"""First and second derivatives of the port beside the recorded ones of JAX."""

from __future__ import annotations

import pytest

from parity import derivatives
from parity.derivatives import DOUBLE_BOUND, FUNCTIONS, TABLE_MODES, worst_error

RECORDED = derivatives.recorded()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_derivatives_are_jax_s(name: str) -> None:
    errors = {
        mode: worst_error(derivatives.derivatives(name, "float64", mode), RECORDED[name, "float64"])
        for mode in TABLE_MODES
        if mode != "jit" or name in ("adam", "uniform", "MLP")
    }
    assert max(errors.values()) <= DOUBLE_BOUND, errors


def test_record_holds_every_function() -> None:
    assert {name for name, _ in RECORDED} == FUNCTIONS.keys()
