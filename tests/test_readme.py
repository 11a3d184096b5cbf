"""The README's examples run as they stand."""

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import parity
from idql_func import disable_jit

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
RECORD, CHECK = (
    next(block for block in BLOCKS if call in block) for call in ("parity.record(", "parity.check(")
)


def test_the_python_examples_run_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # one of them writes files
    blocks = [block for block in BLOCKS if block not in (RECORD, CHECK)]
    assert len(blocks) == 4
    names: dict = {}
    with disable_jit():  # the same values; compiling is tested elsewhere
        for block in blocks:
            exec(block, names)
    assert names["info"]["value_loss"].shape == ()
    assert names["learners"].score_model.params["MLPResNet_0"]["Dense_0"]["kernel"].shape[0] == 4
    grads = names["grads"]
    assert grads["MLP_0"]["Dense_0"]["kernel"].shape == (17, 256)
    assert torch.isfinite(grads["OutputVDense"]["kernel"]).all()
    assert names["last"]["nll"] < names["means"]["nll"]
    assert names["action"].shape == (6,) and (tmp_path / "policy.safetensors").exists()


def _in_numpy(case: parity.Case) -> dict[str, Any]:
    """What the README's reference computes, in float64 and without JAX."""
    dense = case.arrays["params"]["Dense_0"]
    x, kernel, bias = (
        array.astype(np.float64) for array in (case.arrays["x"], dense["kernel"], dense["bias"])
    )
    z, n, c = x @ kernel + bias, case.settings["power"], np.sqrt(2 / np.pi)
    tanh = np.tanh(c * (z + 0.044715 * z**3))
    hidden = z * (1 + tanh) / 2
    slope = (1 + tanh) / 2 + z * (1 - tanh**2) * c * (1 + 3 * 0.044715 * z**2) / 2
    inner = n * hidden ** (n - 1) * slope / hidden.size
    grads = {"kernel": (x.T @ inner).astype(np.float32), "bias": inner.sum(0).astype(np.float32)}
    loss = np.float32((hidden**n).mean())
    return {"hidden": hidden.astype(np.float32), "loss": loss, "grads": {"Dense_0": grads}}


def _cases() -> list[parity.Case]:
    """The cases of the README's first half."""
    names: dict = {}
    exec(RECORD.partition("def reference")[0].replace("import jax, parity", "import parity"), names)
    return names["cases"]


def test_functions_of_ones_own_are_held_to_a_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    parity.record(_cases(), _in_numpy, "gelu_record")
    exec(CHECK, {})
    assert "2 of 2 cases within bounds (8 tensors)" in capsys.readouterr().out
    with pytest.raises(AssertionError):
        exec(CHECK.replace(', approximate="tanh"', ""), {})
    quoted = re.search(r"`(FAIL gelu/.*?worst at \[\d+, \d+\]): ", README.replace("\n", " "))
    assert quoted and quoted[1] in capsys.readouterr().out


@pytest.mark.live
def test_functions_of_ones_own_are_recorded_from_jax(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "IDQL_REFERENCE_PYTHON" not in os.environ:
        pytest.fail("asked for by -m live, but IDQL_REFERENCE_PYTHON is not set")
    subprocess.run(
        [os.environ["IDQL_REFERENCE_PYTHON"], "-c", RECORD],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
    )
    monkeypatch.chdir(tmp_path)
    manifest = (tmp_path / "gelu_record" / "manifest.json").read_text()
    assert '"jax": ' in manifest and '"jax_enable_x64": false' in manifest
    exec(CHECK, {})
