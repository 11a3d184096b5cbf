"""The ``idql`` command: one module for each of its commands.

Each command parses its options into the arguments of a library function and calls that function;
errors of input become one line. Slow imports, torch above all, happen after the options are parsed.
"""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from idql_func.env_imports import allow_env_imports, names_that_import
from idql_func.files.torch_cache import ensure_cache
from idql_func.training.runtime.interrupts import stop_signals

__all__ = ["COMMANDS", "INPUT_ERRORS", "main", "one_line", "print_error"]

COMMANDS = (
    "train",
    "online",
    "finetune",
    "collect",
    "evaluate",
    "sweep",
    "presets",
    "data",
    "doctor",
)
"""Each is a module of this package with a ``main(arguments) -> exit status``."""


ALLOW_ENV_IMPORTS = "--allow-env-imports"
"""An option of every command: the name of an environment that comes from a file may import a
module. A name on the command line always may."""

INPUT_ERRORS = (ValueError, TypeError, OSError, ImportError)
"""What the library raises for bad input, missing files and missing packages."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the ``idql`` command.

    Args:
        argv: the arguments after the command's name; default: those of the process.

    Returns:
        The exit status: 0, 2 for bad input (one line on standard error), 130 for Ctrl-C, SIGTERM
        and SIGHUP.

    Example:
        >>> main(["--version"]).__class__
        idql_func ...
        <class 'int'>
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(Path(__file__).with_name("usage.txt").read_text(encoding="utf-8"), end="")
        return 0
    if arguments[0] == "--version":
        from idql_func import __version__

        print(f"idql_func {__version__}")
        return 0
    rest = [word for word in arguments[1:] if word != ALLOW_ENV_IMPORTS]
    command, everything = arguments[0], len(rest) < len(arguments) - 1
    try:
        if command not in COMMANDS:
            known = ", ".join(COMMANDS)
            raise ValueError(f"no command is called {command[:60]!r}; there are {known}")
        ensure_cache()  # some packages import parts of torch that fail without it
        module = import_module(f"idql_func.cli.{command}")
        with allow_env_imports(None if everything else names_that_import(rest)), stop_signals():
            return module.main(rest)
    except KeyboardInterrupt as interrupt:
        print(f"\n{str(interrupt) or 'interrupted'}", file=sys.stderr)
        return 130
    except INPUT_ERRORS as error:
        if os.environ.get("IDQL_DEBUG") == "1":
            raise
        print_error(one_line(error))
        return 2
    except MemoryError:
        print_error("there is not enough memory; give smaller sizes")
        return 2
    except Exception as error:  # of the program itself: a bug, and no text for a user
        if os.environ.get("IDQL_DEBUG") == "1":
            raise
        print_error(
            f"{command} stopped with an unexpected {type(error).__name__}; "
            "IDQL_DEBUG=1 shows where, please report it"
        )
        return 1


def print_error(message: str) -> None:
    """Print an error: one line, which a terminal shows broken between words.

    Example:
        >>> from contextlib import redirect_stderr
        >>> with redirect_stderr(sys.stdout):
        ...     print_error("no command is called 'fly'")
        error: no command is called 'fly'
    """
    text = f"error: {message}"
    if sys.stderr.isatty():
        width = shutil.get_terminal_size().columns
        text = textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False)
    print(text, file=sys.stderr)


def one_line(error: BaseException) -> str:
    """Return the message of an error on one line, or the name of its class if it has none.

    Example:
        >>> one_line(ValueError("a message\\n  of two lines")), one_line(ValueError())
        ('a message of two lines', 'ValueError')
    """
    return " ".join(str(error).split()) or type(error).__name__
