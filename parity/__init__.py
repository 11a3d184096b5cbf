"""Parity with the JAX original: record it, hold the port against the record, or run both live.

Three commands, all below ``python -m parity``:

* ``record`` runs the original (in its own JAX environment, where torch is not needed) and writes
  small reference tensors and a manifest into ``parity/reference/``.
* ``check`` runs the port on the same cases (no JAX needed) and compares.
* ``live`` runs both side by side, for runs too long to be saved.

A *case* (:mod:`parity.cases`) names a *program* (:mod:`parity.programs`) and its settings. Programs
are written once against the :class:`parity.backend.Backend` protocol, so that both sides run
literally the same steps; :mod:`parity.jax_backend` and :mod:`parity.torch_backend` supply them.
"""
