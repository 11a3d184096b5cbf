"""Every module is imported where torch's cache, the home and the temporary folder can't be made."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.reliability

PROCESS = """
import importlib, json, os, pkgutil, sys, tempfile, warnings
import idql_func
failed = {}
names = [m.name for m in pkgutil.walk_packages(idql_func.__path__, "idql_func.")]
for name in ["parity", *names]:
    if not name.endswith("__main__"):
        try:
            importlib.import_module(name)
        except BaseException as error:
            failed[name] = repr(error)
early = sorted({"torch._dynamo", "torch._inductor.config", "tensordict"} & {*sys.modules})

import numpy as np
import torch
from idql_func import transforms
from idql_func.data.storage import FieldSpec, allocate

USES = {
    "grad": lambda: transforms.grad(lambda x: (x * x).sum())(torch.ones(3)),
    "jit": lambda: transforms.jit(lambda x: x * 2)(torch.ones(3)),
    "buffer": lambda: allocate({"rewards": FieldSpec((), np.dtype("float32"))}, 4),
}

def used(name, room):
    "What the first use says in a process of its own."
    reading, writing = os.pipe()
    if os.fork() == 0:
        try:
            if not room:
                tempfile.tempdir = "/proc/nothing"
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                USES[name]()
            said = "; ".join(str(w.message) for w in caught)
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(writing, said.encode())
        os._exit(0)
    os.close(writing)
    os.wait()
    with os.fdopen(reading) as pipe:
        return pipe.read()

uses = {f"{name} {room}": used(name, room) for name in sys.argv[1:] for room in (True, False)}
print(json.dumps({"count": len(names), "failed": failed, "early": early, "uses": uses}))
"""

CACHE = "TORCHINDUCTOR_CACHE_DIR"
PLACES = {
    "a file as the cache": {CACHE: "{file}"},
    "a cache below a file": {CACHE: "{file}/cache"},
    "a cache that cannot be made": {CACHE: "/proc/nothing/cache"},
    "a missing home": {"HOME": "/proc/nothing", "XDG_CACHE_HOME": "/proc/nothing/cache"},
    "files as folders": {name: "{file}" for name in ("HOME", "TMPDIR", "TEMP", "TMP")},
}
SHORT = ("a cache below a file", "files as folders")


@pytest.mark.parametrize(
    "place", [pytest.param(p, marks=() if p in SHORT else pytest.mark.slow) for p in PLACES]
)
def test_modules_are_imported_without_folders(place: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    without_cache = CACHE in PLACES[place]
    environment = {k: v for k, v in os.environ.items() if k != CACHE}
    environment |= {k: v.format(file=file) for k, v in PLACES[place].items()}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    uses = ("grad", "buffer") if without_cache else ()
    if place == "a file as the cache":
        uses = (*uses, "jit")  # a new cache is empty: it takes half a minute
    done = subprocess.run(
        [sys.executable, "-c", PROCESS, *uses],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["failed"] == {} and found["early"] == [] and found["count"] > 200
    for use, said in found["uses"].items():
        folder = environment[CACHE]
        if use.endswith("True"):  # another folder was made
            assert said.startswith(f"torch's cache {folder} cannot be used"), (use, said)
        else:
            assert said.startswith(f"FileWriteError: torch's cache {folder} cannot"), (use, said)
            assert "set TORCHINDUCTOR_CACHE_DIR to a folder that can be written to" in said
