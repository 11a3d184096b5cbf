"""Write files and folders atomically; read files within a bound on time and memory.

Writing: the content goes to a temporary name in the same folder, is flushed to disk and renamed, so
that a reader or a crash finds the old content or the whole new one. All bytes pass through
:class:`OutputFile`. A full disk, a read-only one or a missing permission is a
:class:`FileWriteError`: one sentence that names the file. A temporary name holds its writer's
process, so that :func:`remove_leftovers` can tell the files of a killed process from those of a
living one.

Reading: only regular files are opened, so a pipe or a device is refused at once, and the size is
compared with a limit before anything is read.
"""

from __future__ import annotations

from idql_func.files.digests import add_digest, check_digest, digest
from idql_func.files.errors import (
    FileReadError,
    FileWriteError,
    explain_write_errors,
    readable_size,
)
from idql_func.files.json_text import JSON_LIMIT, parse_json
from idql_func.files.leftovers import remove_folder, remove_leftovers
from idql_func.files.reading import (
    open_regular,
    read_bytes,
    read_json,
    refuse_sparse,
    require_memory,
)
from idql_func.files.writing import (
    OutputFile,
    atomic_file,
    atomic_folder,
    atomic_path,
    require_space,
    reserve,
    write_bytes,
    write_json,
)

__all__ = [
    "JSON_LIMIT",
    "FileReadError",
    "FileWriteError",
    "OutputFile",
    "add_digest",
    "atomic_file",
    "atomic_folder",
    "atomic_path",
    "check_digest",
    "digest",
    "explain_write_errors",
    "open_regular",
    "parse_json",
    "read_bytes",
    "read_json",
    "readable_size",
    "refuse_sparse",
    "remove_folder",
    "remove_leftovers",
    "require_memory",
    "require_space",
    "reserve",
    "write_bytes",
    "write_json",
]
