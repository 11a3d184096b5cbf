"""The repr of learners and training states: bounded in length and free of side effects."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_learners import OBS, STATE_LEARNERS, TINY, box, make_state_learner

from idql_func.agents import DDPMIQLLearner
from idql_func.compiler.donation import DonatedTensor
from idql_func.compiler.lazy import lazy_tree_of
from idql_func.struct import PyTreeNode, TrainState, field
from idql_func.transforms import jit

MAX_CHARACTERS = 2_500


def test_repr_of_idql_is_one_screen_and_names_its_networks() -> None:
    learner = DDPMIQLLearner.create(0, box(OBS), box(2), **TINY[DDPMIQLLearner])
    text = repr(learner)
    assert len(text) < MAX_CHARACTERS and text.count("\n") < 60
    assert text.startswith("DDPMIQLLearner(\n  rng=int64[2],\n  obs_dim=3,")
    assert "apply_fn=DDPM.apply" in text and "clip_sampler=True" in text


@pytest.mark.parametrize("name", STATE_LEARNERS)
def test_repr_of_each_learner_is_bounded(name: str) -> None:
    assert len(repr(make_state_learner(name))) < MAX_CHARACTERS


def test_repr_of_a_state_counts_its_parameters() -> None:
    state = TrainState.create(params={"w": torch.zeros(3, 4), "b": torch.zeros(4)})
    assert "params=<2 tensors, 16 numbers, float32, cpu>" in repr(state)
    assert "step=int32[]" in repr(state)


def test_repr_marks_donated_tensors() -> None:
    weights = torch.zeros(3)
    state = TrainState.create(params={"w": weights})
    weights.__class__ = DonatedTensor
    assert "params=<donated>" in repr(state)


class _Pair(PyTreeNode):
    tree: dict[str, Any]
    name: str = field(pytree_node=False)


def test_repr_leaves_the_result_of_a_jitted_call_lazy() -> None:
    step = jit(lambda pair: pair.replace(tree={"w": pair.tree["w"] + 1}), donate_argnums=0)
    pair = step(_Pair({"w": torch.zeros(2)}, "a"))
    lazy = lazy_tree_of(pair)
    text = repr(pair)
    assert text == "_Pair(tree=float32[2], name='a')"
    assert lazy_tree_of(pair) is lazy
    step(pair)
    assert repr(pair) == "_Pair(tree=<donated>, name='a')"
