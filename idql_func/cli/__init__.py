"""The ``idql`` command: one module for each of its commands.

Thin: each command parses its options into what the library takes, calls it, and turns its errors
into one line. What is heavy is imported after the options are parsed.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Sequence

__all__ = ["main"]

USAGE = """\
usage: idql [-h] [--version] COMMAND ...

IDQL: offline reinforcement learning with a diffusion policy, equal to the JAX original; and every
other learner of its package.

commands:
  train [PRESET]        train on a fixed dataset (IDQL, IQL, BC, PixelBC); without any argument:
                        the built-in maze, a few minutes
  online [PRESET]       train on what the policy itself does (SAC, REDQ, DroQ, TD3, DrQ)
  finetune PRESET|RUN   train on a dataset first, then in the environment
  collect CHECKPOINT    roll a policy out into a dataset
  evaluate CHECKPOINT   try a trained policy out: returns as a table and as JSON
  sweep PRESET          one run for each cell of a grid of settings and each seed
  presets [NAME]        list all presets, or show the settings of one
  data make             make the built-in dataset (train does it too, at first use)
  data info [SOURCE]    describe a dataset: size, episodes, returns, ranges

examples:
  idql train
  idql train --seed 1 --learner.critic-hyperparam 0.8
  idql train locomotion --dataset.source hopper-medium-v2
  idql train --resume runs/pointmaze-seed0
  idql train --seeds 10 --grid learner.critic-hyperparam=0.7,0.9
  idql evaluate runs/pointmaze-seed0 --n 1 16 64
  idql online sac --env Pendulum-v1 --max-steps 20000
  idql sweep pointmaze --grid learner.critic-hyperparam=0.7,0.9 --seeds 3

`idql COMMAND --help` shows the options of a command.
"""

COMMANDS = ("train", "online", "finetune", "collect", "evaluate", "sweep", "presets", "data")
"""Each is a module of this package with a ``main(arguments) -> exit status``."""


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
    if command not in COMMANDS:
        known = ", ".join(COMMANDS)
        print(f"error: no command is called {command!r}; there are {known}", file=sys.stderr)
        return 2
    return _guarded(lambda: importlib.import_module(f"idql_func.cli.{command}").main(rest))


def _guarded(command: Callable[[], int]) -> int:
    """Bad input becomes one line and status 2; ``IDQL_DEBUG=1`` shows the traceback instead."""
    try:
        return command()
    except KeyboardInterrupt as interrupt:
        print(f"\n{str(interrupt) or 'interrupted'}", file=sys.stderr)
        return 130
    except (ValueError, TypeError, OSError, ImportError) as error:
        if os.environ.get("IDQL_DEBUG") == "1":
            raise
        message = " ".join(str(error).split()) or type(error).__name__
        print(f"error: {message}", file=sys.stderr)
        return 2
