"""The helpers of JAX and Flax. Imports no torch."""
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

from __future__ import annotations

import contextlib
import io
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from parity.inputs import flatten


def namespace() -> types.SimpleNamespace:
    """The functions by the port's names."""
    import jax
    from flax import core
    from jax.scipy.special import logsumexp

    names = ("dynamic_slice", "dynamic_slice_in_dim", "dynamic_index_in_dim")
    functions = {name: getattr(jax.lax, name) for name in (*names, "dynamic_update_slice")}
    return types.SimpleNamespace(
        **functions,
        stop_gradient=jax.lax.stop_gradient,
        logsumexp=logsumexp,
        freeze=core.freeze,
        unfreeze=core.unfreeze,
    )


class JaxHelpers:
    """The part of the original's backend for helpers."""

    def printed(
        self, transform: str, fmt: str, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> str:
        import jax

        def shown(args: Any, kwargs: Any) -> Any:
            # under vmap JAX has no ordered form; there it prints member by member
            jax.debug.print(fmt, *args, ordered=transform == "jit", **kwargs)
            return sum(x.sum() for x in args)

        run = {
            "eager": shown,
            "jit": jax.jit(shown),
            "vmap": jax.vmap(shown),
            "grad": jax.grad(shown),
        }[transform]
        with contextlib.redirect_stdout(io.StringIO()) as written:
            jax.block_until_ready(run(list(args), dict(kwargs)))
            jax.effects_barrier()
        return written.getvalue()

    def leaves(self, tree: Any) -> list[Any]:
        import jax

        return jax.tree_util.tree_leaves(tree)

    def eval_shape(
        self, function: Callable[..., Any], *args: Any
    ) -> dict[str, tuple[tuple[int, ...], str]]:
        import jax

        found = flatten(jax.eval_shape(function, *args))
        return {path: (leaf.shape, leaf.dtype.name) for path, leaf in found.items()}
