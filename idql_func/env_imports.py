"""Which names of environments may import a module: those that the user has typed.

Gymnasium imports ``module`` for a name of the form ``module:Env-v0``, which runs the module's code.
A name that comes from a checkpoint, a dataset or a run's settings must not do that.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from idql_func.errors import InputError

__all__ = ["allow_env_imports", "check_env_name", "names_that_import"]

_ALLOWED: ContextVar[frozenset[str] | None] = ContextVar("idql_func_env_imports", default=None)
_ALL = frozenset({":"})
_IMPORTING = re.compile(r"[A-Za-z_][\w.]*:[\w./-]+")


@contextmanager
def allow_env_imports(names: Iterable[str] | None = None) -> Iterator[None]:
    """Within the block, training and evaluation may import modules for these names; None: any.

    >>> with allow_env_imports(["my_package:Maze-v0"]):
    ...     check_env_name("my_package:Maze-v0")
    'my_package:Maze-v0'
    """
    try:
        allowed = _ALL if names is None else frozenset(map(_checked, names))
    except TypeError:
        kind = type(names).__name__
        raise InputError(f"allow_env_imports: names must be names or None, got {kind}.") from None
    token = _ALLOWED.set(allowed)
    try:
        yield
    finally:
        _ALLOWED.reset(token)


def _checked(name: Any) -> str:
    if not isinstance(name, str):
        raise TypeError("a name is no text")
    return name


def check_env_name(name: str) -> str:
    """Return a name that may come from a file, if no module would be imported for it.

    Raises:
        InputError: if one would be, and :func:`allow_env_imports` does not allow it.

    >>> check_env_name("Pendulum-v1")
    'Pendulum-v1'
    >>> check_env_name("my_package:Maze-v0")
    Traceback (most recent call last):
    ...
    idql_func.errors.InputError: The environment 'my_package:Maze-v0' would import the Python \
module 'my_package', and a name from a file must not run code; name it with --env or \
--evaluation.env yourself, or allow it with --allow-env-imports (in Python: \
idql_func.envs.allow_env_imports).
    """
    module, colon, _ = name.partition(":")
    allowed = _ALLOWED.get()
    if colon and allowed is not _ALL and name not in (allowed or ()):
        raise InputError(
            f"The environment {name!r} would import the Python module {module!r}, and a name from "
            "a file must not run code; name it with --env or --evaluation.env yourself, or allow "
            "it with --allow-env-imports (in Python: idql_func.envs.allow_env_imports)."
        )
    return name


def names_that_import(words: Iterable[str]) -> list[str]:
    """The names of the form ``module:Env-v0`` among the words of a command line.

    >>> names_that_import(["train", "--evaluation.env=a.b:Env-v0", "--grid", "env=c:X-v1,d:Y-v0"])
    ['a.b:Env-v0', 'c:X-v1', 'd:Y-v0']
    """
    parts = [part for word in words for part in re.split(r"[=,\s]", word)]
    return [part for part in parts if _IMPORTING.fullmatch(part)]
