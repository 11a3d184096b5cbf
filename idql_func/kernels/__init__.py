"""Operators with a C form: random draws, Adam, moving averages, matrix products.

A kernel works on tensors and their memory; graphs are the task of ``compiler/``. Without a C
compiler a tensor form with the same results runs instead. The C sources are in ``csrc/``;
``build.py`` compiles and loads them. ``xla_math.py`` has elementary functions that round like XLA.
"""
