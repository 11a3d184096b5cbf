"""Old address of ``checks.py`` and ``factories.py``; the next version removes it."""

from idql_func.deprecation import moved_names

__getattr__ = moved_names(__name__)
