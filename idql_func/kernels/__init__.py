"""Operators that have a C form: random draws, elementary functions, Adam, averages, matmul.

A kernel knows tensors and memory, and nothing of graphs. Each has a tensor form too, which runs
where there is no C compiler. The sources are in ``csrc/``; ``build.py`` compiles and loads them.
"""
