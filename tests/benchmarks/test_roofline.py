"""Floating-point operations of known networks, and the units of the variants behind the limit."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from benchmarks import idql
from benchmarks.case import Flops, Plan
from benchmarks.roofline import copy_variant, count_flops, dense_flops, matmul_variant
from benchmarks.timing import Budget, interleave
from benchmarks.workloads import act, load, update
from idql_func import grad, jit, random, vmap
from idql_func.networks import MLP

SMALL = update.Settings(batch=8, observations=5, actions=2, hidden=16, blocks=1, rows=30)


def test_flops_of_an_mlp_forward_backward_and_vmapped() -> None:
    network = MLP(6, (10, 4))
    params = network.init(random.PRNGKey(0))
    x = torch.ones(7, 6)
    forward = 2 * 7 * (6 * 10 + 10 * 4)
    assert count_flops(network.apply, params, x) == forward == dense_flops(7, [(6, 10), (10, 4)])

    def loss(p, x):
        return network.apply(p, x).sum()

    # backward: each layer's weights, and the second layer's input
    assert count_flops(grad(loss), params, x) == 2 * forward + 2 * 7 * 10 * 4
    stacked = random.split(random.PRNGKey(0), 3)
    many = vmap(network.init)(stacked)
    assert count_flops(vmap(network.apply, in_axes=(0, None)), many, x) == 3 * forward


def test_flops_of_a_jitted_function_are_counted_without_compiling() -> None:
    program = jit(lambda a, b: a @ b)
    assert count_flops(program, torch.ones(2, 3), torch.ones(3, 5)) == 60
    assert program.cache_size() == 0


@pytest.mark.parametrize("settings", [SMALL, update.Settings(batch=8, rows=30)])
def test_update_executes_at_most_the_flops_of_the_algorithm(settings: update.Settings) -> None:
    work = idql.update_flops(settings)
    # the port may save the encoding of each row's diffusion step, forward and backward, and the
    # first layer's product with that encoding
    embedding = [(1, 64), (128, 256), (256, 256), (256, settings.hidden)]
    assert work.algorithm - dense_flops(settings.batch, embedding, passes=3) <= work.executed
    assert work.executed <= work.algorithm


def test_default_update_is_6_22_gflop() -> None:
    algorithm = idql.update_flops(update.Settings(rows=30)).algorithm
    assert algorithm == pytest.approx(6.22e9, rel=1e-3)


@pytest.mark.parametrize("num_envs", [1, 3])
def test_flops_per_action_do_not_grow_with_the_environments(num_envs: int) -> None:
    small = act.Settings(N=8, T=2, hidden=16, blocks=1)
    one, some = idql.act_flops(small), idql.act_flops(replace(small, num_envs=num_envs))
    assert some.algorithm == one.algorithm
    assert 0 < some.executed <= one.executed <= one.algorithm


@pytest.mark.parametrize("name", ["ensemble", "learners", "pixels", "seeds", "scan"])
def test_every_workload_counts_its_flops(name: str) -> None:
    for case in load(name).cases(Plan("quick", tiny=True)):
        assert case.flops is not None
        work: Flops = case.flops()
        assert work.executed > 1000 and work.algorithm >= work.executed


def test_limit_variants_count_their_units() -> None:
    product, copied = matmul_variant((16, 8, 4)), copy_variant(size=1 << 12)
    assert product.units == 2 * 16 * 8 * 4 * 100
    assert copied.units == 2 * 4096
    tiny = Budget(rounds=1, block_seconds=1e-4, warm_up=1)
    small = matmul_variant((512, 256, 1024))
    assert small.units == 2 * 512 * 256 * 1024
    assert all(t.rates[0] > 0 for t in interleave([small, copied], tiny))
