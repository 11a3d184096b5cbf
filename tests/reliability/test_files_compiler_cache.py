"""A damaged, full or missing cache of compiled programs, and no room for temporary files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from killed_process import write_data
from trials import AtMost, Tally

from idql_func.compiler import inductor_cache
from idql_func.compiler.inductor_cache import NOTES, checked_cache
from idql_func.files import FileWriteError, digest, torch_cache
from idql_func.files.torch_cache import ensure_cache

pytestmark = pytest.mark.reliability
NAMES = ("ab/a.main.so", "fxgraph/x/y/z", "locks/a.lock")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with a library and a saved graph that were noted, as a new process finds it."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(folder))
    monkeypatch.setattr(inductor_cache, "_checked", {})
    with checked_cache():
        for name in NAMES:
            (folder / name).parent.mkdir(parents=True)
            (folder / name).write_bytes(b"content of " + name.encode())
    inductor_cache._checked.clear()
    return folder


def test_damaged_files_are_removed_with_a_sentence(cache: Path) -> None:
    assert len((cache / NOTES).read_bytes().splitlines()) == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with checked_cache():
            pass
    inductor_cache._checked.clear()
    for name in NAMES[:2]:
        content = bytearray((cache / name).read_bytes())
        content[3] ^= 1
        (cache / name).write_bytes(content)
    match = r"held damaged files \(.*a\.main\.so.*2 in all\): they were removed"
    with pytest.warns(RuntimeWarning, match=match), checked_cache():
        assert [(cache / name).exists() for name in NAMES] == [False, False, True]
        (cache / NAMES[0]).write_bytes(b"made again")
    inductor_cache._checked.clear()
    with checked_cache():
        assert (cache / NAMES[0]).read_bytes() == b"made again"


def _line(name: str, known: str = "f" * 64) -> bytes:
    text = f"{known}  {name}"
    return f"{text}  {digest(text.encode())[:8]}\n".encode()


@pytest.mark.parametrize(
    "notes", [b"\xff\n" * 9, b"0  a\n", _line("../b"), _line("/b"), _line("a")[:-3] + b"0\n"]
)
def test_files_without_a_note_are_removed_if_the_notes_are_damaged(
    cache: Path, notes: bytes
) -> None:
    (cache.parent / "b").touch()
    whole = (cache / NOTES).read_bytes().splitlines(keepends=True)
    (cache / NOTES).write_bytes(whole[0] + notes)
    with pytest.warns(RuntimeWarning, match="held damaged files"), checked_cache():
        assert [(cache / name).exists() for name in NAMES] == [True, False, True]
    assert (cache.parent / "b").exists() and (cache / NOTES).read_bytes() == whole[0]


def test_a_file_that_a_failed_compilation_left_is_not_noted(cache: Path) -> None:
    before = (cache / NOTES).read_bytes()
    with pytest.raises(OSError, match="full"), checked_cache():
        (cache / "ab/half.so").touch()
        raise OSError("full")
    assert (cache / NOTES).read_bytes() == before


@pytest.mark.parametrize("place", ["/proc/nothing", "/dev/null/x"])
def test_a_cache_that_cannot_be_made(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", place)
    with monkeypatch.context() as patch:
        patch.setattr(torch_cache.tempfile, "tempdir", "/proc/nothing")
        with pytest.raises(FileWriteError, match=rf"torch's cache {place} cannot .*; set TORCHI"):
            ensure_cache()
    with pytest.warns(RuntimeWarning, match=rf"torch's cache {place} cannot be used"):
        ensure_cache()
    assert Path(os.environ["TORCHINDUCTOR_CACHE_DIR"]).is_dir()


@pytest.mark.slow
def test_damage_to_the_cache_never_changes_numbers(
    tmp_path: Path, at_most: AtMost, tally: Tally
) -> None:
    trials = min(40, at_most(8))
    script = Path(__file__).with_name("damaged_cache_process.py")
    done = subprocess.run(
        [sys.executable, script, tmp_path / "trials", str(trials)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        check=True,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    tally("damaged caches", "all", found["counts"])
    assert found["failures"] == []
    assert trials == found["counts"]["trials"] < 1.5 * found["counts"]["said"]


_TINY = """
import resource, sys
from pathlib import Path
folder, limit = Path(sys.argv[1]), int(sys.argv[2])
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
from idql_func.cli import main
line = "train pointmaze-bc --name run --batch-size 4 --max-steps 2 --evaluation.env none"
line += " --matmul strict --device cpu --learner.hidden-dims 4"
files = ["--dataset.source", str(folder / "data.hdf5"), "--runs-dir", str(folder)]
sys.exit(main([*line.split(), *files]))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("places", "limit"),
    [
        ({"TMPDIR": "/proc", "XDG_CACHE_HOME": "/proc"}, 0),
        ({"TORCHINDUCTOR_CACHE_DIR": "/proc/nothing", "HOME": "/proc/nothing"}, 0),
        ({}, 150_000),  # bytes of the largest file: no library can be built
    ],
)
def test_training_without_room_for_the_compiler(
    tmp_path: Path, places: dict[str, str], limit: int
) -> None:
    """Training goes on, with warnings."""
    write_data(tmp_path / "data.hdf5")
    usual = {name: str(tmp_path / name) for name in ("TORCHINDUCTOR_CACHE_DIR", "XDG_CACHE_HOME")}
    done = subprocess.run(
        [sys.executable, "-c", _TINY, tmp_path, str(limit)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **usual, **places},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Traceback" not in done.stderr and "RuntimeWarning" in done.stderr
    assert (tmp_path / "run" / "summary.json").is_file()
