"""How the port's functions run: eagerly, compiled, or under ``vmap``."""

from __future__ import annotations

from typing import Literal

Mode = Literal["eager", "compiled", "vmapped"]
