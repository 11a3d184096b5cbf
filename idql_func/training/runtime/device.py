"""From a device's name in the settings to the device."""

from __future__ import annotations

import torch

from idql_func.types import InputError

__all__ = ["choose_device"]


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
        raise InputError(f"device is {name!r}, but must be 'auto', 'cpu', 'cuda' or such") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device is {name!r}, but torch sees no GPU on this machine; take 'cpu'")
    return device
