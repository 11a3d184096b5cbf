"""The ``idql`` command: ``idql train``, ``idql evaluate``, ``idql data``.

Thin: each command parses its options into what the library takes, calls it, and turns its errors
into one line. What is heavy is imported after the options are parsed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence

__all__ = ["main"]

USAGE = """\
usage: idql [-h] [--version] COMMAND ...

IDQL: offline reinforcement learning with a diffusion policy, equal to the JAX original.

commands:
  train [PRESET]        train a policy; without any argument: the built-in maze, a few minutes
  evaluate CHECKPOINT   try a trained policy out: returns for several N, as a table and as JSON
  data make             make the built-in dataset (train does it too, at first use)
  data info [SOURCE]    describe a dataset: size, episodes, returns, ranges

examples:
  idql train
  idql train --seed 1 --learner.critic-hyperparam 0.8
  idql train locomotion --dataset.source hopper-medium-v2
  idql train --resume runs/pointmaze-seed0
  idql evaluate runs/pointmaze-seed0 --n 1 16 64

`idql COMMAND --help` shows the options of a command.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the ``idql`` command.

    Args:
        argv: the arguments after the command's name; default: those of the process.

    Returns:
        The exit status: 0, 2 after bad input (one line on standard error), 130 after Ctrl-C.

    Example:
        >>> main(["--version"]).__class__
        idql_func ...
        <class 'int'>
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(USAGE, end="")
        return 0
    if arguments[0] == "--version":
        from importlib.metadata import version

        print(f"idql_func {version('idql_func')}")
        return 0
    command, rest = arguments[0], arguments[1:]
    if command not in _COMMANDS:
        known = ", ".join(_COMMANDS)
        print(f"error: no command is called {command!r}; there are {known}", file=sys.stderr)
        return 2
    return _guarded(_COMMANDS[command], rest)


def _train(arguments: list[str]) -> int:
    from idql_func.cli.train import main as run

    return run(arguments)


def _evaluate(arguments: list[str]) -> int:
    from idql_func.cli.evaluate import main as run

    return run(arguments)


def _data(arguments: list[str]) -> int:
    from idql_func.cli.data import main as run

    return run(arguments)


_COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "train": _train,
    "evaluate": _evaluate,
    "data": _data,
}


def _guarded(command: Callable[[list[str]], int], arguments: list[str]) -> int:
    """Bad input becomes one line and status 2; ``IDQL_DEBUG=1`` shows the traceback instead."""
    try:
        return command(arguments)
    except KeyboardInterrupt as interrupt:
        print(f"\n{str(interrupt) or 'interrupted'}", file=sys.stderr)
        return 130
    except (ValueError, TypeError, OSError, ImportError) as error:
        if os.environ.get("IDQL_DEBUG") == "1":
            raise
        message = " ".join(str(error).split()) or type(error).__name__
        print(f"error: {message}", file=sys.stderr)
        return 2
