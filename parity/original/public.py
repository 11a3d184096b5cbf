"""Every public name of the original, read from its source, without importing anything.

From the modules of `jaxrl5`: functions, classes, their public methods and aliases
(``TanhNormal``). From its libraries: every ``jax.random.X`` and ``optax.X`` that its code mentions,
and the names that it uses from ``flax.training``.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = "jaxrl5"
LIBRARIES = ("jax.random", "optax")
TRAINING = "flax.training"
STEP = "apply_gradients"
_METHODS = ("__init__", "__call__", "__len__")


def module_name(path: Path, upstream: Path) -> str:
    """Dotted name of a file of the checkout.

    >>> module_name(Path("/up/jaxrl5/networks/mlp.py"), Path("/up"))
    'jaxrl5.networks.mlp'
    """
    parts = path.relative_to(upstream).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _is_public(name: str) -> bool:
    return not name.startswith("_")


def defined_names(source: str, module: str) -> dict[str, str]:
    """The names that a module defines, ``{name: "function", "class", "method" or "value"}``.

    >>> defined_names("class A:\\n  def f(self): ...\\n  def _g(self): ...\\nB = A", "m")
    {'m.A': 'class', 'm.A.f': 'method', 'm.B': 'value'}
    """
    out: dict[str, str] = {}
    for node in ast.parse(source).body:
        match node:
            case ast.FunctionDef(name=name) if _is_public(name):
                out[f"{module}.{name}"] = "function"
            case ast.ClassDef(name=name) if _is_public(name):
                out[f"{module}.{name}"] = "class"
                for part in node.body:
                    if isinstance(part, ast.FunctionDef) and (
                        _is_public(part.name) or part.name in _METHODS
                    ):
                        out[f"{module}.{name}.{part.name}"] = "method"
            case ast.Assign(targets=[ast.Name(id=name)]) if _is_public(name):
                out[f"{module}.{name}"] = "value"
    return out


def _dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        before = _dotted(node.value)
        return f"{before}.{node.attr}" if before else ""
    return node.id if isinstance(node, ast.Name) else ""


def used_names(source: str) -> dict[str, str]:
    """The names that a module uses from those libraries, ``{name: "used"}``.

    >>> used_names("import jax\\njax.random.split(k)\\nfrom flax.training import checkpoints as c")
    {'flax.training.checkpoints': 'used', 'jax.random.split': 'used'}
    """
    tree = list(ast.walk(ast.parse(source)))
    taken = {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in tree
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(TRAINING)
        for alias in node.names
    }
    found = set(taken.values())
    for node in tree:
        if isinstance(node, ast.Attribute):
            library, _, name = _dotted(node).rpartition(".")
            if library in LIBRARIES:
                found.add(f"{library}.{name}")
            elif library in taken:
                found.add(f"{taken[library]}.{name}")
            # A method of instances, whose class is not visible in the source.
            elif node.attr == STEP and "TrainState" in taken:
                found.add(f"{taken['TrainState']}.{STEP}")
    return dict.fromkeys(sorted(found), "used")


def _files(upstream: Path, pattern: str) -> Iterator[tuple[Path, str]]:
    for path in sorted(upstream.glob(pattern)):
        yield path, path.read_text()


def public_names(upstream: Path) -> dict[str, str]:
    """Every name with its kind, in the order of the files; names of libraries come last.

    Raises:
        FileNotFoundError: ``upstream`` holds no package of the original.
    """
    if not (upstream / PACKAGE).is_dir():
        raise FileNotFoundError(
            f"{upstream} holds no {PACKAGE} package: give the original's checkout"
        )
    out: dict[str, str] = {}
    for path, source in _files(upstream, f"{PACKAGE}/**/*.py"):
        out.update(defined_names(source, module_name(path, upstream)))
    used: dict[str, str] = {}
    for _, source in _files(upstream, "**/*.py"):
        used.update(used_names(source))
    return {**out, **dict(sorted(used.items()))}
