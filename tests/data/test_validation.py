"""Data that validate_transitions accepts, and the message for each kind it rejects."""

import numpy as np
import pytest

from idql_func.data import validate_transitions
from idql_func.data.validation import ACTION_TOLERANCE, check_finite
from idql_func.types import InputError


def transitions(length: int = 6, **changes):
    data = {
        "observations": np.zeros((length, 3), np.float32),
        "actions": np.zeros((length, 2), np.float32),
        "rewards": np.zeros(length, np.float32),
        "masks": np.ones(length, np.float32),
        "dones": np.zeros(length, bool),
        "next_observations": np.zeros((length, 3), np.float32),
    }
    data.update(changes)
    return {name: value for name, value in data.items() if value is not None}


def nested(length: int = 6, width: int = 4):
    return {
        "state": np.zeros((length, 3), np.float32),
        "camera": {"pixels": np.zeros((length, width, width), np.uint8)},
    }


def sized(size: float) -> dict:
    """Transitions whose largest action is ``size``."""
    return transitions(actions=np.array([[0.0, 0.0]] * 5 + [[-size, 0.0]]))


LARGEST = np.full((6, 3), np.finfo(np.float32).max)


@pytest.mark.parametrize(
    ("accepted", "rejected", "message"),
    [
        (transitions(1), transitions(0), "no transitions"),
        (transitions(dones=None), transitions(masks=None), "lacks 'masks'"),
        (
            transitions(extra=np.array(["text"])),
            transitions(dones=np.array(["text"] * 6)),
            "'dones' has dtype <U4",
        ),
        (
            transitions(rewards=np.zeros(6, np.int64), dones=np.ones(6, np.float32)),
            transitions(rewards=np.zeros(6, np.int64), dones=np.full(6, 1.01)),
            r"'dones' ranges from 1\.01",
        ),
        (sized(1 + ACTION_TOLERANCE * 0.9), sized(1 + ACTION_TOLERANCE * 1.1), "1 of 12 values"),
        (
            transitions(observations=nested(), next_observations=nested()),
            transitions(observations=nested(), next_observations=nested(width=5)),
            "'observations/camera/pixels' has shape",
        ),
        (
            transitions(observations=LARGEST, next_observations=-LARGEST),
            transitions(observations=LARGEST, next_observations=-LARGEST * np.float32(2)),
            "18 of 18 values of 'next_observations' are NaN or infinite",
        ),
    ],
)
def test_accepts_valid_data_and_rejects_the_nearest_invalid_data(accepted, rejected, message):
    validate_transitions(accepted)
    with pytest.raises(InputError, match=message):
        validate_transitions(rejected)


def test_sizes_must_equal_those_of_the_environment():
    validate_transitions(transitions(), observation_shape=(3,), action_dim=2)
    with pytest.raises(
        InputError,
        match=r"observation has shape \(3,\); the environment's observations have \(4,\)",
    ):
        validate_transitions(transitions(), observation_shape=(4,))
    with pytest.raises(InputError, match=r"'actions' has shape \(6, 2\); it must be \[6, 5\]"):
        validate_transitions(transitions(), action_dim=5)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            transitions(masks=None, rewards=None),
            "lacks 'rewards', 'masks'; it has 'obs",
        ),
        ({}, "lacks 'observations'.* it has no field"),
        (transitions(0), "no transitions; give at least one"),
        (transitions(rewards=np.zeros(5)), "'observations' has 6 rows and 'rewards' has 5"),
        (transitions(dones=np.zeros(7)), "'dones' has 7 rows and 'rewards' has 6"),
        (transitions(rewards=np.zeros((6, 1))), r"'rewards' has shape \(6, 1\); it must be \[6\]"),
        (transitions(rewards=[0.0] * 6), "'rewards' is list; it must be a NumPy array"),
        (transitions(masks=np.ones(6, complex)), "'masks' has dtype complex128"),
        (transitions(masks=np.full(6, 2.0)), r"'masks' ranges from 2\.0 to 2\.0; .* in \[0, 1\]"),
        (transitions(dones=np.full(6, -1)), r"'dones' ranges from -1 to -1; .* in \[0, 1\]"),
        (
            transitions(observations=np.zeros((6, 4))),
            r"'observations' has shape \(6, 4\) and 'next",
        ),
        (
            transitions(observations=np.zeros(6), next_observations=np.zeros(6)),
            r"'observations' has shape \(6,\); it must be \[6, \.\.\.\]",
        ),
        (transitions(actions=np.zeros(6)), r"'actions' has shape \(6,\); it must be \[6, A\]"),
        (transitions(actions=np.zeros((6, 0))), r"'actions' has shape \(6, 0\)"),
        (
            transitions(actions=np.zeros((6, 2), int)),
            "'actions' has dtype int64; .* must be floats",
        ),
        (transitions(actions=np.full((6, 2), -3.0)), "12 of 12 values of 'actions' lie outside"),
        (transitions(rewards=np.full(6, np.inf)), "6 of 6 values of 'rewards' are NaN or infinite"),
        (
            transitions(observations=nested(), next_observations=nested(width=5)),
            "'observations/camera/pixels' has shape .* and 'next_observations/camera/pixels'",
        ),
        (
            transitions(observations=nested(5), next_observations=nested()),
            "'observations/state' has 5",
        ),
        (transitions(observations=nested()), "have different keys"),
    ],
)
def test_invalid_data_raises_one_sentence_with_the_file(data, message):
    with pytest.raises(InputError, match=message) as error:
        validate_transitions(data, where="a.hdf5")
    assert str(error.value).startswith("a.hdf5: ") and "\n" not in str(error.value)


def test_not_a_dict_raises_type_error():
    with pytest.raises(TypeError, match="transitions must be a dict of arrays"):
        validate_transitions([1])  # pyright: ignore


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_overflowing_sum_of_finite_values_is_accepted(dtype):
    check_finite(np.full((50, 2), np.finfo(dtype).max), "a", "x")
    opposite = np.array([np.inf, -np.inf, 0], dtype)
    with pytest.raises(InputError, match="2 of 3 values"):
        check_finite(opposite, "a", "x")
