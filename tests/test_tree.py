"""Pytrees: order of leaves, structures, names, stacking."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from idql_func import (
    enable_x64,
    struct,
    tree_flatten,
    tree_leaves,
    tree_map,
    tree_stack,
    tree_unflatten,
    tree_unstack,
)
from idql_func.tree import as_tensor, tree_paths


class Pair(NamedTuple):
    first: object
    second: object


class Node(struct.PyTreeNode):
    weights: Any
    scale: Any
    name: str = struct.field(pytree_node=False)


trees = st.recursive(
    st.integers(-5, 5) | st.none(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.sampled_from("abcd"), inner, max_size=3)
        | st.builds(Pair, inner, inner)
    ),
    max_leaves=8,
)


@given(trees)
def test_unflatten_inverts_flatten(tree: object) -> None:
    leaves, treespec = tree_flatten(tree)
    assert tree_unflatten(treespec, leaves) == tree
    assert len(tree_paths(tree)) == len(leaves) == len(tree_leaves(tree))
    assert tree_leaves(tree_map(lambda x: x + 1, tree)) == [x + 1 for x in leaves]


def test_order_of_leaves_does_not_depend_on_insertion() -> None:
    assert tree_leaves({"b": 1, "a": 2}) == tree_leaves({"a": 2, "b": 1}) == [2, 1]
    # fields of dataclasses and named tuples keep their order
    assert tree_leaves(Node(weights=[1, 2], scale=3, name="n")) == [1, 2, 3]
    assert tree_leaves(Pair(first=2, second=1)) == [2, 1]


def test_paths_name_every_leaf() -> None:
    tree = Node(weights={"Dense_0": {"kernel": 1, "bias": 2}}, scale=(3, Pair(4, 5)), name="n")
    assert tree_paths(tree) == [
        "weights/Dense_0/bias",
        "weights/Dense_0/kernel",
        "scale/0",
        "scale/1/0",  # entries of a named tuple are named by position
        "scale/1/1",
    ]


def test_map_over_several_trees_needs_one_structure() -> None:
    assert tree_map(lambda a, b, c: a + b * c, (1, 2), (10, 20), (2, 3)) == (21, 62)
    with pytest.raises(ValueError):
        tree_map(lambda a, b: a + b, {"a": 1}, {"b": 1})
    # a static field is part of the structure
    with pytest.raises(ValueError):
        tree_map(lambda a, b: a + b, Node(1, 2, "one"), Node(1, 2, "two"))


def test_map_returns_new_trees() -> None:
    tree = {"a": [1, 2]}
    mapped = tree_map(lambda x: -x, tree)
    assert mapped == {"a": [-1, -2]} and tree == {"a": [1, 2]}
    assert mapped["a"] is not tree["a"]


def test_stack_and_unstack_are_inverses() -> None:
    nodes = [Node({"w": torch.full((2,), float(i))}, i / 2, "n") for i in range(3)]
    stacked = tree_stack(nodes)
    assert stacked.name == "n"
    assert stacked.weights["w"].tolist() == [[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]]
    assert stacked.scale.tolist() == [0.0, 0.5, 1.0]  # Python numbers too
    back = tree_unstack(stacked)
    assert len(back) == 3
    for node, original in zip(back, nodes, strict=True):
        assert isinstance(node, Node) and node.name == "n"
        assert torch.equal(node.weights["w"], original.weights["w"])
        assert node.scale.item() == original.scale


def test_stacked_numbers_have_the_default_dtypes() -> None:
    trees = [{"b": True, "f": 0.99, "i": 3}, {"b": False, "f": 0.5, "i": 4}]
    with enable_x64():
        wide = tree_stack(trees)
    narrow = tree_stack(trees)
    assert [x.dtype for x in wide.values()] == [torch.bool, torch.float64, torch.int64]
    assert [x.dtype for x in narrow.values()] == [torch.bool, torch.float32, torch.int32]
    assert wide["f"].tolist() == [0.99, 0.5]


def test_unstack_of_leaves_of_different_lengths_raises() -> None:
    with pytest.raises(ValueError):
        tree_unstack({"a": torch.zeros(2), "b": torch.zeros(3)})


def test_tensordict_is_read_as_a_dict() -> None:
    from tensordict import TensorDict

    td = TensorDict({"b": torch.ones(2), "a": {"c": torch.zeros(2)}}, batch_size=[2])
    assert tree_paths(td) == ["a/c", "b"]
    doubled = tree_map(lambda x: 2 * x, td)
    assert isinstance(doubled, dict) and doubled["b"].tolist() == [2.0, 2.0]


def test_as_tensor_accepts_arrays_numbers_and_tensors() -> None:
    reversed_array = np.arange(3.0)[::-1]  # torch does not support negative strides
    assert as_tensor(reversed_array).tolist() == [2.0, 1.0, 0.0]
    assert as_tensor(reversed_array).dtype == torch.float64
    assert as_tensor(np.float64(2.0), torch.float32).dtype == torch.float32
    assert as_tensor(3).item() == 3
    tensor = torch.ones(2)
    assert as_tensor(tensor) is tensor
