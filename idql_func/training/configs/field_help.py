"""Help texts of settings, as the command line finds them: in the docstring of the class.

The text below a field in the source is its help. The command line's parser keeps the line breaks of
such texts, so :func:`field_help` puts each, on one line, into the class's docstring, where the
parser looks first.
"""

from __future__ import annotations

import ast
import functools
import inspect
import itertools
import sys
from collections.abc import Mapping
from typing import TypeVar

__all__ = ["add_attributes", "field_help"]

_Class = TypeVar("_Class", bound=type)


def field_help(cls: _Class) -> _Class:
    """Add the texts below the fields of a class to its docstring; a class decorator.

    Example:
        >>> from idql_func.training.configs.online import PixelConfig
        >>> (PixelConfig.__doc__ or "").splitlines()[3]
        '    image_size: Height and width of the images, pixels.'
    """
    body = next(
        node.body
        for node in _module(cls.__module__).body
        if isinstance(node, ast.ClassDef) and node.name == cls.__name__
    )
    texts = {
        field.target.id: " ".join(text.value.value.split())
        for field, text in itertools.pairwise(body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
        and isinstance(text.value.value, str)
    }
    add_attributes(cls, texts)
    return cls


def add_attributes(cls: type, texts: Mapping[str, str]) -> None:
    """Add a section to the docstring of a class that describes its attributes."""
    lines = "\n".join(f"    {name}: {text}" for name, text in texts.items())
    cls.__doc__ = f"{inspect.cleandoc(cls.__doc__ or '')}\n\nAttributes:\n{lines}\n"


@functools.cache
def _module(name: str) -> ast.Module:
    return ast.parse(inspect.getsource(sys.modules[name]))
