"""Settings of torch's compiler for this library's programs, given with each, never for all.

Inductor asks the C++ compiler whether it knows the CPU's vector instructions by building and
loading up to six small libraries with torch's headers, one after the other, each loaded by a
Python of its own: at a first call more than ten seconds. Torch knows from the CPU which it has;
that the compiler takes their flags is asked here without a header, in a few hundredths of one.
"""

from __future__ import annotations

import functools
import os
import platform
import subprocess
from typing import Any

import torch

_SECONDS = 60


def settings() -> dict[str, Any]:
    """What to override of ``torch._inductor.config`` in the compilation of a program.

    That its inputs have the shapes and strides it was made for is known from the call. Inductor
    would look at each again, a fifth of what a small program takes besides its kernels;
    ``TORCHINDUCTOR_SIZE_ASSERTS=1`` lets it, and it then looks at operators' results too. Of the
    vector instructions nothing is said where it can't be told that the shortcut holds: Inductor
    then looks for itself.
    """
    asserts = {"size_asserts": os.environ.get("TORCHINDUCTOR_SIZE_ASSERTS") == "1"}
    return asserts | ({"cpp.vec_isa_ok": True} if compiler_takes_vector_flags() else {})


@functools.cache
def compiler_takes_vector_flags() -> bool:
    """Whether the C++ compiler knows the flags that Inductor would use on this CPU.

    Only asked on Linux and x86-64. AMX needs the kernel's leave besides, so there Inductor
    looks for itself.
    """
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return False
    try:
        from torch._inductor import cpp_builder, cpu_vec_isa

        if torch.cpu._is_amx_tile_supported():
            return False
        known = cpu_vec_isa.x86_isa_checker()
        usable = [
            isa for isa in cpu_vec_isa.supported_vec_isa_list if {*str(isa).split()} <= {*known}
        ]
        flags = [flag for isa in usable for flag in isa.build_arch_flags().split()]
        command = [cpp_builder.get_cpp_compiler(), *flags, "-x", "c++", "-E", os.devnull]
        subprocess.run(command, check=True, capture_output=True, timeout=_SECONDS)
    except (ImportError, AttributeError, OSError, RuntimeError, subprocess.SubprocessError):
        return False  # another torch than those known, or a compiler that refuses
    return bool(usable)
