"""Some groups can be recorded again; the others are kept if they have the same origin."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from parity.recording import kept
from parity.store import RecordError, read_manifest, write_manifest

ORIGIN: dict[str, Any] = {
    "upstream": {"commit": "7582571"},
    "versions": {"jax": "0.4.13"},
    "platform": {"device": "cpu"},
    "settings": {},
    "inputs": {"sha256": "1"},
}


def _record(folder: Path) -> None:
    groups = ("one", "two")
    cases = [{"group": group, "name": "a", "program": "p", "settings": {}} for group in groups]
    files = {group: {"file": f"{group}.safetensors", "sha256": "0"} for group in groups}
    write_manifest(folder, {**ORIGIN, "files": files, "cases": cases})


def test_other_groups_are_kept(tmp_path: Path) -> None:
    _record(tmp_path)
    found = kept(tmp_path, ORIGIN, ["two", "three"])
    assert list(found["files"]) == ["one"]
    assert [case["group"] for case in found["cases"]] == ["one"]


def test_new_folder_keeps_no_groups(tmp_path: Path) -> None:
    assert kept(tmp_path, ORIGIN, ["two"]) == {"files": {}, "cases": []}


@pytest.mark.parametrize("part", list(ORIGIN))
def test_records_with_different_settings_are_not_mixed(tmp_path: Path, part: str) -> None:
    _record(tmp_path)
    other = {**ORIGIN, part: json.loads('{"other": 1}')}
    with pytest.raises(ValueError, match=f"made with other {part}: record all groups again"):
        kept(tmp_path, other, ["two"])


def test_other_manifest_raises(tmp_path) -> None:
    (tmp_path / "manifest.json").write_text('{"upstream": {}, "files": {}, "cases": []}')
    with pytest.raises(RecordError, match="is not the manifest of a record: it lacks 'inputs'"):
        read_manifest(tmp_path)
