"""Read the keywords of a learner's ``create`` without importing the learner.

``create`` is the one place where a keyword's name, type and default stand. Importing the learners
imports torch, which takes seconds; reading their source text takes milliseconds, so ``idql --help``
answers at once.
"""

from __future__ import annotations

import ast
import functools
import operator
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["Keyword", "create_keywords"]

_AGENTS = Path(__file__).parents[2] / "agents"

_TYPES: dict[str, Any] = {
    "bool": bool,
    "float": float,
    "int": int,
    "str": str,
    "None": None,
    "Padding": str,
    "Sequence[int]": tuple[int, ...],
    "Sequence[str]": tuple[str, ...],
}
"""The annotations that occur in ``create``, as the types of settings."""

_NOT_SETTINGS = ("optim.Schedule",)
"""Annotations of values that cannot be written in a file or on a command line."""


class Keyword(NamedTuple):
    """The type and the default of one keyword."""

    type: Any
    default: Any


def create_keywords(file: str, class_name: str) -> dict[str, Keyword]:
    """Return the keyword-only parameters of ``class_name.create``, in a file of the agents.

    Raises:
        LookupError: the file has no such class, or a keyword has a type that no setting has.

    Example:
        >>> create_keywords("td3.py", "TD3Learner")["actor_delay"]
        Keyword(type=<class 'int'>, default=2)
    """
    source = (_AGENTS / file).read_text(encoding="utf-8")
    arguments = _find(_find(ast.parse(source), class_name), "create").args
    return {
        # `eval`, not `ast.literal_eval`, since some defaults are written `int(3e6)`
        argument.arg: Keyword(_type_of(argument), eval(ast.unparse(default), {"int": int}))
        for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
        if default is not None
    }


def _find(parent: Any, name: str) -> Any:
    """The class or function ``name`` in the body of a module or class."""
    for node in parent.body:
        if getattr(node, "name", None) == name:
            return node
    raise LookupError(f"there is no {name} in {getattr(parent, 'name', 'the file')}")


def _type_of(argument: ast.arg) -> Any:
    assert argument.annotation is not None
    names = ast.unparse(argument.annotation).split(" | ")
    unknown = [name for name in names if name not in _TYPES and name not in _NOT_SETTINGS]
    if unknown:
        raise LookupError(f"the keyword {argument.arg} has the type {unknown[0]}: add it to _TYPES")
    types = [_TYPES[name] for name in names if name in _TYPES]
    return functools.reduce(operator.or_, types)
