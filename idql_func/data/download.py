"""Fetch a dataset file: checked, and there whole or not at all."""

from __future__ import annotations

import http.client
import os
import urllib.error
import urllib.request
from pathlib import Path

from tqdm import tqdm

from idql_func.atomic import atomic_path
from idql_func.data.hdf5 import check_hdf5
from idql_func.types import InputError

__all__ = ["download_hdf5"]

_CHUNK = 1 << 20


def download_hdf5(url: str, path: str | os.PathLike[str], timeout: float = 30.0) -> Path:
    """Download an HDF5 file to ``path``.

    The bytes go to a temporary neighbour, which becomes ``path`` after its size is seen to be what
    the server announced and the file what HDF5 itself says it should be. A bar shows the progress
    on a terminal.

    Args:
        url: http, https or file URL.
        path: where the file goes; folders are made.
        timeout: seconds without an answer or a byte until the server counts as lost.

    Returns:
        The path.

    Raises:
        InputError: the server cannot be reached or refuses, the transfer stops early, or what came
            is no whole HDF5 file. Nothing is left behind then.

    Example:
        >>> import tempfile
        >>> from idql_func.data.hdf5 import write_d4rl_hdf5
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     there = write_d4rl_hdf5(f"{folder}/there.hdf5", {"rewards": [1.0]})
        ...     download_hdf5(there.as_uri(), f"{folder}/here.hdf5").name
        'here.hdf5'
    """
    path = Path(path)
    advice = f"get the file by other means and put it at {path}"
    try:
        with (
            atomic_path(path) as temporary,
            urllib.request.urlopen(url, timeout=timeout) as answer,
        ):
            announced = int(answer.headers.get("Content-Length") or 0)
            received = 0
            with (
                open(temporary, "wb") as file,
                tqdm(
                    total=announced or None,
                    desc=f"downloading {path.name}",
                    unit="B",
                    unit_scale=True,
                    disable=None,
                ) as bar,
            ):
                while chunk := answer.read(_CHUNK):
                    file.write(chunk)
                    received += len(chunk)
                    bar.update(len(chunk))
            if received < announced:
                raise InputError(
                    f"The download of {url} stopped at {received} of {announced} bytes; try again, "
                    f"or {advice}."
                )
            try:
                check_hdf5(temporary)
            except InputError as error:
                raise InputError(
                    f"What {url} sent ({received} bytes) is no whole HDF5 file; try again, or "
                    f"{advice}."
                ) from error
    except (
        urllib.error.URLError,
        http.client.HTTPException,
        TimeoutError,
        ConnectionError,
    ) as error:
        reason = getattr(error, "reason", None) or error
        raise InputError(f"{url} could not be downloaded ({reason}); {advice}.") from error
    return path
