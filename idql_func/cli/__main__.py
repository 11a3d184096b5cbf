"""``python -m idql_func.cli``: the ``idql`` command, where it is not installed."""

import sys

from idql_func.cli import main

if __name__ == "__main__":
    sys.exit(main())
