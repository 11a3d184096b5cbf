"""Hostile files: refused in one sentence, in bounded time and memory; no code runs, no other file
is read."""

from __future__ import annotations

import json
import os
import pickle
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import msgpack
import numpy as np
import pytest
from trials import Tally

from idql_func import interop
from idql_func.data import ReplayBuffer
from idql_func.data.hdf5 import read_d4rl_hdf5
from idql_func.data.safe_npy import load_objects
from idql_func.errors import InputError
from idql_func.files import read_json
from idql_func.interop.flax_bytes import msgpack_restore

pytestmark = pytest.mark.reliability

READERS: dict[str, Callable[[Path], Any]] = {
    "hdf5": read_d4rl_hdf5,
    "npy": load_objects,
    "json": lambda path: read_json(path, "a JSON file"),
    "buffer": ReplayBuffer.load,
    "policy": interop.load_policy,
    "msgpack": lambda path: msgpack_restore(path.read_bytes()),
}


def _hdf5(folder: Path, build: Callable[[h5py.File], Any], **options: Any) -> Path:
    (folder / "secret").write_bytes(b"secret--" * 100)
    with h5py.File(folder / "other.hdf5", "w") as other:
        other["a"] = np.arange(8.0)
    with h5py.File(folder / "a.hdf5", "w", **options) as file:
        build(file)
    return folder / "a.hdf5"


def _virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((8,), "f8")
    layout[:] = h5py.VirtualSource("other.hdf5", "a", (8,))
    file.create_virtual_dataset("observations", layout)


def _deep(file: h5py.File) -> None:
    group: Any = file
    for _ in range(100):
        group = group.create_group("a")
    group["observations"] = np.zeros(3)


def _huge_chunk(file: h5py.File) -> None:
    file.create_dataset(
        "a", (10,), "f8", maxshape=(None,), chunks=(50_000_000,), compression="gzip"
    )[:] = 1


def _inflating_chunk(file: h5py.File) -> None:
    import zlib

    dataset = file.create_dataset("a", (1000,), "u1", chunks=(1000,), compression="gzip")
    dataset.id.write_direct_chunk((0,), zlib.compress(bytes(200_000_000)))


HDF5: dict[str, Callable[[h5py.File], Any]] = {
    "external storage": lambda f: f.create_dataset(
        "observations", (100,), "f8", external=[("secret", 0, 800)]
    ),
    "external /etc/passwd": lambda f: f.create_dataset(
        "observations", (100,), "u1", external=[("/etc/passwd", 0, 100)]
    ),
    "virtual": _virtual,
    "external link": lambda f: f.__setitem__("a", h5py.ExternalLink("other.hdf5", "a")),
    "external link to a device": lambda f: f.__setitem__("a", h5py.ExternalLink("/dev/zero", "a")),
    "deep groups": _deep,
    "declared rows": lambda f: f.create_dataset("a", (3 * 10**9, 8), "f4"),
    "declared chunks": lambda f: f.create_dataset("a", (10**12,), "f4", chunks=(1024,)),
    "gzip": lambda f: f.create_dataset("a", data=np.zeros(60_000_000, "u1"), compression="gzip"),
    "gzip rows": lambda f: f.create_dataset(
        "a", (4 * 10**8,), "f8", chunks=(10**6,), compression="gzip", fillvalue=1.0
    ),
    "lzf": lambda f: f.create_dataset("a", data=np.zeros(90_000_000, "u1"), compression="lzf"),
    "huge chunk": _huge_chunk,
    "inflating chunk": _inflating_chunk,
    "wide text": lambda f: f.create_dataset("a", (), "S2000000000"),
}
HARMLESS = {"gzip", "no width", "timestamp"}  # within the limits; nothing learns from a timestamp


class _Call:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def _npy(folder: Path, content: bytes, shape: str = "(1,)", descr: str = "'|O'") -> Path:
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    start = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()
    (folder / "a.npy").write_bytes(start + content)
    return folder / "a.npy"


