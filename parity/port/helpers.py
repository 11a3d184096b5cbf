"""The port's helpers."""

from __future__ import annotations

import contextlib
import io
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

import idql_func
from idql_func import debug, struct
from idql_func.compiler.inductor import without_code_generation
from parity.inputs import flatten
from parity.port.lift import Lift, Lifted

_NAMES = (
    *("dynamic_slice", "dynamic_slice_in_dim", "dynamic_index_in_dim", "dynamic_update_slice"),
    *("stop_gradient", "logsumexp"),
)


def namespace(lift: Lift) -> Lifted:
    """The functions, in the mode."""
    functions = {name: getattr(idql_func, name) for name in _NAMES}
    frozen = {"freeze": struct.freeze, "unfreeze": struct.unfreeze}
    return Lifted(types.SimpleNamespace(**functions, **frozen), lift)


class TorchHelpers:
    """The part of the port's backend for helpers."""

    def printed(
        self, transform: str, fmt: str, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> str:
        def shown(args: Any, kwargs: Any) -> Any:
            debug.print(fmt, *args, **kwargs)
            return sum((x.sum() for x in args), torch.zeros(()))

        run = {
            "eager": shown,
            "jit": idql_func.jit(shown),
            "vmap": idql_func.vmap(shown),
            "grad": idql_func.grad(shown),
        }[transform]
        eager = idql_func.disable_jit(transform != "jit")
        with contextlib.redirect_stdout(io.StringIO()) as written, eager, without_code_generation():
            run(list(args), dict(kwargs))
        return written.getvalue()

    def leaves(self, tree: Any) -> list[Any]:
        return idql_func.tree_leaves(tree)

    def eval_shape(
        self, function: Callable[..., Any], *args: Any
    ) -> dict[str, tuple[tuple[int, ...], str]]:
        found = flatten(idql_func.eval_shape(function, *args))
        return {
            path: (leaf.shape, str(leaf.dtype).removeprefix("torch."))
            for path, leaf in found.items()
        }
