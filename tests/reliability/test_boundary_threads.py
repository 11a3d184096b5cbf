"""Tracing, compiling and applying networks from several threads at once."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from tiny_learners import STATE_LEARNERS, make_batch, make_state_learner, same
from trials import AtMost, Tally, spread

from idql_func import disable_jit, jit, random, switches
from idql_func.compiler.inductor import without_code_generation
from idql_func.compiler.threads import COMPILE_LOCK
from idql_func.networks import MLP, Ensemble, Module, StateActionValue
from idql_func.networks.thread_copies import copy_of_this_thread

pytestmark = pytest.mark.reliability

THREADS = 4
BOUNDED = 12
"""Cold compilations in the long form, if not all are made."""


@pytest.fixture(autouse=True)
def fast_switches() -> Iterator[None]:
    """Threads that take turns a hundred times as often as usual."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(5e-5)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def at_once(tasks: list[Callable[[], Any]], threads: int = THREADS) -> list[Any]:
    """The results of tasks that several threads start together."""
    start = threading.Barrier(min(threads, len(tasks)))
    started = set()

    def run(task: Callable[[], Any]) -> Any:
        if threading.get_ident() not in started:
            started.add(threading.get_ident())
            start.wait(60)
        return task()

    with ThreadPoolExecutor(threads) as pool:
        return [future.result(600) for future in [pool.submit(run, task) for task in tasks]]


# --- compilations -------------------------------------------------------------------------


def small_function(k: int) -> Any:
    """A jitted function that no other test has; its graph depends on ``k``."""

    def body(tree: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        x = tree["x"]
        for step in range(1 + k % 5):
            x = torch.tanh(x * (step + 1 + k / 128)) + tree["y"]
        return {"x": x, "sum": (x * x).sum()}

    return jit(body)


def compile_and_run(k: int) -> None:
    fn = small_function(k)
    tree = {"x": torch.linspace(-1, 1, 3 + k), "y": torch.full((3 + k,), k / 8)}
    expected = fn.fn(tree)
    for _ in range(2):  # the first run is recorded, the second is replayed
        got = fn(tree)
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)
    assert fn.cache_size() == 1


def test_functions_are_compiled_from_four_threads(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))  # nothing is compiled yet
    at_once([lambda k=k: compile_and_run(k) for k in range(THREADS)])


