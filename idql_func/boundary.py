"""One sentence for arguments that a public function can't take.

A function with :func:`explained` runs as it is. Only when torch, NumPy or Python has raised an
error inside it, the arguments are compared with the function's annotations, and the error becomes
one sentence that names the argument. Errors that the library raises itself, and those of the
caller's own functions, pass unchanged; the original error is the cause of the new one.
"""

from __future__ import annotations

import dis
import functools
import importlib.util
import inspect
import re
import sys
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import isnan
from numbers import Integral, Real
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from idql_func.compiler.trace import inside_transform
from idql_func.tree import NUMPY, tree_iter
from idql_func.types import InputError

__all__ = [
    "describe",
    "explain_classes",
    "explain_module",
    "explained",
    "explained_methods",
    "misfit",
]

F = TypeVar("F", bound=Callable[..., Any])
C = TypeVar("C", bound=type)

_PACKAGE = str(Path(__file__).parent)


@functools.cache
def _libraries() -> tuple[str, ...]:
    """The folders of the libraries that may fail because of an argument."""
    return tuple(_folders())


def _folders() -> Iterator[str]:
    yield _PACKAGE
    yield str(Path(dis.__file__).parent)  # the standard library
    names = ("torch", "numpy", "optree", "gymnasium", "h5py", "safetensors", "tensordict", "PIL")
    for name in (*names, "imageio", "mujoco", "orbax", "jax", "gymnasium_robotics"):
        spec = importlib.util.find_spec(name)
        yield from (spec.submodule_search_locations or ()) if spec is not None else ()


_RAISE = dis.opmap["RAISE_VARARGS"]
_LONGEST = 60  # characters of a described value
_MOST_SHOWN = 5  # arguments in a sentence


def explained(fn: F, name: str | None = None, strict: bool = True) -> F:
    """Let a function raise one sentence where its arguments do not fit.

    The sentence is an :class:`InputError`, or a TypeError if the type of an argument is wrong.
    Under a transform of the library or of torch, errors pass unchanged. ``name`` is that of the
    function in the sentence, by default its own. With ``strict`` the types of numbers, texts and
    functions are checked before the function runs: it might take a wrong one silently.

    >>> @explained
    ... def halved(diff: Tensor) -> Tensor:
    ...     return diff.mul(0.5)
    >>> halved("high")
    Traceback (most recent call last):
    ...
    TypeError: halved: diff must be a tensor, got 'high'.
    """

    traced, sentence_for, check = torch.compiler.is_dynamo_compiling, _sentence, _check_types
    checks = _checked_first(fn) if strict else ()

    def called(*args: Any, **kwargs: Any) -> Any:
        if traced():
            return fn(*args, **kwargs)
        if checks:
            check(checks, fn, name, args, kwargs)
        try:
            return fn(*args, **kwargs)
        except Exception as error:
            sentence = sentence_for(fn, name, args, kwargs, error)
            if sentence is None:
                raise
            raise sentence from error

    # with the globals of the function's module: doctest finds the examples by them
    code, closure = called.__code__, called.__closure__
    here: Any = types.FunctionType(code, fn.__globals__, fn.__name__, None, closure)
    functools.update_wrapper(here, fn)
    return here


def explain_module(name: str, strict: bool = True) -> None:
    """Apply :func:`explained` to the public functions of a module, at the end of the module.

    >>> from idql_func import losses
    >>> losses.asymmetry(torch.ones(2), torch.ones(3))
    Traceback (most recent call last):
    ...
    idql_func.errors.InputError: asymmetry: the shapes do not fit together; got diff float32 \
(2,), level float32 (3,).
    """
    module = vars(sys.modules[name])
    for key, value in [*module.items()]:
        own = isinstance(value, types.FunctionType) and value.__module__ == name
        if own and not key.startswith("_"):
            module[key] = explained(value, strict=strict)


def explained_methods(*names: str, strict: bool = True) -> Callable[[C], C]:
    """Apply :func:`explained` to methods of a class, inherited ones included.

    >>> @explained_methods("half")
    ... class Number:
    ...     def half(self, x: Tensor) -> Tensor:
    ...         return x.mul(0.5)
    >>> Number().half(None)
    Traceback (most recent call last):
    ...
    TypeError: Number.half: x must be a tensor, got None.
    """

    def decorate(cls: C) -> C:
        for name in names:
            method = inspect.getattr_static(cls, name, None)
            if method is None:
                continue
            kind = type(method) if isinstance(method, classmethod | staticmethod) else None
            shown = cls.__qualname__ if name.startswith("__") else f"{cls.__qualname__}.{name}"
            plain: Any = method if kind is None else method.__func__
            wrapped = explained(plain, shown, strict)
            setattr(cls, name, wrapped if kind is None else kind(wrapped))
        return cls

    return decorate


