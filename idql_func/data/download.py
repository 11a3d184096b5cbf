"""Download a dataset file, check it and store it atomically."""

from __future__ import annotations

import hashlib
import os
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import urlopen

from tqdm import tqdm

from idql_func.data.hdf5 import check_hdf5
from idql_func.files import OutputFile, atomic_path, readable_size, require_space
from idql_func.types import InputError

__all__ = ["download_hdf5"]

_CHUNK = 1 << 20


def download_hdf5(
    url: str,
    path: str | os.PathLike[str],
    timeout: float = 30.0,
    *,
    sha256: str | None = None,
    limit: int = 1 << 35,
) -> Path:
    """Download an HDF5 file to ``path``.

    The bytes go to a temporary file in the same folder. It is renamed to ``path`` once its size
    equals the server's ``Content-Length`` and :func:`idql_func.data.hdf5.check_hdf5` accepts it. A
    terminal shows a progress bar.

    Args:
        url: https or file URL; http only from this machine.
        path: destination; missing folders are created.
        timeout: seconds without a response or a byte after which the download fails.
        sha256: the digest that the file must have, if it is known.
        limit: the largest size in bytes.

    Returns:
        The path.

    Raises:
        InputError: if the server cannot be reached or refuses, the transfer stops early, or the
            result is too large or not a complete HDF5 file. No partial file is left.

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
    _check_address(url, advice)
    try:
        with atomic_path(path) as temporary, urlopen(url, timeout=timeout) as response:
            _check_address(response.geturl(), advice)  # it may have been redirected
            expected = _announced(response)
            too_large = InputError(
                f"{url} sends more than {readable_size(limit)}, the limit of a download; {advice}."
            )
            if expected > limit:
                raise too_large
            require_space(path, expected)
            options = {"total": expected or None, "desc": f"downloading {path.name}"}
            found, received = hashlib.sha256(), 0
            with (
                OutputFile(temporary, "x") as file,
                tqdm.wrapattr(response, "read", **options, disable=None) as body,
            ):
                while received <= limit and (piece := body.read(_CHUNK)):
                    file.write(piece)
                    found.update(piece)
                    received += len(piece)
            if received > limit:
                raise too_large
            if received < expected:
                raise InputError(
                    f"The download of {url} stopped at {received} of {expected} bytes; try again, "
                    f"or {advice}."
                )
            if sha256 is not None and found.hexdigest() != sha256.lower():
                raise InputError(
                    f"{url} sent a file with the SHA-256 digest {found.hexdigest()}, not {sha256}; "
                    f"try again, or {advice}."
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


def _check_address(url: str, advice: str) -> None:
    """Raise for an address whose content could be changed on the way."""
    parts = urlsplit(url)
    local = parts.scheme == "http" and parts.hostname in ("localhost", "127.0.0.1", "::1")
    if parts.scheme not in ("https", "file") and not local:
        raise InputError(f"{url} is not an https address, so it is not downloaded; {advice}.")


def _announced(response: Any) -> int:
    try:
        return max(0, int(response.headers.get("Content-Length") or 0))
    except ValueError:
        return 0
