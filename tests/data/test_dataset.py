"""Dataset: both index streams equal upstream's; subsets, returns and bad input."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from idql_func import enable_x64, random
from idql_func.data import Dataset
from idql_func.types import InputError

RECORDED = load_file(Path(__file__).parent / "reference" / "streams.safetensors")
JAX_CASES = sorted({k.rsplit("/", 1)[0] for k in RECORDED if k.startswith("jax/")})
NUMPY_CASES = sorted({k.rsplit("/", 1)[0] for k in RECORDED if k.startswith("numpy/")})


def rows_dataset(length: int, seed: int | None = None) -> Dataset:
    return Dataset({"row": np.arange(length, dtype=np.int32)}, seed)


def rl_dataset(length: int = 40, seed: int = 0) -> Dataset:
    rng = np.random.default_rng(seed)
    return Dataset(
        {
            "observations": {
                "state": rng.normal(size=(length, 3)).astype(np.float32),
                "pixels": rng.integers(255, size=(length, 2, 2), dtype=np.uint8),
            },
            "rewards": rng.normal(size=length).astype(np.float32),
            "dones": rng.random(length) < 0.2,
        },
        seed,
    )


# --- streams ----------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["x32", "partitionable", "x64"])
def test_sample_torch_draws_the_indices_of_sample_jax(mode):
    compared = 0
    for case in (c for c in JAX_CASES if c.split("/")[1] == mode):
        length, batch_size, seed = map(int, case.split("/")[2:])
        with random.threefry_partitionable(mode == "partitionable"), enable_x64(mode == "x64"):
            # upstream's dataset without a seed has the key PRNGKey(42)
            dataset = rows_dataset(length, None if seed == 42 else seed)
            rows = [dataset.sample_torch(batch_size)["row"] for _ in range(3)]
        np.testing.assert_array_equal(torch.stack(rows).numpy(), RECORDED[f"{case}/rows"])
        np.testing.assert_array_equal(dataset.rng.numpy(), RECORDED[f"{case}/rng"])
        compared += 1
    assert compared == 30


@pytest.mark.parametrize("case", NUMPY_CASES)
def test_sample_and_split_draw_the_indices_of_upstream(case):
    length, batch_size, seed = map(int, case.split("/")[1:])
    dataset = rows_dataset(length, seed)
    rows = [dataset.sample(batch_size)["row"] for _ in range(3)]
    np.testing.assert_array_equal(rows, RECORDED[f"{case}/rows"])
    halves = np.concatenate([half.dataset_dict["row"] for half in dataset.split(0.9)])
    np.testing.assert_array_equal(halves[:500], RECORDED[f"{case}/split"])
    np.testing.assert_array_equal(dataset.sample(batch_size)["row"], RECORDED[f"{case}/after"])


def test_default_seed_is_42():  # D1
    assert rows_dataset(5).rng.tolist() == [0, 42]
    assert rows_dataset(5, 0).rng.tolist() == [0, 0]
    np.testing.assert_array_equal(
        rows_dataset(99).sample(9)["row"], rows_dataset(99, 42).sample(9)["row"]
    )


def test_seed_restarts_both_streams():
    dataset = rows_dataset(1000, 5)
    first = dataset.sample(8)["row"], dataset.sample_torch(8)["row"]
    assert dataset.seed(5) == [5]
    second = dataset.sample(8)["row"], dataset.sample_torch(8)["row"]
    np.testing.assert_array_equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    fresh = dataset.seed()
    assert dataset.seed() != fresh and dataset.rng.shape == (2,)


def test_rng_can_be_set_to_resume():
    dataset = rows_dataset(1000)
    dataset.sample_torch(4)
    saved = dataset.rng
    expected = [dataset.sample_torch(4)["row"] for _ in range(3)]
    other = rows_dataset(1000, 9)
    other.rng = saved
    for rows in expected:
        assert torch.equal(other.sample_torch(4)["row"], rows)
    saved.zero_()  # the dataset keeps its own copy
    assert other.rng.tolist() != [0, 0]


def test_explicit_key_does_not_change_rng():
    dataset = rows_dataset(1000, 1)
    before = dataset.rng.clone()
    rows = dataset.sample_torch(6, key=random.PRNGKey(3))["row"]
    assert torch.equal(dataset.rng, before)
    draw, _ = random.split(random.PRNGKey(3))
    assert torch.equal(rows, random.randint(draw, (6,), 0, 1000))


# --- batches ----------------------------------------------------------------------------


def test_each_call_uses_its_own_size_and_keys():  # D2
    dataset = rl_dataset()
    assert set(dataset.sample_torch(3)) == {"observations", "rewards", "dones"}
    batch = dataset.sample_torch(7, keys=["rewards"])
    assert set(batch) == {"rewards"} and batch["rewards"].shape == (7,)
    assert dataset.sample(5, keys=("dones",))["dones"].shape == (5,)


def test_nested_fields_are_drawn_with_the_same_rows():
    dataset = rl_dataset()
    tensors = dataset.sample_torch(11, key=random.PRNGKey(2))
    rows = random.randint(random.split(random.PRNGKey(2))[0], (11,), 0, len(dataset)).numpy()
    arrays = dataset.sample(0, indx=rows)
    np.testing.assert_array_equal(tensors["rewards"].numpy(), arrays["rewards"])
    for name in ("state", "pixels"):
        np.testing.assert_array_equal(
            tensors["observations"][name].numpy(),
            arrays["observations"][name],
        )


def test_dtypes_equal_jax():
    fields = {
        name: np.ones(4, dtype)
        for name, dtype in [
            ("f64", np.float64), ("f32", np.float32), ("f16", np.float16),
            ("i64", np.int64), ("u8", np.uint8), ("bool", np.bool_), ("big_endian", ">f4"),
        ]
    }  # fmt: skip
    dataset = Dataset(dict(fields))
    narrow = {k: v.dtype for k, v in dataset.sample_torch(2).items()}
    assert narrow == {
        "f64": torch.float32, "f32": torch.float32, "f16": torch.float16,
        "i64": torch.int32, "u8": torch.uint8, "bool": torch.bool, "big_endian": torch.float32,
    }  # fmt: skip
    with enable_x64():  # takes effect although the fields are already on the device
        wide = {k: v.dtype for k, v in dataset.sample_torch(2).items()}
    assert wide == narrow | {"f64": torch.float64, "i64": torch.int64}
    assert dataset.sample_torch(2)["f64"].dtype == torch.float32


def test_replaced_and_refreshed_arrays_are_used():
    dataset = Dataset({"a": np.zeros(3), "b": {"c": np.zeros(3)}})
    assert dataset.sample_torch(1)["a"].item() == 0
    dataset.dataset_dict["a"] = np.ones(3)
    assert dataset.sample_torch(1)["a"].item() == 1
    dataset.dataset_dict["b"]["c"] = np.full(3, 2.0)
    assert dataset.sample_torch(1)["b"]["c"].item() == 2
    # not seen: an in-place write to an array whose float32 copy is on the device already
    dataset.dataset_dict["a"] += 5
    assert dataset.sample_torch(1)["a"].item() == 1
    dataset.refresh()
    assert dataset.sample_torch(1)["a"].item() == 6


def test_fields_are_copied_to_the_device_once():
    dataset = rl_dataset()
    first = dataset._device_field("rewards")
    dataset.sample_torch(3)
    assert dataset._device_field("rewards") is first
    dataset.to("cpu")
    assert dataset._device_field("rewards") is not first


def test_read_only_and_reversed_arrays_are_copied_without_warning():
    frozen = np.arange(4.0, dtype=np.float32)
    frozen.flags.writeable = False
    dataset = Dataset({"a": frozen, "b": np.arange(4, dtype=np.int32)[::-1]})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        batch = dataset.sample_torch(20)
    np.testing.assert_array_equal(batch["a"].numpy(), 3 - batch["b"].numpy())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_batch_on_gpu_equals_cpu():
    dataset = rl_dataset()
    key = random.PRNGKey(1)
    host = dataset.sample_torch(9, key=key)["rewards"]
    batch = dataset.to("cuda").sample_torch(9, key=key.cuda())
    assert batch["rewards"].is_cuda and torch.equal(batch["rewards"].cpu(), host)


# --- split, filter, returns -------------------------------------------------------------


def test_split_is_reproducible_and_halves_have_own_streams():  # D1, D4
    def halves(seed):
        return rows_dataset(500, seed).split(0.95)

    (train, held_out), (again, _), (other, _) = halves(0), halves(0), halves(1)
    assert len(train) == 475 and len(held_out) == 25
    rows = np.concatenate([train.dataset_dict["row"], held_out.dataset_dict["row"]])
    np.testing.assert_array_equal(np.sort(rows), np.arange(500))
    np.testing.assert_array_equal(train.dataset_dict["row"], again.dataset_dict["row"])
    assert torch.equal(train.rng, again.rng)
    keys = {tuple(d.rng.tolist()) for d in (train, held_out, other, rows_dataset(500, 0))}
    assert len(keys) == 4
    assert (train.sample(20)["row"] != other.sample(20)["row"]).any()


def test_split_rows_reproduce_the_halves():
    whole = rows_dataset(50, seed=3)
    halves = whole.split(0.8)
    whole.seed(3)
    fields = whole.on_device()
    for half, (rows, seed) in zip(halves, whole.split_rows(0.8), strict=True):
        key = random.split(random.PRNGKey(seed))[0]
        drawn = torch.from_numpy(rows)[random.randint(key, (16,), 0, len(rows)).long()]
        for name, value in half.sample_torch(16).items():
            assert torch.equal(value, fields[name][drawn.long()]), name


def test_splitting_twice_gives_different_halves():
    dataset = rows_dataset(100, 0)
    first, second = dataset.split(0.5)[0], dataset.split(0.5)[0]
    assert first.rng.tolist() != second.rng.tolist()
    assert (first.dataset_dict["row"] != second.dataset_dict["row"]).any()


@pytest.mark.parametrize("ratio", [0, 1, -0.1, 1.5, float("nan")])
def test_split_ratio_is_checked(ratio):
    with pytest.raises(InputError, match="ratio must lie between 0 and 1"):
        rows_dataset(10).split(ratio)


def test_split_needs_a_row_on_each_side():
    with pytest.raises(InputError, match=r"0\.05 of 10 rows leaves the first half empty"):
        rows_dataset(10).split(0.05)


def returns_dataset() -> Dataset:
    names = ("rewards", "dones")
    return Dataset({name: RECORDED[f"returns/in/{name}"].copy() for name in names})


def test_trajectories_equal_upstream():
    starts, ends, returns = returns_dataset().trajectory_boundaries_and_returns()
    np.testing.assert_array_equal(starts, RECORDED["returns/starts"])
    np.testing.assert_array_equal(ends, RECORDED["returns/ends"])
    np.testing.assert_array_equal(returns, RECORDED["returns/returns"])  # D10: bit for bit
    assert returns_dataset()._trajectory_boundaries_and_returns()[2] == returns.tolist()


@settings(max_examples=60)
@given(
    steps=st.lists(
        st.tuples(st.floats(-1e3, 1e3, width=32), st.booleans()), min_size=1, max_size=40
    )
)
def test_trajectories_equal_a_plain_loop(steps):
    rewards, dones = (np.array(x) for x in zip(*steps, strict=True))
    dataset = Dataset({"rewards": rewards.astype(np.float32), "dones": dones})
    starts, ends, returns, total = [0], [], [], 0.0
    for i, (reward, done) in enumerate(steps):
        total += float(np.float32(reward))
        if done:
            returns.append(total)
            ends.append(i + 1)
            starts += [i + 1] * (i + 1 < len(steps))
            total = 0.0
    ours = dataset.trajectory_boundaries_and_returns()
    assert [x.tolist() for x in ours] == [starts, ends, returns]


@pytest.mark.parametrize(
    ("name", "options"), [("top", {"take_top": 30}), ("threshold", {"threshold": 0.5})]
)
def test_filter_keeps_the_rows_of_upstream(name, options):
    dataset = returns_dataset()
    before = dataset.sample_torch(4, keys=["rewards"])["rewards"]
    dataset.filter(**options)
    np.testing.assert_array_equal(dataset.dataset_dict["rewards"], RECORDED[f"returns/{name}"])
    assert len(dataset) == len(RECORDED[f"returns/{name}"]) and len(before) == 4
    kept = torch.from_numpy(RECORDED[f"returns/{name}"])
    assert torch.isin(dataset.sample_torch(200)["rewards"], kept).all()


@pytest.mark.parametrize("scaling", [1000, 1])
def test_normalize_returns_equals_upstream_and_keeps_the_callers_array(scaling):
    dataset = returns_dataset()
    given_rewards = dataset.dataset_dict["rewards"]
    kept = given_rewards.copy()
    dataset.sample_torch(1)
    dataset.normalize_returns(scaling)
    np.testing.assert_array_equal(
        dataset.dataset_dict["rewards"], RECORDED[f"returns/normalized_{scaling}"]
    )
    np.testing.assert_array_equal(given_rewards, kept)
    drawn = dataset.sample_torch(50)["rewards"]
    assert torch.isin(drawn, torch.from_numpy(dataset.dataset_dict["rewards"])).all()


def test_filter_and_normalize_raise_on_bad_input():
    dataset = returns_dataset()
    for options in ({}, {"take_top": 1, "threshold": 1}):
        with pytest.raises(InputError, match="either take_top or threshold"):
            dataset.filter(**options)
    with pytest.raises(InputError, match=r"percentage in \[0, 100\], got 101"):
        dataset.filter(take_top=101)
    with pytest.raises(InputError, match=r"no episode has a return of 1000000000\.0 or more"):
        dataset.filter(threshold=1e9)
    assert len(dataset) == 300
    endless = Dataset({"rewards": np.ones(3), "dones": np.zeros(3, bool)})
    with pytest.raises(InputError, match="no finished episode"):
        endless.filter(take_top=10)
    with pytest.raises(
        InputError, match="the 0 finished episodes must have at least two different"
    ):
        endless.normalize_returns()
    with pytest.raises(
        InputError, match="the 3 finished episodes must have at least two different"
    ):
        Dataset({"rewards": np.ones(3), "dones": np.ones(3, bool)}).normalize_returns()
    with pytest.raises(InputError, match=r"field 'rewards' as an array \[5\]; it is missing"):
        rows_dataset(5).normalize_returns()
    with pytest.raises(InputError, match=r"field 'dones' as an array \[2\].*\(2, 1\)"):
        Dataset({"rewards": np.ones(2), "dones": np.ones((2, 1))}).filter(threshold=0)


# --- bad input --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dataset_dict", "error", "message"),
    [
        ({}, InputError, "empty \\(no array\\)"),
        ({"a": np.zeros((0, 3))}, InputError, "empty \\(arrays of length 0\\)"),
        ({"a": np.zeros(3), "b": np.zeros(4)}, InputError, "'a' has 3 rows and 'b' has 4"),
        ({"a": np.zeros(3), "b": {"c": np.zeros(4)}}, InputError, "'a' has 3 .*'b/c' has 4"),  # D9
        ({"b": {"c": np.zeros(4), "d": np.zeros(5)}}, InputError, "'b/c' has 4 .*'b/d' has 5"),
        ({"a": [1, 2]}, TypeError, "'a' is list"),
        ({"a": np.float32(1)}, TypeError, "'a' is float32"),
        ({"a": np.array(1)}, TypeError, "'a' is a 0-d array"),
        ({"a": torch.zeros(3)}, TypeError, "'a' is Tensor"),
        ([np.zeros(3)], TypeError, "dict of arrays, got list"),
    ],
)
def test_invalid_datasets_raise(dataset_dict, error, message):
    with pytest.raises(error, match=message):
        Dataset(dataset_dict)


def test_bad_arguments_raise():
    dataset = rows_dataset(5)
    for sample in (dataset.sample, dataset.sample_torch):
        with pytest.raises(InputError, match="batch_size must be at least 1, got 0"):
            sample(0)
        with pytest.raises(TypeError, match=r"batch_size must be an integer, got float 2\.0"):
            sample(2.0)  # pyright: ignore
        with pytest.raises(InputError, match="no field 'b'; it has row"):
            sample(2, keys=["b"])
    with pytest.raises(InputError, match="seed must be at least 0, got -1"):
        Dataset({"a": np.zeros(2)}, seed=-1)
    with pytest.raises(TypeError, match="seed must be an integer, got str"):
        dataset.seed("x")  # pyright: ignore
    for key in (torch.zeros(3, dtype=torch.int64), torch.zeros(2), 7):
        with pytest.raises(InputError, match="key must be a key, an int64 tensor"):
            dataset.sample_torch(2, key=key)  # pyright: ignore
        with pytest.raises(InputError, match="rng must be a key, an int64 tensor"):
            dataset.rng = key  # pyright: ignore
    words = Dataset({"a": np.zeros(2), "text": np.array(["x", "y"])})
    with pytest.raises(TypeError, match="dtype <U1, which torch does not support"):
        words.sample_torch(1)
    assert words.sample_torch(1, keys=["a"])["a"].shape == (1,)
    assert words.sample(1)["text"].shape == (1,)
