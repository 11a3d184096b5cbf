"""The README's examples run as they stand."""

import re
from pathlib import Path

import pytest
import torch

from idql_func import disable_jit

README = Path(__file__).parent.parent / "README.md"


def test_the_python_examples_run_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # one of them writes files
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 3
    names: dict = {}
    with disable_jit():  # the same values; compiling is tested elsewhere
        for block in blocks:
            exec(block, names)
    assert names["info"]["value_loss"].shape == ()
    assert names["learners"].score_model.params["MLPResNet_0"]["Dense_0"]["kernel"].shape[0] == 4
    grads = names["grads"]
    assert grads["MLP_0"]["Dense_0"]["kernel"].shape == (17, 256)
    assert torch.isfinite(grads["OutputVDense"]["kernel"]).all()
    assert names["action"].shape == (6,) and (tmp_path / "policy.safetensors").exists()
