"""No module but those of ``idql_func/files/`` changes a disk by itself."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import idql_func

pytestmark = pytest.mark.reliability
PACKAGE = Path(idql_func.__file__).parent

OTHERS = {
    *("os.rename", "os.replace", "os.link", "os.symlink", "os.write", "os.pwrite", "os.truncate"),
    *("os.ftruncate", "os.fsync", "os.fdopen", "os.posix_fallocate", "io.FileIO", "io.open"),
    *("shutil.copy", "shutil.copy2", "shutil.copyfile", "shutil.copytree", "shutil.move"),
    *("np.save", "np.savez", "np.savez_compressed", "np.savetxt", "np.memmap", "numpy.save"),
    *("torch.save", "pickle.dump", "json.dump", "tempfile.mkstemp", "logging.FileHandler"),
    *("tempfile.NamedTemporaryFile", "tempfile.TemporaryFile", "tempfile.SpooledTemporaryFile"),
}
"""Functions that write, by module and name."""
METHODS = {
    *("write_text", "write_bytes", "touch", "tofile", "symlink_to", "hardlink_to", "to_csv"),
    *("savefig", "save_file", "imsave", "imwrite", "get_writer", "memmap_like", "dump"),
    "save",  # of runs and buffers it is the package's own
}
"""Methods that write, of whatever object."""
OWN = {"self", "buffer"}
OPENS = {"open", "os.open", "h5py.File", "zipfile.ZipFile"}
"""Functions that open a file, for writing if an argument says so; methods called ``open`` too."""

ALLOWED = {
    "data/hdf5_file.py: h5py.File(stored, 'w', **options)": "writes to an OutputFile",
    "data/maze_picture.py: figure.savefig(content, format='png', dpi=120)": "into memory",
    "envs/video.py: first.save(content, 'GIF', save_all=True, append_images=rest, **options)": (
        "into memory"
    ),
    "training/runs/checkpoint.py: safetensors.torch.save(tensors)": "into memory",
    "interop/orbax.py: ocp.PyTreeCheckpointer().save(temporary, "
    "_as_orbax(to_state_dict(target)))": "Orbax writes a folder, which gets its name when whole",
    "training/runs/plots.py: figure.savefig(content, dpi=dpi, format='png')": "into memory",
    "data/storage.py: rows.memmap_like(str(folder / 'rows'))": (
        "tensordict makes mapped files itself; their room is reserved before and after"
    ),
    "envs/pointmaze.py: open(os.devnull, 'w')": "no file",
    "envs/video.py: _ffmpeg().get_writer(str(temporary), format='.mp4', fps=fps, **options)": (
        "ffmpeg is another process; its file is checked and written again"
    ),
    "training/runs/lock.py: os.ftruncate(handle, 0)": "the lock's file, which is empty then",
    "training/runs/lock.py: os.open(path, os.O_RDWR | os.O_CREAT | _CLOSED | _NO_LINKS, 420)": (
        "the lock's file, which is empty and kept open"
    ),
    "training/runs/lock.py: os.open(guard, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _CLOSED, "
    "420)": "an empty file whose existence is the lock",
}
"""Reviewed: the call, and why it does not go through ``idql_func/files/``."""


def calls_that_write(source: str) -> Iterator[str]:
    """The calls in a module's source that write to a disk, as text.

    >>> list(calls_that_write("open(a, 'w'); open(a); path.open(mode='a'); os.replace(a, b)"))
    ["open(a, 'w')", "path.open(mode='a')", 'os.replace(a, b)']
    """
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        last = name.rpartition(".")[2]
        own = last == "save" and name.partition(".")[0] in OWN
        if name in OTHERS or (last in METHODS and last != name and not own):
            yield ast.unparse(node)
        elif name in OPENS or name.endswith(".open"):
            words = [*node.args, *(keyword.value for keyword in node.keywords)]
            if any(_writes(word) for word in words):
                yield ast.unparse(node)


def _writes(word: ast.expr) -> bool:
    """Whether an argument is a mode or a flag of writing."""
    if isinstance(word, ast.Constant) and isinstance(word.value, str) and len(word.value) <= 4:
        return bool(set("wax+") & set(word.value)) and set(word.value) <= set("rwaxbt+")
    return any(flag in ast.unparse(word) for flag in ("O_WRONLY", "O_RDWR", "O_CREAT", "O_TRUNC"))


def test_everything_is_written_through_the_files() -> None:
    found = {
        f"{path.relative_to(PACKAGE).as_posix()}: {call}": path
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.parent != PACKAGE / "files"
        for call in calls_that_write(path.read_text(encoding="utf-8"))
    }
    assert sorted(found.keys() - ALLOWED.keys()) == [], "write through idql_func/files/ instead"
    assert sorted(ALLOWED.keys() - found.keys()) == [], "these are not needed any more"


@pytest.mark.parametrize(
    "source",
    [
        "np.save(path, x)", "torch.save(x, path)", "figure.savefig(path)", "path.write_text('x')",
        "path.write_bytes(x)", "path.open('a')", "open(path, mode='x')", "os.replace(a, b)",
        "shutil.copyfile(a, b)", "os.open(path, os.O_WRONLY)", "h5py.File(path, 'r+')",
        "array.tofile(path)", "Path(path).touch()", "frame.to_csv(path)", "json.dump(x, file)",
    ],
)  # fmt: skip
def test_writing_is_noticed(source: str) -> None:
    assert list(calls_that_write(source)) == [source]


@pytest.mark.parametrize(
    "source", ["open(path)", "path.open('rb')", "write_bytes(path, x)", "h5py.File(path, 'r')"]
)
def test_reading_is_not(source: str) -> None:
    assert list(calls_that_write(source)) == []
