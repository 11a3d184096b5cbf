"""Bugs of the helpers: slices, sums of exponentials, printed lines, frozen dicts, shapes."""

from __future__ import annotations

from parity.mutations.mutation import Mutation

HELPERS = (
    Mutation(
        "slice-past-the-end",
        "a slice that would pass the end begins at 0; in JAX it ends there",
        "slices.py",
        "return torch.where(start < 0, start + length, start).clamp(0, length - size)",
        "return torch.where(start < 0, start + length, start) % (length - size + 1)",
    ),
    Mutation(
        "slice-negative-is-zero",
        "a negative start counts as 0; in JAX it counts from the end",
        "slices.py",
        "return torch.where(start < 0, start + length, start).clamp(0, length - size)",
        "return start.clamp(0, length - size)",
    ),
    Mutation(
        "update-beside",
        "an update also covers the entry after its end",
        "slices.py",
        "inside = ((place >= 0) & (place < size)).reshape(shape)",
        "inside = ((place >= 0) & (place <= size)).reshape(shape)",
    ),
    Mutation(
        "stop-gradient-copies",
        "stop_gradient copies the tensors and stops nothing",
        "slices.py",
        "lambda leaf: leaf.detach() if isinstance(leaf, Tensor) else leaf",
        "lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf",
    ),
    Mutation(
        "logsumexp-not-shifted",
        "exponentials are summed as they are, and large ones overflow",
        "slices.py",
        "top = torch.where(top.isfinite(), top, 0.0)",
        "top = torch.zeros_like(top)",
    ),
    Mutation(
        "logsumexp-infinite-top",
        "the largest entry is subtracted also where it is infinite",
        "slices.py",
        "top = torch.where(top.isfinite(), top, 0.0)",
        "top = top * 1.0",
    ),
    Mutation(
        "frozen-keys-as-given",
        "a frozen dict's leaves come in the order in which they were given",
        "frozen_dict.py",
        "keys = tuple(sorted(tree._dict))",
        "keys = tuple(tree._dict)",
    ),
    Mutation(
        "print-last-member-first",
        "debug.print under vmap goes through the members from the last one",
        "debug.py",
        "for i in range(info.batch_size):",
        "for i in reversed(range(info.batch_size)):",
    ),
    Mutation(
        "shapes-of-float64",
        "eval_shape takes numbers and drawn floats for double precision",
        "shapes.py",
        "found = [ShapeDtypeStruct(x.shape, x.dtype) for x in shapes if x is not None]",
        "found = [ShapeDtypeStruct(x.shape, torch.float64 if x.dtype == torch.float32 else x.dtype)"
        " for x in shapes if x is not None]",
    ),
)
