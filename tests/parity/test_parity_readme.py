"""The example of ``parity/README.md`` runs as it stands: record with NumPy, check with torch."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import parity

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "parity" / "README.md").read_text(encoding="utf-8")
RECORD, CHECK = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def _reference_in_numpy(case: parity.Case) -> dict[str, Any]:
    """The README's reference function, in float64 and without JAX."""
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
    """The cases that the first block defines, without importing JAX."""
    names: dict[str, Any] = {}
    exec(RECORD.partition("def reference")[0].replace("import jax, parity", "import parity"), names)
    return names["cases"]


def test_example_passes_and_quoted_failure_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    parity.record(_cases(), _reference_in_numpy, "gelu_record")
    exec(CHECK, {})
    assert "2 of 2 cases within bounds (8 tensors)" in capsys.readouterr().out
    with pytest.raises(AssertionError):
        exec(CHECK.replace(', approximate="tanh"', ""), {})
    # several entries have equal errors: rounding, which differs by machine, decides the worst one
    quoted = re.search(r"`(FAIL gelu/.*?); worst at ", README.replace("\n", " "))
    printed = capsys.readouterr().out
    assert quoted and quoted[1] in printed


@pytest.mark.live
def test_example_records_from_jax(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "IDQL_REFERENCE_PYTHON" not in os.environ:
        pytest.fail("-m live needs the environment variable IDQL_REFERENCE_PYTHON")
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


def test_commands_and_options_exist() -> None:
    from parity.__main__ import _parser

    for line in re.findall(r"^python -m parity (.*?)(?:\s+#.*)?$", README, re.MULTILINE):
        assert _parser().parse_args(line.split()).command == line.split()[0]
    assert len(README.encode()) <= 14_336
