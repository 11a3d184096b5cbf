"""The shared inputs must never change: their bits are pinned here."""

from __future__ import annotations

import numpy as np

from parity import inputs
from parity.cases import all_cases, flow_cases
from parity.digest import KEEP, digest
from parity.live import live_cases
from parity.programs import PROGRAMS

PINNED = [0.3526269701706042, 0.4532215583561885, -0.7890186693419512]


def test_numbers_are_pinned() -> None:
    assert inputs.uniform("pin", (3,)).tolist() == PINNED
    assert inputs.uniform("pin", (0, 4)).shape == (0, 4)


def test_batches_are_valid_and_differ_by_step() -> None:
    first, second = (inputs.batch(3, step, 64, 5, 2) for step in (0, 1))
    assert first["actions"].shape == (64, 2)
    assert first["observations"].dtype == np.float32
    assert np.abs(first["actions"]).max() < 1
    assert set(np.unique(first["masks"])) == {0.0, 1.0}
    assert np.array_equal(first["masks"], 1 - first["dones"])
    assert not np.array_equal(first["rewards"], second["rewards"])


def test_double_batches_have_more_than_float32_precision() -> None:
    wide = inputs.batch(3, 0, 8, 5, 2, dtype="float64")
    assert not np.array_equal(wide["actions"], wide["actions"].astype(np.float32))


def test_flattened_trees_round_trip() -> None:
    tree = inputs.parameters("t", {"a/kernel": (2, 3), "a/bias": (3,), "scale": (2,)})
    assert list(inputs.flatten(tree)) == ["a/bias", "a/kernel", "scale"]
    assert np.array_equal(
        inputs.unflatten(inputs.flatten(tree))["a"]["kernel"], tree["a"]["kernel"]
    )


def test_digest_depends_on_every_entry_of_a_leaf() -> None:
    leaf = np.arange(5000, dtype=np.float32)
    changed = leaf.copy()
    changed[1] += 1
    before, after = (digest({"w": x}, "net") for x in (leaf, changed))
    assert before["params/net/w"].size == KEEP
    assert before["norms/net"] != after["norms/net"]


def test_every_case_names_a_program_and_its_kinds() -> None:
    for case in [*all_cases(), *flow_cases(), *live_cases("small", 25, 1000, 5)]:
        assert case.program in PROGRAMS
        assert case.kinds


def test_images_are_bytes_and_next_images_are_one_frame_later() -> None:
    space = {"pixels": [4, 5, 3, 2], "depth": [4, 5, 1, 2], "state": [3]}
    plain, packed = (inputs.pixel_batch(0, 1, 6, space, 2, packed=p) for p in (False, True))
    now, later = plain["observations"], plain["next_observations"]
    assert now["pixels"].dtype == np.uint8
    assert now["pixels"].shape == (6, 4, 5, 3, 2)
    assert np.ptp(now["pixels"]) > 200
    assert now["depth"].dtype == np.float32
    assert 0 <= now["depth"].min() <= now["depth"].max() < 1
    for name in ("pixels", "depth"):
        assert np.array_equal(now[name][..., 1], later[name][..., 0])
        assert np.array_equal(packed["observations"][name][..., :-1], now[name])
        assert np.array_equal(packed["observations"][name][..., 1:], later[name])
        assert name not in packed["next_observations"]
    assert np.array_equal(packed["next_observations"]["state"], later["state"])
