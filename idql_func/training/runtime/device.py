"""The device of a run, and what is not compiled on it."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch

from idql_func.switches import disable_jit, jit_disabled
from idql_func.types import InputError

__all__ = ["choose_device", "eager_on_cpu"]


def choose_device(name: str) -> torch.device:
    """The device of that name; ``"auto"`` takes a GPU if there is one.

    Raises:
        InputError: there is no such device, or torch sees no GPU.

    Example:
        >>> choose_device("cpu")
        device(type='cpu')
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"device is {name!r}, but must be 'auto', 'cpu' or 'cuda'") from None
    if device.type not in ("cpu", "cuda"):
        raise InputError(
            f"device is {name!r}, but must be 'auto', 'cpu' or 'cuda': nothing here was tested on "
            "others"
        )
    if device.type == "cpu" and device.index:
        raise InputError(f"device is {name!r}, but there is one 'cpu'")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device is {name!r}, but torch sees no GPU on this machine; take 'cpu'")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(
            f"device is {name!r}, but torch sees {torch.cuda.device_count()} GPUs, counted from 0"
        )
    return device


def eager_on_cpu(device: torch.device) -> AbstractContextManager[None]:
    """Do not compile held-out losses and action choice within the block if ``device`` is a CPU.

    A batch of environments with tens of candidates each keeps a CPU busy with matrix products,
    which compiling does not speed up; compiling takes 10 to 20 s for every number of candidates,
    more than it saves in a short run. On a GPU, where launching operations takes the time, it pays.

    Example:
        >>> with eager_on_cpu(torch.device("cpu")):
        ...     jit_disabled()
        True
    """
    return disable_jit(jit_disabled() or device.type == "cpu")
