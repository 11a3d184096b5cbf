"""Old names keep working for one version, with a warning that gives the new name."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

import idql_func
from idql_func.deprecation import table_of_moved_names

PACKAGE = Path(idql_func.__file__ or "").parent
MOVED = [
    (module, old, new)
    for module, names in table_of_moved_names().items()
    for old, new in names.items()
    if old != "*"
]


@pytest.mark.parametrize(("module", "old", "new"), MOVED)
def test_old_name_gives_the_new_object_and_warns(module: str, old: str, new: str) -> None:
    place, _, name = new.partition(":")
    with pytest.warns(DeprecationWarning, match=rf"{module}\.{old} is now {place}\.{name};"):
        found = getattr(importlib.import_module(module), old)
    assert found is getattr(importlib.import_module(place), name)


def test_every_module_with_old_names_is_in_the_table() -> None:
    files = [p for p in PACKAGE.rglob("*.py") if "= moved_names(__name__)\n" in p.read_text()]
    modules = {
        ".".join(("idql_func", *p.relative_to(PACKAGE).with_suffix("").parts)) for p in files
    }
    assert modules == {*table_of_moved_names()}
