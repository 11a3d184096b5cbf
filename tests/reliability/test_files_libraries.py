"""Built C libraries: damage is found before they are loaded, and only the user's own are loaded."""

from __future__ import annotations

import os
import random
import stat
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from idql_func.kernels import library_cache
from idql_func.kernels.build import c_compiler, library

pytestmark = [
    pytest.mark.reliability,
    pytest.mark.skipif(c_compiler() is None, reason="needs a C compiler"),
]


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A C file whose function returns 41, an empty cache and an empty TMPDIR."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(library_cache.tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    library_cache._warn.cache_clear()
    (tmp_path / "number.c").write_text("int number(void) { return 41; }\n")
    return tmp_path


def _built(source: Path) -> Path:
    library.cache_clear()
    assert library("number", folder=source) is not None
    return next(source.glob("cache/idql_func/*.so"))


def _number_in_new_process(source: Path) -> int:
    """The function's result in a process that has not mapped the library."""
    script = (
        "import sys; from pathlib import Path; from idql_func.kernels.build import library\n"
        "print(library('number', folder=Path(sys.argv[1])).number())"
    )
    run = subprocess.run(
        [sys.executable, "-c", script, str(source)], capture_output=True, text=True, check=True
    )
    return int(run.stdout)


def test_damaged_library_is_rebuilt(source: Path) -> None:
    built = _built(source)
    whole = built.read_bytes()
    draws = random.Random(0)
    places = [0, 1, 8, 16, 64, len(whole) // 2, len(whole) - 70, len(whole) - 1]
    places += [draws.randrange(len(whole)) for _ in range(300)]
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << draws.randrange(8)
        built.write_bytes(damaged)
        assert not library_cache._is_whole(built), place
    for cut in (0, 10, len(whole) // 2, len(whole) - 1):
        built.write_bytes(whole[:cut])
        assert not library_cache._is_whole(built), cut
    assert _number_in_new_process(source) == 41
    assert library_cache._is_whole(built)
    assert [path.name for path in built.parent.iterdir()] == [built.name]


@pytest.mark.parametrize("content", [b"", b"\x7fELF", b"garbage" * 100])
def test_garbage_is_rebuilt(source: Path, content: bytes) -> None:
    built = _built(source)
    built.unlink()
    built.write_bytes(content)
    assert _number_in_new_process(source) == 41


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o757])
def test_folder_that_others_can_write_to_is_not_used(source: Path, mode: int) -> None:
    folder = source / "cache" / "idql_func"
    folder.mkdir(parents=True)
    folder.chmod(mode)
    library.cache_clear()
    with pytest.warns(RuntimeWarning, match=r"can be written to by other users \(run `chmod go-w`"):
        assert library("number", folder=source) is not None
    assert list(folder.iterdir()) == []
    private = source / "tmp" / f"idql_func-{os.getuid()}"
    assert len(list(private.glob("*.so"))) == 1
    assert stat.S_IMODE(private.stat().st_mode) == 0o700


def test_new_folder_and_file_are_the_users_own(source: Path) -> None:
    built = _built(source)
    assert stat.S_IMODE(built.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(built.stat().st_mode) == 0o700


def test_folder_of_another_user_is_not_used(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _built(source)
    real = os.getuid()
    monkeypatch.setattr(library_cache.os, "getuid", lambda: real + 1)
    library.cache_clear()
    library_cache._folder_of_this_process.cache_clear()
    with pytest.warns(RuntimeWarning, match="belongs to another user"):
        built = library("number", folder=source)
    assert built is not None and "tmp/idql_func-" in built._name  # the folder of this process


def test_full_disk_falls_back_with_a_sentence(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int, data: memoryview) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("idql_func.files.system.write", full)
    library.cache_clear()
    library_cache._folder_of_this_process.cache_clear()
    with pytest.warns(RuntimeWarning, match="cannot hold the C libraries"):
        assert library("number", folder=source) is None
    assert not [path for path in source.rglob("*") if path.suffix in (".so", ".part")]


def test_compiler_that_hangs_is_left_after_a_moment(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = source / "slow-cc"
    slow.write_text("#!/bin/sh\nexec sleep 30\n")
    slow.chmod(0o700)
    monkeypatch.setenv("CC", str(slow))
    monkeypatch.setattr(library_cache, "_ANSWER_SECONDS", 0.2)
    library.cache_clear()
    with pytest.warns(RuntimeWarning, match=r"slow-cc does not answer within 0\.2 seconds"):
        assert library("number", folder=source) is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert library("number", openmp=True, folder=source) is None


def test_killed_build_leaves_nothing_after_the_next(source: Path) -> None:
    folder = _built(source).parent
    left = folder / f".number-0.so.{library_cache.digest(b'')[:8]}-1-1-abcdef.part"
    left.write_bytes(b"half")
    os.utime(left, (0, 0))
    (source / "number.c").write_text("int number(void) { return 42; }\n")
    library.cache_clear()
    assert library("number", folder=source) is not None
    assert not left.exists()
