"""Parity with the JAX original: record it, compare the port with the record, or run both live.

For your own functions use :class:`Case`, :func:`record` and :func:`check`
(:mod:`parity.functions`). For this port use ``python -m parity``:

* ``record`` runs the original (in its own JAX environment, where torch is not needed) and writes
  small reference tensors and a manifest into ``parity/reference/``.
* ``check`` runs the port on the same cases (no JAX needed) and compares; with ``--case NAME
  --explain`` it names the first tensor, in order of computation, that is out of its bound.
* ``live`` runs both side by side, for runs too long to be saved and for random settings.
* ``mutate`` plants bugs in the port, each of which the check must find.
* ``coverage`` lists the public names of the original, each with the case that covers it.
* ``report`` writes a page with all of these results.

A *case* (:mod:`parity.cases`) names a *program* (:mod:`parity.programs`) and its settings. Programs
are written once against the :class:`parity.backend.Backend` protocol, so that both sides run
the same steps; :mod:`parity.original` (JAX, no torch) and :mod:`parity.port` (torch, no JAX)
implement it. :mod:`parity.bounds` defines the bounds, :mod:`parity.compare` compares.

Notes on recording again: the original is ``philippe-eecs/IDQL`` at commit 7582571 (its parent
computes other numbers). Its environment is Python 3.11 with ``jax==0.4.13 jaxlib==0.4.13
flax==0.6.11 optax==0.1.5 tensorflow-probability==0.20.1 "numpy<1.25" "scipy<1.12" safetensors h5py
tqdm gym-notices cloudpickle``, and ``gym==0.23.1 d4rl termcolor distrax==0.1.4`` installed without
their dependencies; only the group ``distrax`` needs distrax. Recording takes about half an hour on
one core (the residual encoder alone compiles for minutes); ``--only GROUP`` records a part. It
gives the same files each time.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from parity import inputs
    from parity.cases import Case
    from parity.functions import check, record

__all__ = ["Case", "check", "inputs", "record"]


def __getattr__(name: str) -> Any:
    # imported on first use: the command line needs none of them, and each side only its part
    if name == "inputs":
        return importlib.import_module("parity.inputs")
    modules = {"Case": "parity.cases", "check": "parity.functions", "record": "parity.functions"}
    if name not in modules:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(modules[name]), name)
