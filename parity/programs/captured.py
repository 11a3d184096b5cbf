"""Programs that return intermediate tensors: of each submodule, and of each call in an update.

Their outputs are in the order of computation.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from parity import inputs
from parity.backend import Backend, Event, Outputs, Settings
from parity.digest import excerpt, norm
from parity.programs.learners import NETWORKS, run_outputs, updated
from parity.programs.networks import given_parameters, network_inputs


def layers(backend: Backend, settings: Settings) -> Outputs:
    """The output of every submodule of a network on a forward pass, by its path in Flax's tree.

    ``layers/<mode>/<path>``, evaluating and (if the network has any) with dropout on; the network's
    own output is ``forward/<mode>``.
    """
    dtype = "float64" if settings.get("x64") else "float32"
    network = backend.network(settings["network"])
    params = given_parameters(backend, network, "network", dtype)
    feed = [backend.batch(x) for x in network_inputs(settings["network"], settings["batch"], dtype)]
    out: Outputs = {}
    for mode in settings["modes"]:
        options: dict[str, Any] = {"training": mode == "train"}
        if mode == "train":
            options["dropout_key"] = backend.random.PRNGKey(settings["dropout_seed"])
        for path, leaf in network.layers(params, *feed, **options).items():
            out[f"layers/{mode}/{path}"] = excerpt(leaf, settings["keep"])
        result = backend.numpy(network.apply(params, *feed, **options))
        out[f"forward/{mode}"] = excerpt(result, settings["keep"])
    return out


def calls(backend: Backend, settings: Settings) -> Outputs:
    """One update of a learner, call by call and step by step; then the outputs of :func:`run`.

    The calls of each network are numbered from 0, since the sides may call networks in different
    orders. ``<n>`` is ``<network>/<number>``:

    * ``calls/<n>/in0`` …: its input arrays (observations, actions, times), nested ones by
      name; ``calls/<n>/params``: the norm of every leaf of its parameters;
    * ``dropout/<n>/dropout``: the key, if it was given one;
    * ``calls/<n>/<path>``: the output of each submodule; ``calls/<n>/out``: the network's own, for
      a distribution ``out/loc`` and ``out/scale``;
    * ``gradient/<n>/<leaf>``: the gradient that its optimiser received at each step.

    After its optimiser step (for a target: its source's) a network's calls are named
    ``after/<n>/…``: Adam can turn rounding noise into a full step.
    """
    learner = backend.learner(settings)
    names = NETWORKS[settings["learner"]]
    with backend.watched(learner, names) as (watched, events):
        learner, info = updated(backend, settings, watched, 0)
    out = _event_outputs(events, settings["keep"])
    return {**out, **run_outputs(backend, settings, learner, [info])}


def _event_outputs(events: Iterable[Event], keep: int) -> Outputs:
    out: Outputs = {}
    counts: dict[tuple[str, str], int] = {}
    stepped: set[str] = set()
    for sort, network, tree in events:
        number = counts[sort, network] = counts.get((sort, network), -1) + 1
        name = f"{network}/{number}"
        if sort == "step":
            stepped.update((network, f"target_{network}"))
            for path, leaf in inputs.flatten(tree["gradient"]).items():
                out[f"gradient/{name}/{path}"] = excerpt(leaf, keep)
            continue
        head = f"{'after' if network in stepped else 'calls'}/{name}"
        for path, leaf in inputs.flatten(tree["inputs"]).items():
            out[f"{head}/{path}"] = excerpt(leaf, keep)
        norms = [norm(leaf) for leaf in inputs.flatten(tree["params"]).values()]
        out[f"{head}/params"] = np.array(norms, np.float64)
        for path, key in tree["dropout"].items():
            out[f"dropout/{name}/{path}"] = key
        # Submodules in the order in which they were computed, if the side records it.
        for path, value in tree["layers"].items():
            for leaf_path, leaf in inputs.flatten({path: value}).items():
                out[f"{head}/{leaf_path}"] = excerpt(leaf, keep)
        for path, leaf in inputs.flatten({"out": tree["out"]}).items():
            out[f"{head}/{path}"] = excerpt(leaf, keep)
    return out
