"""Where torch keeps its cache of compiled programs; torch itself is not imported."""

from __future__ import annotations

import atexit
import getpass
import os
import re
import shutil
import sys
import tempfile
import warnings
from pathlib import Path

from idql_func.files.errors import FileWriteError

__all__ = ["cache_folder", "ensure_cache", "ensure_dynamo"]


def cache_folder() -> Path | None:
    """The folder of torch's cache; None if there is no folder for temporary files.

    >>> cache_folder() == Path(os.environ.get("TORCHINDUCTOR_CACHE_DIR", cache_folder()))
    True
    """
    if given := os.environ.get("TORCHINDUCTOR_CACHE_DIR"):
        return Path(os.path.abspath(given))
    try:
        user = re.sub(r'[\\/:*?"<>|]', "_", getpass.getuser())
        return Path(tempfile.gettempdir(), f"torchinductor_{user}")
    except (KeyError, ImportError, OSError):
        return None


def ensure_cache() -> None:
    """Give torch a temporary cache where its own cannot be made: it cannot trace without one.

    Raises:
        FileWriteError: there is no folder for temporary files either.
    """
    folder = cache_folder()
    try:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            if os.access(folder, os.W_OK | os.X_OK):
                return
        reason = "the permission is missing"
    except OSError as error:
        reason = error.strerror or str(error)
    problem = f"torch's cache {folder or 'of compiled programs'} cannot be used ({reason})"
    try:
        made = tempfile.mkdtemp(prefix="idql_func-torch-")
    except OSError as error:
        advice = "set TORCHINDUCTOR_CACHE_DIR to a folder that can be written to"
        raise FileWriteError(problem, advice, error.errno) from None
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = made  # where torch looks, whenever it looks
    warnings.warn(
        f"{problem}: programs are kept for this process only. Set TORCHINDUCTOR_CACHE_DIR to a "
        "folder that can be written to.",
        RuntimeWarning,
        stacklevel=2,
    )


def ensure_dynamo() -> None:
    """Call :func:`ensure_cache` unless torch's tracer, which needs it to be imported, is there.

    torch imports it at the first derivative.
    """
    if "torch._dynamo" not in sys.modules:
        ensure_cache()
