"""The old place of :mod:`idql_func.training.configs.presets`."""

from idql_func.deprecation import moved_names

__getattr__ = moved_names(__name__)
