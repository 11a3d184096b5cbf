"""Learners through 18 ways to copy an object or to send it to another process."""

from __future__ import annotations

import copy
import io
import multiprocessing
import pickle
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import pixel_learners
import pytest
import torch
from tiny_learners import (
    ACT,
    OBS,
    STATE_LEARNERS,
    TINY,
    box,
    make_batch,
    make_state_learner,
    same,
)
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from trials import Tally

from idql_func import disable_jit, tree_flatten
from idql_func.compiler.inductor import without_code_generation

pytestmark = pytest.mark.reliability

SECONDS = 240


def by_torch(learner: Any) -> Any:
    file = io.BytesIO()
    torch.save(learner, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def by_buffers(learner: Any) -> Any:
    buffers: list[pickle.PickleBuffer] = []
    text = pickle.dumps(learner, protocol=5, buffer_callback=buffers.append)
    return pickle.loads(text, buffers=buffers)


def by_cloudpickle(learner: Any) -> Any:
    cloudpickle = pytest.importorskip("cloudpickle")
    return pickle.loads(cloudpickle.dumps(learner))


def _return(learners: Any, results: Any) -> None:
    results.put(pickle.dumps(learners.get(timeout=SECONDS)))


def by_queue(method: str) -> Callable[[Any], Any]:
    def send(learner: Any) -> Any:
        context: Any = multiprocessing.get_context(method)
        there, back = context.Queue(), context.Queue()
        worker = context.Process(target=_return, args=(there, back))
        worker.start()
        there.put(learner)
        copied = pickle.loads(back.get(timeout=SECONDS))
        worker.join(SECONDS)
        return copied

    return send


class Holder(TorchDataset):
    """A dataset whose one item is the learner, pickled."""

    def __init__(self, learner: Any) -> None:
        self.learner = learner

    def __len__(self) -> int:
        return 1

    def __getitem__(self, place: int) -> bytes:
        return pickle.dumps(self.learner)


def by_loader(method: str) -> Callable[[Any], Any]:
    def send(learner: Any) -> Any:
        loader = DataLoader(
            Holder(learner), batch_size=None, num_workers=1, multiprocessing_context=method
        )
        [item] = [*loader]
        return pickle.loads(item)

    return send


def by_pool(learner: Any) -> Any:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as pool:
        return pickle.loads(pool.submit(pickle.dumps, learner).result(SECONDS))


QUICK: dict[str, Callable[[Any], Any]] = {
    **{
        f"protocol {p}": lambda learner, p=p: pickle.loads(pickle.dumps(learner, p))
        for p in range(pickle.HIGHEST_PROTOCOL + 1)
    },
    "buffers": by_buffers,
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "torch.save": by_torch,
    "cloudpickle": by_cloudpickle,
    "queue, fork": by_queue("fork"),
}
SLOW: dict[str, Callable[[Any], Any]] = {
    "queue, spawn": by_queue("spawn"),
    "queue, forkserver": by_queue("forkserver"),
    **{f"loader, {method}": by_loader(method) for method in ("fork", "spawn", "forkserver")},
    "pool": by_pool,
}


def new() -> Any:
    return make_state_learner("bc")


def after_a_donating_update() -> Any:
    """A result whose fields nobody has read yet."""
    with without_code_generation():
        learner, _ = new().update(make_batch())
        learner, _ = learner.update(make_batch(), donate=True)
    return learner


KINDS: dict[str, Callable[[], Any]] = {"new": new, "donated": after_a_donating_update}


def test_there_are_18_ways() -> None:
    assert len(QUICK) + len(SLOW) == 18


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", QUICK)
def test_a_learner_arrives_with_every_bit(way: str, kind: str) -> None:
    learner = KINDS[kind]()
    assert_equal(QUICK[way](learner), learner)


def assert_equal(copied: Any, learner: Any) -> None:
    assert tree_flatten(copied)[1] == tree_flatten(learner)[1] and same(copied, learner)
    with disable_jit():
        assert same(copied.update(make_batch(1)), learner.update(make_batch(1)))
        observation = torch.ones(OBS)
        assert (copied.eval_actions(observation)[0] == learner.eval_actions(observation)[0]).all()


@pytest.fixture(scope="module")
def all_learners() -> dict[str, tuple[Any, Any, Any]]:
    """Each kind of learner, a batch for it, and the learner after an update."""
    made: dict[str, tuple[Any, Any]] = {
        name: (make_state_learner(name), make_batch()) for name in STATE_LEARNERS
    }
    for cls, settings in TINY.items():
        made[cls.__name__] = cls.create(0, box(OBS), box(ACT), **settings), make_batch()
    for case in ("drq", "drq-cameras", "bc", "bc-cameras"):
        made[f"pixels {case}"] = pixel_learners.create(case), pixel_learners.batch_of(case)
    with disable_jit():
        return {
            name: (learner, batch, learner.update(batch)) for name, (learner, batch) in made.items()
        }


@pytest.mark.slow
@pytest.mark.parametrize("way", {**QUICK, **SLOW})
def test_every_kind_of_learner_arrives(
    way: str, all_learners: dict[str, tuple[Any, Any, Any]], tally: Tally
) -> None:
    # the server takes at most 256 file descriptors, and torch sends one for each tensor
    torch.multiprocessing.set_sharing_strategy("file_system")
    kinds = {kind: make() for kind, make in KINDS.items()}
    learners = {name: learner for name, (learner, *_) in all_learners.items()}
    copied = {**QUICK, **SLOW}[way]({**kinds, **learners})
    for kind, learner in kinds.items():
        assert_equal(copied[kind], learner)
    with disable_jit():
        for name, (learner, batch, updated) in all_learners.items():
            assert same(copied[name], learner), name
            assert same(copied[name].update(batch), updated), name
    counts = {"trials": 1, "right": 1, "learners": len(copied)}
    tally("ways to pickle", way, counts)
