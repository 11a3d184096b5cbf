"""Where compiling costs more than it saves."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch

from idql_func.switches import disable_jit, jit_disabled

__all__ = ["eagerly_on_cpu"]


def eagerly_on_cpu(device: torch.device) -> AbstractContextManager[None]:
    """Run held-out losses and action choice without compiling them, if on a CPU.

    A batch of environments with tens of candidates each keeps a CPU in matrix products, which
    compiling does not speed up; its 10 to 20 s for every number of candidates would not come back
    within a short run. On a GPU, where launching each operation is what takes time, it does.

    Example:
        >>> with eagerly_on_cpu(torch.device("cpu")):
        ...     jit_disabled()
        True
    """
    return disable_jit(jit_disabled() or device.type == "cpu")
