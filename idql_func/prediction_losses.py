"""Losses of predictions against targets, as optax computes them; ``idql_func.losses`` has them too.

Elementwise and pure. Values and derivatives equal optax's also where a formula changes: at an error
of 0, at an error of ``delta``, and for logits of any size.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from idql_func.boundary import explain_module
from idql_func.types import Number

__all__ = ["huber_loss", "l2_loss", "sigmoid_binary_cross_entropy"]


def l2_loss(predictions: Tensor, targets: Tensor | None = None) -> Tensor:
    """``(predictions - targets)^2 / 2`` (``optax.l2_loss``), ``[...] -> [...]``.

    Without targets these are zeros.

    Raises:
        TypeError: the predictions are not floating.
        ValueError: the shapes differ; nothing is broadcast, as in optax.

    >>> l2_loss(torch.tensor([1.0, 3.0]), torch.tensor([0.0, 1.0])).tolist()
    [0.5, 2.0]
    """
    _check_floating("l2_loss: predictions", predictions)
    if targets is not None and predictions.shape != torch.as_tensor(targets).shape:
        raise ValueError(
            "l2_loss: predictions and targets must have one shape, got "
            f"{tuple(predictions.shape)} and {tuple(torch.as_tensor(targets).shape)}."
        )
    errors = predictions if targets is None else predictions - targets
    return 0.5 * errors**2


def huber_loss(
    predictions: Tensor, targets: Tensor | float | None = None, delta: Number = 1.0
) -> Tensor:
    """``e^2 / 2`` where ``|e| <= delta``, else ``delta (|e| - delta / 2)`` (``optax.huber_loss``).

    ``e`` is ``predictions - targets``; without targets these are zeros. Huber, "Robust estimation
    of a location parameter" (1964).

    Raises:
        TypeError: the predictions are not floating.

    >>> huber_loss(torch.tensor([0.5, -3.0]), delta=1.0).tolist()
    [0.125, 2.5]
    """
    _check_floating("huber_loss: predictions", predictions)
    errors = predictions if targets is None else predictions - targets
    # at zero the derivative of abs is 1, as JAX has it; the second derivative of the loss needs it
    size = torch.where(errors >= 0, errors, -errors)
    limit = torch.as_tensor(delta, dtype=size.dtype, device=size.device)
    quadratic = torch.minimum(size, limit)
    return 0.5 * quadratic**2 + limit * (size - quadratic)


def sigmoid_binary_cross_entropy(logits: Tensor, labels: Tensor | float) -> Tensor:
    """``-labels log s(logits) - (1 - labels) log s(-logits)``, ``s`` the logistic function.

    As ``optax.sigmoid_binary_cross_entropy``: labels are 0, 1 or probabilities, and broadcast.

    Raises:
        TypeError: the logits are not floating.

    >>> sigmoid_binary_cross_entropy(torch.tensor([0.0, 1e4]), torch.tensor([1, 0])).tolist()
    [0.6931471824645996, 10000.0]
    """
    _check_floating("sigmoid_binary_cross_entropy: logits", logits)
    labels = torch.as_tensor(labels, dtype=logits.dtype, device=logits.device)
    log_p, log_not_p = functional.logsigmoid(logits), functional.logsigmoid(-logits)
    return -labels * log_p - (1.0 - labels) * log_not_p


def _check_floating(what: str, x: Tensor) -> None:
    if isinstance(x, Tensor) and not x.is_floating_point():
        raise TypeError(f"{what} must be floating, got {x.dtype}.")


explain_module(__name__)
