"""Command line: ``python -m benchmarks [options]`` and ``python -m benchmarks compare OLD NEW``."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from benchmarks import children


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command: 0 when all is well, 1 when something regressed or failed, 2 on bad input."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == [children.COMMAND]:
        return children.main(arguments[1])
    # imported only now: a child measures what its imports cost
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