def _nested_key(levels: int) -> bytes:
    # a tuple of itself twice, again and again, as the key of a dict
    return b"}" + b")" + b"\x94" + b"2\x86" * levels + b"Ns."


PICKLES: dict[str, bytes] = {
    "tuple key": _nested_key(40),
    "tuple key in a dict of marks": b"(" + b")" + b"2\x86" * 45 + b"Nd.",
    "frozenset": b"()" + b"2\x86" * 45 + b"\x91.",
    "build on a class": b"cnumpy\ndtype\n}X\x01\x00\x00\x00aK\x01sb.",
    "build slots": b"cnumpy\ndtype\nN}X\x01\x00\x00\x00aK\x01s\x86b.",
    "lists": b"(" + b"]" * 20_000_000 + b"l.",
    "nones": b"(" + b"N" * 30_000_000 + b"l.",
    "memo": b"N" + b"\x94" * 20_000_000 + b".",
    "deep": b"(" * 1_000_000,
    "bytearray8": b"\x96" + (1 << 40).to_bytes(8, "little") + b".",
    "binbytes8": b"\x8e" + (1 << 40).to_bytes(8, "little") + b".",
    "frame": b"\x80\x04\x95" + (1 << 40).to_bytes(8, "little") + b"N.",
    "long4": b"\x8b" + (1 << 30).to_bytes(4, "little") + b".",
    "extension": b"\x82\x01.",
    "persistent": b"Pa\n.",
    "instance": b"(ios\nsystem\n.",
    "newobj": b"cnumpy\ndtype\n)\x81.",
    **{
        f"call of {function.__name__}": pickle.dumps(_Call(function, *arguments))
        for function, arguments in (
            (os.system, ("touch ran",)), (eval, ("open('ran', 'w')",)), (exec, ("1",)),
            (open, ("ran", "w")), (__import__, ("os",)), (getattr, ("a", "upper")),
            (np.load, ("x",)), (os.mkdir, ("ran",)), (compile, ("1", "a", "eval")),
        )
    },
}  # fmt: skip

HEADERS = {
    "rows": ("(10**12,)".replace("10**12", str(10**12)), "'<f8'"),
    "negative": ("(-1,)", "'<f8'"),
    "many axes": (f"({'1, ' * 100})", "'<f8'"),
    "empty of huge rows": (f"(0, {2**62}, {2**62})", "'<f8'"),
    "call": ("(__import__('os').mkdir('ran'),)", "'<f8'"),
    "wide": ("(1,)", "'<U2000000000'"),
    "no width": (f"({10**12},)", "'V0'"),
    "record": ("(1,)", "[('a', '|O')]"),
}

DEEP = 100_000
JSON: dict[str, bytes] = {
    "deep lists": b"[" * DEEP,
    "deep objects": b'{"a":' * DEEP,
    "closed lists": b"[" * DEEP + b"]" * DEEP,
    "NaN": b'{"a": NaN}',
    "Infinity": b'{"a": [-Infinity]}',
    "twice": b'{"a": 1, "a": 2}',
    "long number": b'{"a": ' + b"9" * 100_000 + b"}",
    "not UTF-8": b'{"a": "\xff"}',
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "open text": b'{"a": "' + b'\\"' * 500_000,
    "quotes": b'"' * 1_000_001,
    "large": b"[" + b"[]," * 3_000_000 + b"1]",
    "empty": b"",
    "two values": b"{} {}",
    "single": b"'a'",
}


def _packed(value: Any) -> bytes:
    packed: Any = msgpack.packb(value)
    return packed