def explain_classes(*classes: type, strict: bool = True) -> None:
    """Apply :func:`explained` to the public methods that each class defines, and to ``__init__``.

    >>> class Number:
    ...     def half(self, x: Tensor) -> Tensor:
    ...         return x.mul(0.5)
    >>> explain_classes(Number)
    >>> Number().half(None)
    Traceback (most recent call last):
    ...
    TypeError: Number.half: x must be a tensor, got None.
    """
    for cls in classes:
        for name, value in [*vars(cls).items()]:
            method = getattr(value, "__func__", value)
            wanted = isinstance(method, types.FunctionType) and not _is_explained(method)
            if wanted and (name == "__init__" or not name.startswith("_")):
                explained_methods(name, strict=strict)(cls)


def _is_explained(method: Any) -> bool:
    return method.__code__.co_filename == __file__


_QUICK: dict[str, frozenset[type]] = {
    "None": frozenset({type(None)}),
    "int": frozenset({int}),
    "float": frozenset({int, float}),
    "bool": frozenset({bool}),
    "str": frozenset({str}),
    "Shape": frozenset({tuple, list, int, torch.Size}),
    "Sequence[int]": frozenset(),
    "tuple[int, int]": frozenset(),
    "tuple[int, ...]": frozenset({tuple}),
    "torch.dtype": frozenset({torch.dtype}),
    "Schedule": frozenset(),
    "optim.Schedule": frozenset(),
    "Callable": frozenset({types.FunctionType}),
    "GradientTransformation": frozenset(),
    "Tensor": frozenset(),
    "Number": frozenset({int, float}),
}
"""The annotations that are checked before a call, and types that fit without a further check.
What may be a tensor is not checked: the function converts arrays and numbers of any kind, as JAX
does, and can't take anything else."""

_Check = tuple[str, int, frozenset[type], str]


def _checked_first(fn: Callable[..., Any]) -> tuple[_Check, ...]:
    """The arguments to check before a call: name, place, types that fit, annotation."""
    code = fn.__code__
    count = code.co_argcount
    names = code.co_varnames[: count + code.co_kwonlyargcount]
    checks = []
    for place, argument in enumerate(names):
        annotation = str(fn.__annotations__.get(argument, "Any"))
        parts = {
            part.partition("[")[0] if part.startswith("Callable[") else part
            for part in annotation.split(" | ")
        }
        arrays = not parts.isdisjoint({"Tensor", "Number"}) and "Schedule" not in parts
        if arrays or not parts <= _QUICK.keys():
            continue
        quick = frozenset[type]().union(*(_QUICK[part] for part in parts))
        # an argument by keyword only has no place
        checks.append((argument, place if place < count else sys.maxsize, quick, annotation))
    return tuple(checks)


_TRACED_NUMBERS = (Tensor, torch.SymInt, torch.SymFloat, torch.SymBool)


