"""Old address of the functions in ``files/``; the next version removes it."""

from idql_func.deprecation import moved_names

__getattr__ = moved_names(__name__)