MSGPACK: dict[str, bytes] = {
    "nils": b"\xdd" + (20_000_000).to_bytes(4, "big") + b"\xc0" * 20_000_000,
    "lists": b"\xdd" + (20_000_000).to_bytes(4, "big") + b"\x90" * 20_000_000,
    "declared list": b"\xdd\xff\xff\xff\xff",
    "declared map": b"\xdf\xff\xff\xff\xff",
    "declared text": b"\xdb\xff\xff\xff\xff",
    "declared bytes": b"\xc6\xff\xff\xff\xff",
    "declared extension": b"\xc9\xff\xff\xff\xff\x01",
    "deep": b"\x91" * 1_000_000,
    "deep maps": b"\x81\xa1a" * 300_000,
    "list in an array": _packed(msgpack.ExtType(1, b"\xdd\x00\x98\x96\x80" + b"\xc0" * 10**7)),
    "shape": _packed(msgpack.ExtType(1, _packed([[2**40, 2**40], b"float32", b""]))),
    "timestamp": b"\xd6\xff\x00\x00\x00\x01",
    "list as a key": b"\x81\x90\x01",
    "unknown": b"\xc1",
}


def _safetensors(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def _entry(shape: list[Any], offsets: list[Any], dtype: str = "F32") -> dict[str, Any]:
    return {"a": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}


SAFETENSORS: dict[str, bytes] = {
    "length": _safetensors({}, length=2**63),
    "long header": _safetensors(b" " * 10_000_000),
    "deep header": _safetensors(b'{"a":' * 10_000),
    "list": _safetensors([]),
    "huge shape": _safetensors(_entry([2**40], [0, 2**42])),
    "overflow": _safetensors(_entry([2**32, 2**32], [0, 0])),
    "negative": _safetensors(_entry([-1], [0, -4])),
    "float": _safetensors(_entry([1.0], [0, 4]), bytes(4)),
    "beyond": _safetensors(_entry([1], [4, 8]), bytes(4)),
    "hole": _safetensors(_entry([1], [4, 8]), bytes(8)),
    "dtype": _safetensors(_entry([1], [0, 4], "O"), bytes(4)),
    "overlap": _safetensors({**_entry([1], [0, 4]), "b": _entry([1], [0, 4])["a"]}, bytes(4)),
    "tail": _safetensors(_entry([1], [0, 4]), bytes(99)),
    "metadata": _safetensors({"__metadata__": {"a": 1}}),
    "settings": _safetensors({"__metadata__": {"idql_func policy": "[" * 1000}}),
    "sizes": _safetensors({"__metadata__": {"idql_func policy": json.dumps({
        "kind": "greedy", "dtype": "float32", "observations": 3, "networks": {"actor": {
            "class": "MLP", "input_dim": 10**9, "hidden_dims": [10**9, 10**9]}}})}}),
    "blocks": _safetensors({"__metadata__": {"idql_func policy": json.dumps({
        "kind": "greedy", "dtype": "float32", "observations": 3, "networks": {"actor": {
            "class": "MLPResNet", "input_dim": 3, "num_blocks": 10**9, "out_dim": 2}}})}}),
    "steps": _safetensors({"__metadata__": {"idql_func policy": json.dumps({
        "kind": "diffusion", "dtype": "float32", "observations": 3, "T": 10**12,
        "networks": {}})}}),
    "buffer": _safetensors({"__metadata__": {"idql_func": json.dumps({
        "format": "idql_func replay buffer", "format_version": 1,
        "description": {"class": "ReplayBuffer", "capacity": 10**15}})}}),
}  # fmt: skip


def _special(folder: Path) -> Iterator[tuple[str, Path]]:
    """Names that are not regular files, or lead to none."""
    os.mkfifo(folder / "pipe")
    (folder / "folder").mkdir()
    for name, target in (
        ("zero", "/dev/zero"), ("tty", "/dev/tty"), ("null", "/dev/null"), ("loop", "loop"),
        ("lost", "absent"), ("to pipe", "pipe"), ("to folder", "folder"),
    ):  # fmt: skip
        (folder / name).symlink_to(target)
    for name in ("pipe", "folder", "zero", "tty", "null", "loop", "lost", "to pipe", "to folder"):
        yield name, folder / name
    with open(folder / "sparse", "wb") as file:
        file.write(b"\x93NUMPY\x01\x00")
        file.truncate(1 << 40)
    yield "sparse", folder / "sparse"


def _cases(folder: Path) -> Iterator[tuple[str, str, Path]]:
    """All hostile files, as (reader, name, path); each is made when its turn comes."""
    for name, build in HDF5.items():
        yield "hdf5", name, _hdf5(folder, build)
        if name in ("virtual", "external storage", "declared rows", "deep groups"):
            yield "hdf5", f"{name} (latest)", _hdf5(folder, build, libver="latest")
    for name, content in PICKLES.items():
        yield "npy", name, _npy(folder, content)
    for name, (shape, descr) in HEADERS.items():
        yield "npy", name, _npy(folder, bytes(8), shape, descr)
    path = folder / "file"
    for reader, table in (("json", JSON), ("msgpack", MSGPACK)):
        for name, content in table.items():
            path.write_bytes(content)
            yield reader, name, path
    for name, content in SAFETENSORS.items():
        path.write_bytes(content)
        yield "policy", name, path
        yield "buffer", name, path
    for name, special in _special(folder):
        for reader in ("hdf5", "npy", "json", "buffer", "policy"):
            yield reader, name, special


def _read_in_child(reader: str, path: Path, limit: int) -> tuple[str, float, int]:
    """The outcome, the seconds and the additional memory of reading in a forked process."""
    receive, send = os.pipe()
    start = time.monotonic()
    child = os.fork()
    if child == 0:
        try:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            try:
                READERS[reader](path)
                outcome = "read"
            except (InputError, FileNotFoundError) as error:
                text = str(error)
                outcome = "refused" if text and "\n" not in text else f"not one line: {text!r}"
            except BaseException as error:
                outcome = f"{type(error).__name__}: {error}"
            used = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
            os.write(send, json.dumps([outcome[:300], used]).encode())
        finally:
            os._exit(0)
    os.close(send)
    with open(receive, "rb") as result:
        content = result.read()
    os.waitpid(child, 0)
    seconds = time.monotonic() - start
    outcome, used = json.loads(content) if content else ("the process died", 0)
    return outcome, seconds, used


def test_hostile_files_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tally: Tally
) -> None:
    monkeypatch.chdir(tmp_path)
    counts, wrong = {"trials": 0, "refused": 0, "harmless": 0}, []
    for reader, name, path in _cases(tmp_path):
        size = path.stat().st_size if path.is_file() and name != "sparse" else 0
        limit = 3 * size + 200_000_000
        outcome, seconds, used = _read_in_child(reader, path, limit)
        counts["trials"] += 1
        right = outcome == "refused" or (outcome == "read" and name in HARMLESS)
        if not right or seconds > 10 or used > limit:
            wrong.append(f"{reader} {name}: {outcome}, {seconds:.1f} s, {used / 1e6:.0f} MB")
        else:
            counts["refused" if outcome == "refused" else "harmless"] += 1
        assert not Path("ran").exists(), name
    tally("hostile files", "all", counts)
    assert not wrong, "\n".join(wrong)
    assert counts["trials"] >= 150


def test_external_content_is_never_returned(tmp_path: Path) -> None:
    for name in ("external storage", "virtual", "external link"):
        with pytest.raises(InputError, match=r"another file"):
            read_d4rl_hdf5(_hdf5(tmp_path, HDF5[name]))


def test_build_leaves_the_reader_unchanged(tmp_path: Path) -> None:
    from idql_func.data import safe_npy

    before = dict(vars(safe_npy._Dtype))
    for name in ("build on a class", "build slots"):
        with pytest.raises(InputError):
            load_objects(_npy(tmp_path, PICKLES[name]))
    assert dict(vars(safe_npy._Dtype)) == before
    np.save(tmp_path / "b.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    assert load_objects(tmp_path / "b.npy")[0] == {"a": 1}
