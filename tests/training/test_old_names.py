"""Modules that have moved keep their old names for one version."""

from __future__ import annotations

import importlib

import pytest

MOVED = {
    "checkpoint": ("idql_func.training.runs.checkpoint", "load_checkpoint"),
    "config": ("idql_func.training.configs.offline", "TrainConfig"),
    "learners": ("idql_func.training.configs.learners", "IQLConfig"),
    "loggers": ("idql_func.training.runs.metrics", "read_metrics"),
    "presets": ("idql_func.training.configs.presets", "POINTMAZE"),
    "rundir": ("idql_func.training.runs.directory", "open_run_directory"),
}


@pytest.mark.parametrize("old", MOVED)
def test_old_module_resolves_names_and_warns(old: str) -> None:
    module, name = MOVED[old]
    with pytest.warns(DeprecationWarning, match=rf"is now {module}.{name}"):
        found = getattr(importlib.import_module(f"idql_func.training.{old}"), name)
    assert found is getattr(importlib.import_module(module), name)


def test_old_module_has_no_other_names() -> None:
    with pytest.raises(ImportError, match="nonsense"):
        from idql_func.training.checkpoint import nonsense  # noqa: F401 # type: ignore
