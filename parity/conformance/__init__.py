"""Small programs drawn from seeds, run on JAX and on the port, and compared.

The learners are held to the original by cases; ``jit, vmap, grad, scan, tree, random``, which
people write new methods with, are held to JAX by programs. A program is a few lines of Python that
use the names of one module, ``xp``. :mod:`parity.conformance.jax_names` and
:mod:`parity.conformance.port_names` provide these names on each side.
"""
