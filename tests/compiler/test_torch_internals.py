"""Settings of the compiler: what spares a first call seconds, and when it is not taken."""

from __future__ import annotations

import pytest
import torch
from torch._inductor import config, cpp_builder

from idql_func.compiler import torch_internals


@pytest.fixture(autouse=True)
def asked_anew():
    torch_internals.compiler_takes_vector_flags.cache_clear()
    yield
    torch_internals.compiler_takes_vector_flags.cache_clear()


def test_settings_are_known_to_inductor_and_given_to_one_program_alone() -> None:
    before = config.cpp.vec_isa_ok
    with config.patch(torch_internals.settings()):
        pass
    assert config.cpp.vec_isa_ok is before


@pytest.mark.parametrize("compiler", ["/bin/false", "/no/such/compiler"])
def test_a_compiler_that_refuses_the_flags_is_left_to_inductor(monkeypatch, compiler) -> None:
    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", lambda: compiler)
    assert "cpp.vec_isa_ok" not in torch_internals.settings()


def test_other_machines_are_left_to_inductor(monkeypatch) -> None:
    monkeypatch.setattr(torch_internals.platform, "machine", lambda: "aarch64")
    assert "cpp.vec_isa_ok" not in torch_internals.settings()


def test_amx_is_left_to_inductor(monkeypatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    assert "cpp.vec_isa_ok" not in torch_internals.settings()


def test_inputs_are_looked_at_again_only_if_asked(monkeypatch) -> None:
    monkeypatch.delenv("TORCHINDUCTOR_SIZE_ASSERTS", raising=False)
    assert torch_internals.settings()["size_asserts"] is False
    monkeypatch.setenv("TORCHINDUCTOR_SIZE_ASSERTS", "1")
    assert torch_internals.settings()["size_asserts"] is True
