"""Command line: ``python -m benchmarks [options]`` and ``python -m benchmarks compare OLD NEW``."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from benchmarks.processes import COMMAND


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command: 0 on success, 1 if something regressed or failed, 2 for bad input."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == [COMMAND]:
        from benchmarks import child

        return child.main(arguments[1])
    # imported late, because a child measures the cost of its imports
    from benchmarks.command import compare_command, run_command

    try:
        if arguments[:1] == ["compare"]:
            return compare_command(arguments[1:])
        return run_command(arguments)
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130
    except (ValueError, OSError) as error:
        if os.environ.get("IDQL_DEBUG") == "1":
            raise
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