@pytest.mark.slow
def test_a_hundred_cold_compilations_from_four_threads(
    tmp_path: Path, monkeypatch: Any, at_most: AtMost, tally: Tally
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    tasks = spread([lambda k=k: compile_and_run(k) for k in range(100)], at_most(BOUNDED))
    at_once(tasks)
    tally("cold compilations", "four threads", {"trials": len(tasks), "right": len(tasks)})


def test_one_program_is_compiled_once() -> None:
    with without_code_generation():
        fn = small_function(3)
        tree = {"x": torch.ones(3), "y": torch.ones(3)}
        calls = switches.with_current_switches(lambda: fn(tree))
        at_once([calls] * THREADS)
    assert fn.cache_size() == 1


def test_the_code_of_a_graph_is_written_under_the_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch has no lock around it, and writes it at the first call where nothing else asks."""
    plain, under_lock = torch.fx.Graph.python_code, []

    def python_code(*args: Any, **kwargs: Any) -> Any:
        under_lock.append(COMPILE_LOCK._owner == threading.get_ident())
        return plain(*args, **kwargs)

    monkeypatch.setattr(torch.fx.Graph, "python_code", python_code)
    with without_code_generation():
        small_function(4)({"x": torch.ones(3), "y": torch.ones(3)})
    assert under_lock and all(under_lock)


# --- learners -----------------------------------------------------------------------------


def updated(name: str, seed: int) -> Any:
    learner = make_state_learner(name, seed)
    for step in range(2):
        learner, _ = learner.update(make_batch(step), **STATE_LEARNERS[name][2])
    return learner


@pytest.mark.parametrize("eager", [True, False], ids=["eager", "traced"])
@pytest.mark.parametrize(
    "name",
    ["bc", *[pytest.param(name, marks=pytest.mark.slow) for name in ("iql", "droq", "td3")]],
)
def test_learners_update_in_four_threads_to_the_bits_of_one(name: str, eager: bool) -> None:
    def run(seed: int) -> Any:
        with disable_jit(eager), without_code_generation():
            return updated(name, seed)

    expected = [run(seed) for seed in range(THREADS)]
    jit_caches_cleared(name)
    for got, one in zip(
        at_once([lambda s=s: run(s) for s in range(THREADS)]), expected, strict=True
    ):
        assert same(got, one)


def jit_caches_cleared(name: str) -> None:
    """Forget the programs of a learner's module, so that each thread finds none."""
    module = sys.modules[STATE_LEARNERS[name][0].__module__]
    for value in vars(module).values():
        if isinstance(value, type(jit(len))):
            value.clear_cache()
            value.donating().clear_cache()


# --- networks -----------------------------------------------------------------------------


class Pair(NamedTuple):
    """Two networks in a row."""

    one: MLP
    two: MLP

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self.two(self.one(x))


@dataclass(frozen=True)
class Box:
    """A network in an object of a class that is not a network."""

    inside: Pair

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self.inside(x)


class Tree(Module):
    """Submodules in each place where an attribute can hold them, and one at two places."""

    def __init__(self) -> None:
        super().__init__()
        self.first = MLP(3, [4])
        self.layers = [MLP(4, [4]), MLP(4, [4])]
        self.by_name = {"a": MLP(4, [4]), "b": self.first}
        self.again = self.first
        self.rule = self.halved
        self.box = Box(Pair(self.add(MLP(4, [4])), self.add(MLP(4, [4]))))

    def halved(self, x: torch.Tensor) -> torch.Tensor:
        return self.by_name["a"](x) / 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.again(x) + self.by_name["b"](x)
        for layer in self.layers:
            x = layer(x)
        return self.rule(self.box(x))


NETWORKS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "ensemble": (lambda: Ensemble(StateActionValue, MLP, input_dim=3, hidden_dims=[4]), (2, 1)),
    "tree": (Tree, (3,)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_one_network_in_four_threads_gives_the_values_of_one(name: str) -> None:
    make, sizes = NETWORKS[name]
    net = make()
    inputs = [torch.linspace(-1, 1, 2 * size).reshape(2, size) for size in sizes]
    trees = [net.init(random.PRNGKey(seed)) for seed in range(THREADS)]
    expected = [net.apply(tree, *inputs) for tree in trees]

    def run(k: int) -> None:
        for _ in range(50):
            assert torch.equal(net.apply(trees[k], *inputs), expected[k])
            assert same(net.init(random.PRNGKey(k)), trees[k])  # reads the declared shapes

    at_once([lambda k=k: run(k) for k in range(THREADS)])
    assert all(p.is_meta for p in net.parameters())


def test_a_thread_sees_a_changed_attribute() -> None:
    net = MLP(3, [4], torch.relu, activate_final=True)
    params, x = net.init(random.PRNGKey(0)), -torch.ones(1, 3)
    with ThreadPoolExecutor(1) as pool:
        before = pool.submit(net.apply, params, x).result()
        copies = [pool.submit(copy_of_this_thread, net).result() for _ in range(2)]
        net.activations = torch.tanh
        after = pool.submit(net.apply, params, x).result()
    assert copies[0] is copies[1] is not net
    assert torch.equal(after, net.apply(params, x)) and not torch.equal(before, after)


# --- failures -----------------------------------------------------------------------------


def test_a_failed_trace_leaves_nothing_behind() -> None:
    net = MLP(3, [4])
    params = net.init(random.PRNGKey(0))

    def fails(params: Any, x: torch.Tensor) -> torch.Tensor:
        net.apply(params, x)
        raise ZeroDivisionError

    def run() -> None:
        with without_code_generation(), pytest.raises(ZeroDivisionError):
            jit(fails)(params, torch.ones(1, 3))

    at_once([run] * 8)
    assert not COMPILE_LOCK.held_by_another_thread()
    expected = net.apply(params, torch.ones(1, 3))
    with without_code_generation():
        assert torch.equal(jit(net.apply)(params, torch.ones(1, 3)), expected)