def _check_types(
    checks: tuple[_Check, ...],
    fn: Callable[..., Any],
    name: str | None,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> None:
    """Check the arguments whose annotations name numbers, texts and functions alone.

    Raises:
        TypeError: one is of another type.
        InputError: one is NaN.
    """
    given = len(args)
    for argument, place, quick, annotation in checks:
        if place < given:
            value = args[place]
        elif argument in kwargs:
            value = kwargs[argument]
        else:
            continue
        if type(value) in quick:
            if type(value) is not float or not isnan(value):
                continue
            raise InputError(f"{name or fn.__qualname__}: {argument} must be a number, got NaN.")
        if _is_scalar(value) or (isinstance(value, _TRACED_NUMBERS) and inside_transform()):
            continue  # a tensor may stand for a number, eagerly as in a jitted function
        words = misfit(value, annotation)
        if words is not None:
            raise TypeError(
                f"{name or fn.__qualname__}: {argument} must be {words}, got {describe(value)}."
            )


# --- which errors -------------------------------------------------------------------------


def _sentence(
    fn: Callable[..., Any],
    name: str | None,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    error: Exception,
) -> Exception | None:
    """The error to raise instead, or None where the original one must pass."""
    trace = error.__traceback__
    steps = [*_steps(None if trace is None else trace.tb_next)]  # without the wrapper's own
    if not steps or inside_transform():
        return None
    # compiled code has relative names
    files = [file for file in map(_file, steps) if file.startswith("/")]
    if not all(file.startswith(_libraries()) for file in files):
        return None  # the caller's own code
    own = _is_raised_here(steps[-1]) and not isinstance(error, AssertionError)
    text = str(error)
    if own and not re.search(r"\n| at 0x", text):
        return None
    if isinstance(error, OSError | ImportError | Warning):
        return None
    public = isinstance(error, TypeError) and not text.startswith("_")
    if public and re.search(r"unexpected keyword|positional arg", text):
        return None  # a function of the caller has other arguments
    name = name or fn.__qualname__.replace("<locals>.", "")
    try:
        given = dict(inspect.signature(fn).bind(*args, **kwargs).arguments)
    except TypeError:
        return None
    given = {k: v for k, v in given.items() if k not in ("self", "cls")}
    for argument, value in given.items():
        words = misfit(value, fn.__annotations__.get(argument, "Any"))
        if words is not None:
            return TypeError(f"{name}: {argument} must be {words}, got {describe(value)}.")
        for path, leaf in _strange_leaves(value):
            return InputError(f"{name}: {argument}{path} must be {_DENSE}, got {describe(leaf)}.")
    if own:  # the library's own sentence, without an array's values or an object's address in it
        for value in given.values():
            if isinstance(value, Tensor | np.ndarray):
                for shown in (repr(value), str(value)):
                    text = text.replace(shown, describe(value))
        kind = TypeError if isinstance(error, TypeError) else InputError
        return kind(re.sub(r" at 0x\w+|\s*\n\s*", " ", text).replace(" >", ">"))
    shown = ", ".join(f"{k} {describe(v)}" for k, v in [*given.items()][:_MOST_SHOWN])
    shown += ", ..." if len(given) > _MOST_SHOWN else ""
    return InputError(f"{name}: {_reason(error)}; got {shown or 'no argument'}.")


def _steps(trace: TracebackType | None) -> Iterator[TracebackType]:
    while trace is not None:
        yield trace
        trace = trace.tb_next


def _file(step: TracebackType) -> str:
    return step.tb_frame.f_code.co_filename


def _is_raised_here(step: TracebackType) -> bool:
    """Whether a statement ``raise`` of the library raised the error."""
    code = step.tb_frame.f_code
    return code.co_filename.startswith(_PACKAGE) and code.co_code[step.tb_lasti] == _RAISE


_REASONS = (
    (r"allocat|out of memory|Storage size|numel|too large|overflow", "they need too much memory"),
    (r"[Ss]parse|layout", "a sparse tensor is not supported"),
    (r"meta", "a tensor on the meta device has no values"),
    (r"[Cc]omplex", "complex numbers are not supported"),
    (r"dtype|scalar type|ScalarType", "the dtypes do not fit together"),
    (r"device", "the tensors are on different devices"),
    (r"size|shape|dim|axis|index|broadcast|unbind|expand|empty", "the shapes do not fit together"),
)


def _reason(error: Exception) -> str:
    text = str(error)
    if isinstance(error, MemoryError):
        return _REASONS[0][1]
    keys = re.search(r"(Missing|Unexpected) key\(s\): (.+?)\.?$", text, re.MULTILINE)
    if keys is not None:
        lack = "lack" if keys[1] == "Missing" else "have the unknown"
        return f"the parameters {lack} {keys[2]}"
    return next((why for words, why in _REASONS if re.search(words, text)), "the values do not fit")


# --- which argument -----------------------------------------------------------------------


def _is_real_tensor(value: Any) -> bool:
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and not (value.is_complex() or value.is_quantized)
        and not (value.is_meta and not inside_transform())
    )


_DENSE = "a dense tensor of real numbers with values"


