"""Download a dataset file, check it and store it atomically."""

from __future__ import annotations

import os
import shutil
from http.client import HTTPException
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from tqdm import tqdm

from idql_func.data.hdf5 import check_hdf5
from idql_func.files import atomic_path
from idql_func.types import InputError

__all__ = ["download_hdf5"]

_CHUNK = 1 << 20


def download_hdf5(url: str, path: str | os.PathLike[str], timeout: float = 30.0) -> Path:
    """Download an HDF5 file to ``path``.

    The bytes go to a temporary file in the same folder. It is renamed to ``path`` once its size
    equals the server's ``Content-Length`` and :func:`idql_func.data.hdf5.check_hdf5` accepts it. A
    terminal shows a progress bar.

    Args:
        url: http, https or file URL.
        path: destination; missing folders are created.
        timeout: seconds without a response or a byte after which the download fails.

    Returns:
        The path.

    Raises:
        InputError: if the server cannot be reached or refuses, the transfer stops early, or the
            result is not a complete HDF5 file. No partial file is left.

    Example:
        >>> import tempfile
        >>> from idql_func.data.hdf5 import write_d4rl_hdf5
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     remote = write_d4rl_hdf5(f"{folder}/remote.hdf5", {"rewards": [1.0]})
        ...     download_hdf5(remote.as_uri(), f"{folder}/local.hdf5").name
        'local.hdf5'
    """
    path = Path(path)
    advice = f"get the file another way and put it at {path}"
    try:
        with (
            atomic_path(path) as temporary,
            urlopen(url, timeout=timeout) as response,
        ):
            expected = int(response.headers.get("Content-Length") or 0)
            options = {"total": expected or None, "desc": f"downloading {path.name}"}
            with (
                open(temporary, "wb") as file,
                tqdm.wrapattr(response, "read", **options, disable=None) as body,
            ):
                shutil.copyfileobj(body, file, _CHUNK)
            received = temporary.stat().st_size
            if received < expected:
                raise InputError(
                    f"The download of {url} stopped at {received} of {expected} bytes; try again, "
                    f"or {advice}."
                )
            try:
                check_hdf5(temporary)
            except InputError as error:
                raise InputError(
                    f"{url} sent {received} bytes that are not a complete HDF5 file; try again, or "
                    f"{advice}."
                ) from error
    except (URLError, HTTPException, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", None) or error
        raise InputError(f"{url} could not be downloaded ({reason}); {advice}.") from error
    return path
