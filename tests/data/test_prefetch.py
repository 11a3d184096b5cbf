"""Prefetching: order, age of batches, dtypes, devices."""

import itertools

import numpy as np
import pytest
import torch
from buffer_cases import episodes, frame_buffer, plain_buffer, transition

from idql_func.data import Dataset, prefetch
from idql_func.types import InputError


@pytest.mark.parametrize("queue_size", [1, 2, 3, 7])
def test_batches_are_drawn_queue_size_minus_one_calls_early(queue_size):  # D21
    count = itertools.count()
    batches = prefetch(lambda: {"a": np.array([next(count)])}, queue_size)
    assert next(count) == 0, "nothing is drawn before the first call"
    for call in range(1, 9):
        assert next(batches)["a"].item() == call
        assert next(count) == call + queue_size
        count = itertools.count(call + queue_size)


def test_batch_misses_later_insertions():  # D21
    def rewards_after_five_inserts(queue_size):
        buffer = plain_buffer(100, 1)
        batches = buffer.get_iterator(queue_size, {"batch_size": 400})
        out = []
        for number in range(1, 6):
            buffer.insert(transition(number))
            out.append(int(next(batches)["rewards"].max()))
        return out

    assert rewards_after_five_inserts(1) == [1, 2, 3, 4, 5]
    assert rewards_after_five_inserts(2) == [1, 1, 2, 3, 4]
    assert rewards_after_five_inserts(3) == [1, 1, 1, 2, 3]


def test_prefetched_batches_equal_plain_samples():
    one, other = frame_buffer([9], seed=2), frame_buffer([9], seed=2)
    arguments = {"batch_size": 5, "pack_obs_and_next_obs": True}
    for batch in itertools.islice(one.get_iterator(3, arguments), 6):
        expected = other.sample(**arguments)
        pixels = batch["observations"]["pixels"]
        assert pixels.dtype == torch.uint8 and pixels.is_contiguous()
        np.testing.assert_array_equal(pixels.numpy(), expected["observations"]["pixels"])
        np.testing.assert_array_equal(batch["rewards"].numpy(), expected["rewards"])
        assert batch["dones"].dtype == torch.bool


def test_get_iterator_of_a_dataset_moves_batches_to_the_device():
    dataset = Dataset({"a": np.arange(9.0)}, seed=0)
    batch = next(dataset.get_iterator(sample_args={"batch_size": 4}, device="meta"))
    assert batch["a"].is_meta and batch["a"].dtype == torch.float32


@pytest.mark.parametrize("queue_size", [0, -1, 1.0, True, None])
def test_queue_size_is_checked_at_once(queue_size):
    with pytest.raises(InputError, match="queue_size must be an integer of at least 1, got"):
        plain_buffer(4, 4).get_iterator(queue_size)


def test_unknown_sample_argument_raises():
    with pytest.raises(TypeError, match="size"):
        next(plain_buffer(4, 4).get_iterator(sample_args={"size": 3}))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_batches_on_gpu_equal_cpu():
    def buffer():
        one = frame_buffer([], 300, seed=1)
        for step in episodes([40, 60], 3):
            one.insert(step)
        return one

    host = buffer().get_iterator(2, {"batch_size": 64})
    device = buffer().get_iterator(2, {"batch_size": 64}, device="cuda")
    busy = torch.randn(2048, 2048, device="cuda")
    for _ in range(50):
        busy = busy @ busy / 2048  # so that copies and computation overlap
        left, right = next(host), next(device)
        total = right["observations"]["pixels"].float().sum()
        assert right["rewards"].is_cuda and torch.equal(right["rewards"].cpu(), left["rewards"])
        for part in ("observations", "next_observations"):
            assert torch.equal(right[part]["pixels"].cpu(), left[part]["pixels"])
        assert total.item() == left["observations"]["pixels"].float().sum().item()