def _strange_leaves(value: Any) -> Iterator[tuple[str, Any]]:
    """The tensors in a dict that are not such tensors."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            if isinstance(part, Tensor) and not _is_real_tensor(part):
                yield f"[{key!r}]", part
            for path, leaf in _strange_leaves(part):
                yield f"[{key!r}]{path}", leaf


def _is_scalar(value: Any) -> bool:
    """Whether a value is a tensor or an array that is one number."""
    if isinstance(value, np.ndarray):
        return value.ndim == 0 and value.dtype.kind in "iuf"
    return _is_real_tensor(value) and value.ndim == 0 and value.dtype != torch.bool


def _is_key(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dtype == torch.int64 and value.shape[-1:] == (2,)


def _is_shape(value: Any) -> bool:
    several = isinstance(value, Sequence) and not isinstance(value, str | bytes)
    sizes = value if several else (value,)
    return all(isinstance(n, Integral) and not isinstance(n, bool) and int(n) >= 0 for n in sizes)


def _is_tree_of_tensors(value: Any) -> bool:
    return isinstance(value, Mapping) and all(map(_is_real_tensor, tree_iter(value)))


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool | np.bool_ | int) and value in (0, 1)


def _is_integer(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


_KINDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "None": (lambda value: value is None, "None"),
    "Tensor": (_is_real_tensor, "a tensor"),
    "Key": (_is_key, "a key such as random.PRNGKey(0)"),
    "PRNGKey": (_is_key, "a key such as random.PRNGKey(0)"),
    "Shape": (_is_shape, "an integer or a sequence of integers of 0 or more"),
    "Params": (_is_tree_of_tensors, "a nested dict of tensors"),
    "Batch": (lambda value: hasattr(value, "keys"), "a dict of tensors"),
    "bool": (_is_flag, "True or False"),
    "int": (
        lambda value: isinstance(value, Integral) and not isinstance(value, bool),
        "an integer",
    ),
    "float": (_is_number, "a number"),
    "Number": (lambda value: _is_number(value) or _is_real_tensor(value), "a number or a tensor"),
    "str": (lambda value: isinstance(value, str), "a text"),
    "Sequence[int]": (
        lambda value: _is_shape(value) and isinstance(value, Sequence),
        "a sequence of integers of 0 or more",
    ),
    "tuple[int, ...]": (
        lambda value: _is_shape(value) and isinstance(value, Sequence),
        "a tuple of integers of 0 or more",
    ),
    "tuple[int, int]": (
        lambda value: _is_shape(value) and isinstance(value, Sequence) and len(value) == 2,
        "a tuple of two integers of 0 or more",
    ),
    "GradientTransformation": (
        lambda value: (
            callable(getattr(value, "init", None))
            and not isinstance(value, type)
            and callable(getattr(value, "update", None))
        ),
        "an optimiser such as optim.adam(0.1)",
    ),
    "torch.dtype": (lambda value: isinstance(value, torch.dtype), "a dtype of torch"),
    "np.ndarray": (lambda value: isinstance(value, np.ndarray), "an array"),
    "Schedule": (callable, "a schedule"),
    "optim.Schedule": (callable, "a schedule"),
}
"""For each annotation the test of a value and the words for what would be right."""


def misfit(value: Any, annotation: str) -> str | None:
    """What an annotated argument must be, if the value is something else.

    >>> misfit(1.5, "int | None"), misfit(3, "int | None")
    ('an integer or None', None)
    """
    wanted: list[str] = []
    for part in str(annotation).split(" | "):
        if part.startswith("Callable"):
            test, words = callable, "a function"
        elif part in _KINDS:
            test, words = _KINDS[part]
        elif value is None and part in ("Any", "PyTree"):
            return None
        elif isinstance(value, Tensor) and not _is_real_tensor(value):
            test, words = _is_real_tensor, _DENSE
        else:
            return None
        if test(value):
            return None
        wanted.append(words)
    return " or ".join(dict.fromkeys(wanted))


def describe(value: Any) -> str:
    """A value in a few words: a tensor by dtype and shape, anything long by its type.

    >>> describe(torch.zeros(2, 3)), describe(1.5), describe({"a": 1})
    ('float32 (2, 3)', '1.5', 'a dict')
    """
    if isinstance(value, Tensor):
        words = [str(value.dtype).removeprefix("torch."), str(tuple(value.shape))]
        if value.layout != torch.strided:
            words.insert(0, "sparse")
        if value.is_meta:
            words.append("on the meta device")
        return " ".join(words)
    if isinstance(value, NUMPY) and value.shape:
        return f"an array of {value.dtype} {value.shape}"
    kind = type(value).__name__
    if isinstance(value, tuple) and 0 < len(value) <= 3:
        return f"({', '.join(map(describe, value))})"
    if isinstance(value, dict | list | tuple | set) and value:
        return f"a {kind}"
    if isinstance(value, str | bytes | int | float | None | dict | list | tuple | set):
        text = repr(value)
        if len(text) <= _LONGEST:
            return text
    return f"{'an' if kind[0] in 'AEIOUaeiou' else 'a'} {kind}"
