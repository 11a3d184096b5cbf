"""Frozen pytree dataclasses and the training state."""

from __future__ import annotations

import dataclasses

import optree
import pytest
import torch

from idql_func import optim, struct, tree_leaves, tree_map
from idql_func.struct import TrainState


class Point(struct.PyTreeNode):
    x: object
    y: object = 2.0
    name: str = struct.field(pytree_node=False, default="p")


class Named(Point):
    """A subclass that adds fields."""

    z: object = 3.0


def test_only_child_fields_are_leaves() -> None:
    point = Point(1.0, name="q")
    assert (point.x, point.y, point.name) == (1.0, 2.0, "q")
    assert tree_leaves(point) == [1.0, 2.0]
    assert tree_leaves(Named(1.0)) == [1.0, 2.0, 3.0]
    scaled = tree_map(lambda leaf: leaf * 10, Named(1.0, name="q"))
    assert type(scaled) is Named and (scaled.x, scaled.z, scaled.name) == (10.0, 30.0, "q")


def test_classes_are_registered_in_the_namespace_of_the_library() -> None:
    point = Point(1.0)
    assert optree.tree_leaves(point, namespace="idql_func") == [1.0, 2.0]  # type: ignore[arg-type]
    assert optree.tree_leaves(point) == [point]  # type: ignore[arg-type]


def test_assignment_to_a_field_raises() -> None:
    point = Point(1.0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        point.x = 5.0  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        del point.name  # type: ignore[misc]
    assert point.x == 1.0


def test_replace_returns_a_new_node() -> None:
    point = Point(1.0)
    other = point.replace(x=7.0, name="r")
    assert (other.x, other.y, other.name) == (7.0, 2.0, "r")
    assert (point.x, point.name) == (1.0, "p")


def test_replace_of_an_unknown_field_names_the_known_ones() -> None:
    with pytest.raises(TypeError, match=r"Point.replace: there is no field 'w'.*name, x, y"):
        Point(1.0).replace(w=2.0)


def test_create_with_an_unknown_field_raises() -> None:
    with pytest.raises(TypeError, match="'w'"):
        Point(1.0, w=2.0)  # type: ignore[call-arg]


def test_trees_with_different_static_values_do_not_map_together() -> None:
    with pytest.raises(ValueError):
        tree_map(lambda a, b: a + b, Point(1.0), Point(1.0, name="other"))


# --- TrainState -----------------------------------------------------------------------------


def test_train_state_is_created_and_updated() -> None:
    params = {"w": torch.tensor([1.0, 2.0])}
    state = TrainState.create(params=params, tx=optim.adam(0.5), apply_fn=len)
    assert state.step.item() == 0 and state.step.dtype == torch.int32
    assert state.opt_state[0].mu["w"].tolist() == [0.0, 0.0]
    stepped = state.apply_gradients(grads={"w": torch.tensor([3.0, -0.1])})
    # Adam's first step is minus the learning rate times the sign of the gradient, up to
    # the rounding of 1 - 0.999 in float32
    assert stepped.params["w"].tolist() == pytest.approx([0.5, 2.5], abs=1e-5)
    assert stepped.step.item() == 1 and stepped.opt_state[0].count.item() == 1
    assert stepped.apply_fn is len and stepped.tx == optim.adam(0.5)
    # the old state is unchanged
    assert state.step.item() == 0 and params["w"].tolist() == [1.0, 2.0]
    assert state.opt_state[0].mu["w"].tolist() == [0.0, 0.0]


def test_gradients_of_a_target_network_raise() -> None:
    target = TrainState.create(params={"w": torch.ones(1)})
    assert target.opt_state == () and target.tx is None
    with pytest.raises(ValueError, match="target network"):
        target.apply_gradients(grads={"w": torch.ones(1)})


def test_leaves_of_a_train_state_are_its_tensors() -> None:
    state = TrainState.create(params={"w": torch.ones(3)}, tx=optim.adam(0.1))
    shapes = [tuple(leaf.shape) for leaf in tree_leaves(state)]
    assert shapes == [(), (3,), (), (3,), (3,)]  # step, params, count, mu, nu
