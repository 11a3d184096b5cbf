"""D4RL's names and scores equal those of the d4rl package (recorded by upstream_d4rl.py)."""

import json
from pathlib import Path

import numpy as np
import pytest

from idql_func.data import ReferenceScores, normalized_score, reference_scores
from idql_func.data.d4rl_names import D4RL_NAMES, similar_names
from idql_func.data.hdf5 import write_d4rl_hdf5
from idql_func.types import InputError

RECORDED = json.loads((Path(__file__).parent / "reference" / "scores.json").read_text())


def test_registry_equals_d4rl():
    ours = {
        name: [d.max_episode_steps, d.url, d.ref_min_score, d.ref_max_score]
        for name, d in D4RL_NAMES.items()
    }
    registered = {
        name: [steps, url.replace("http:", "https:"), *scores]
        for name, (steps, url, *scores) in RECORDED["registered"].items()
    }
    assert ours == registered
    assert len(ours) == 148


def test_scores_equal_those_of_d4rl_infos():
    compared = 0
    for name in D4RL_NAMES:
        if name in RECORDED["ref_min_score"]:
            low, high = RECORDED["ref_min_score"][name], RECORDED["ref_max_score"][name]
            assert reference_scores(name) == (low, high)
            compared += 1
        recorded = RECORDED["urls"].get(name, D4RL_NAMES[name].url)
        assert recorded.replace("http:", "https:") == D4RL_NAMES[name].url
    assert compared == 115


def test_required_families_are_registered():
    for robot in ("halfcheetah", "hopper", "walker2d", "ant"):
        for kind in ("random", "medium", "expert", "medium-replay", "medium-expert"):
            for version in ("v0", "v1", "v2"):
                assert f"{robot}-{kind}-{version}" in D4RL_NAMES
    assert D4RL_NAMES["antmaze-umaze-v2"].max_episode_steps == 700
    assert D4RL_NAMES["antmaze-large-play-v2"].max_episode_steps == 1000
    assert D4RL_NAMES["halfcheetah-medium-v2"].file_name == "halfcheetah_medium-v2.hdf5"


def test_normalized_score_is_100_times_d4rls():
    name, ret = "halfcheetah-medium-v2", 5000.0
    low, high = RECORDED["ref_min_score"][name], RECORDED["ref_max_score"][name]
    assert normalized_score(name, ret) == pytest.approx(100 * (ret - low) / (high - low), rel=1e-15)
    assert normalized_score(name, low) == 0 and normalized_score(name, high) == 100
    np.testing.assert_allclose(normalized_score(name, np.array([low, high])), [0, 100])
    assert isinstance(normalized_score(name, 1), float)


def test_scores_are_read_from_a_file(tmp_path):
    path = write_d4rl_hdf5(
        tmp_path / "a.hdf5", {"rewards": [0.0]}, {"ref_min_score": 10, "ref_max_score": 20.0}
    )
    assert reference_scores(path) == ReferenceScores(10.0, 20.0)
    assert normalized_score(str(path), 15.0) == 50.0
    bare = write_d4rl_hdf5(tmp_path / "b.hdf5", {"rewards": [0.0]})
    assert reference_scores(bare) is None


@pytest.mark.parametrize(
    "attributes",
    [
        {"ref_min_score": 1.0},
        {"ref_min_score": 2.0, "ref_max_score": 1.0},
        {"ref_min_score": 1.0, "ref_max_score": 1.0},
        {"ref_min_score": float("nan"), "ref_max_score": 1.0},
        {"ref_min_score": 0.0, "ref_max_score": float("inf")},
        {"ref_min_score": "low", "ref_max_score": 1.0},
    ],
)
def test_scores_of_a_file_must_be_ascending_numbers(tmp_path, attributes):
    path = write_d4rl_hdf5(tmp_path / "a.hdf5", {"rewards": [0.0]}, attributes)
    with pytest.raises(InputError, match=r"ref_min_score=.*finite numbers, the smaller one first"):
        reference_scores(path)


def test_unknown_names_raise_input_error():
    assert reference_scores("hopper-medium-v9") is None
    with pytest.raises(
        InputError, match=r"No reference scores .*'hopper-medium-v9'.*hopper-medium-v2"
    ):
        normalized_score("hopper-medium-v9", 1.0)
    with pytest.raises(InputError, match=r"No reference scores .*'zzz'"):
        normalized_score("zzz", 1.0)
    assert similar_names("zzzzzzz") == []
