"""Damage files of torch's cache, and call a jitted function in a new process.

``python damaged_cache_process.py FOLDER TRIALS`` prints a line of JSON. Each trial is a child, by
``fork``, of a process that has imported everything and compiled nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from killed_process import child

import idql_func
from idql_func.compiler.inductor_cache import NOTES


def called() -> dict[str, Any]:
    """The bytes of a jitted function's result, and what was said."""

    def function(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return (torch.tanh(x @ w) * 3.25 + x.sum()).exp()

    x, w = torch.linspace(-1, 1, 12).reshape(3, 4), torch.linspace(0.1, 0.9, 16).reshape(4, 4)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        jitted = idql_func.jit(function)
        results = [jitted(x, w), jitted(x, w)]
    own = [str(one.message) for one in said if "torch's cache" in str(one.message)]
    return {"results": [y.numpy().tobytes().hex() for y in results], "said": own}


def eager() -> dict[str, Any]:
    with idql_func.disable_jit():
        return called()


def damage(path: Path, how: int, draws: random.Random) -> None:
    content = bytearray(path.read_bytes())
    if how == 0:
        del content[draws.randrange(len(content)) :]
    else:
        for _ in range(1 if how == 1 else 20):
            content[draws.randrange(len(content))] ^= 1 << draws.randrange(8)
    path.write_bytes(content)


def main(folder: Path, trials: int) -> None:
    draws = random.Random(0)
    cache, whole = folder / "cache", folder / "whole"
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(cache)
    code, right = child(called)
    if code != 0 or right["said"]:
        raise RuntimeError(f"without damage: {right}")
    shutil.copytree(cache, whole)
    names = [
        str(path.relative_to(whole))
        for path in sorted(whole.rglob("*"))
        if path.is_file() and path.stat().st_size
    ]
    expected = {tuple(right["results"]), tuple(child(eager)[1]["results"])}
    outcomes, failures = {"said": 0, "no effect": 0}, []
    for trial in range(trials):
        shutil.rmtree(cache)
        shutil.copytree(whole, cache)
        some = [names[trial % len(names)]] if trial % 4 else draws.sample(names, 3)
        for name in some:
            damage(cache / name, trial % 3, draws)
        code, found = child(called)
        if code != 0 or tuple(found["results"]) not in expected:
            failures.append(f"{some}, damaged by {trial % 3}: {code} {str(found)[-500:]}")
        elif any("\n" in text for text in found["said"]):
            failures.append(f"{some}: said {found['said']}")
        else:
            outcomes["said" if found["said"] else "no effect"] += 1
    if NOTES not in names:
        failures.append("the cache has no digests")
    print(json.dumps({"counts": {"trials": trials, **outcomes}, "failures": failures}), flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    with contextlib.suppress(ImportError):
        import torch._inductor.compile_fx
        import torch._inductor.standalone_compile
    main(Path(sys.argv[1]), int(sys.argv[2]))
