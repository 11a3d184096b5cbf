"""First and second derivatives of the port beside JAX's: ``python -m parity live --derivatives``.

Each function of :data:`FUNCTIONS` maps a tree of arrays to a tree; the scalar that is
differentiated is the sum of the sines of its result. ``derivatives_jax.py`` has the same
functions in JAX. What JAX gave is saved in ``reference/derivatives.safetensors``, so that the
tests need no JAX.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load
from torch import Tensor
from torch.autograd import forward_ad

from idql_func import distributions, losses, networks, optim, random
from idql_func.agents import bc, critics, ddpm_iql, iql, sac, td3
from idql_func.compiler.inductor import without_code_generation
from idql_func.struct import TrainState
from idql_func.switches import enable_x64
from idql_func.transforms import (
    dynamic_slice_in_dim,
    dynamic_update_slice,
    grad,
    jit,
    logsumexp,
    stop_gradient,
    tree_flatten,
    tree_map,
    tree_unflatten,
    vmap,
)
from parity.inputs import flatten, parameters, unflatten, uniform
from parity.store import REFERENCE, RecordError, read_part, save_tensors, write_whole

TENSORS, HEAD = "derivatives.safetensors", "derivatives.json"
COMMAND = "python -m parity record --derivatives"
MODES = ("eager", "jit", "compiled", "autograd", "forward", "vmap")
TABLE_MODES = ("eager", "jit", "autograd", "forward", "vmap")
DTYPES = ("float64", "float32")
DOUBLE_BOUND = 1e-10

Trees = dict[str, Any]
_PAIRS = ("l2_loss", "huber_loss", "sigmoid_binary_cross_entropy", "logsumexp", "dynamic slices")
_U_LOSSES = ("expectile_loss", "quantile_loss", "exponential_loss")


# --- functions --------------------------------------------------------------------------


def _step(make: Callable[[Any], optim.Chain], x: Any) -> Any:
    tx = make(x["rate"])
    count = torch.tensor(3, dtype=torch.int32)
    moments, *others = tx.init(x["p"])
    moments = moments._replace(count=count, mu=x["mu"], nu=x["nu"])
    others = [
        s._replace(count=count) if "count" in getattr(s, "_fields", ()) else s for s in others
    ]
    params, state = optim.step(tx, x["g"], (moments, *others), x["p"])
    return params, state[0].mu, state[0].nu


def _cosine(rate: Any) -> optim.Chain:
    return optim.with_learning_rate(optim.adam(optim.cosine_decay_schedule(1.0, 10)), rate)


def _warm_up(rate: Any) -> optim.Chain:
    parts = optim.LinearSchedule(0.0, rate, 6), optim.ConstantSchedule(rate)
    return optim.adam(optim.JoinedSchedules(parts, (6,)))


def _clipped_sgd(x: Any) -> Any:
    tx = optim.chain(optim.clip_by_global_norm(0.5), optim.sgd(x["rate"], 0.9, nesterov=True))
    first, (momentum, *others) = tx.init(x["p"])
    state = first, (momentum._replace(trace=x["mu"]), *others)
    params, state = optim.step(tx, x["g"], state, x["p"])
    return params, state[1][0].trace


def _meta(x: Any) -> Any:
    value = NETWORKS["IQL step"]

    def loss(params: Any) -> Any:
        u = x["q"] - value.apply(params, x["s"])
        return losses.expectile_loss(u, x["level"]).mean()

    tx = optim.adam(x["rate"])
    new, _ = optim.step(tx, grad(loss)(x["params"]), tx.init(x["params"]), x["params"])
    return loss(new), optim.incremental_update(new, x["params"], x["tau"])


def _policy(name: str, x: Any) -> Any:
    policy = NETWORKS[name].apply(x["params"], x["s"])
    return policy.loc, policy.log_prob(x["a"])


def _sample(tanh: bool, x: Any) -> Any:
    policy = distributions.Diagonal(loc=x["loc"], scale=x["scale"], tanh=tanh)
    return policy.sample_and_log_prob(random.PRNGKey(2))


def _log_prob(tanh: bool, x: Any) -> Any:
    return distributions.Diagonal(x["loc"], x["scale"], tanh=tanh).log_prob(x["value"])


def _vector(x: Any) -> distributions.MultivariateNormalDiag:
    return distributions.MultivariateNormalDiag(x["loc"], x["scale"])


def _squashed(x: Any) -> distributions.TanhTransformed:
    return distributions.TanhTransformed(_vector(x))


def _categorical(x: Any) -> Any:
    first, second = (distributions.Categorical(logits=x[name]) for name in ("loc", "scale"))
    chosen = first.log_prob(torch.tensor([2, 0, 1]))
    return chosen, first.entropy(), first.kl_divergence(second)


def _moved_part(x: Any) -> Tensor:
    part = dynamic_slice_in_dim(x["u"], torch.tensor(3), 3)
    return dynamic_update_slice(x["w"], part * stop_gradient(part) ** 2, [torch.tensor(9)])


def _ensemble(x: Any) -> Any:
    values = NETWORKS["Ensemble, min"].apply(x["params"], x["s"], x["a"])
    return values, values.amin(0)


def _weights(objective: str, x: Any) -> Any:
    return losses.advantage_weights(x["u"], objective, x["level"], 3 * x["level"])


def _applied(name: str, *inputs: str, **options: Any) -> Callable[[Any], Any]:
    return lambda x: NETWORKS[name].apply(x["params"], *[x[i] for i in inputs], **options)


def _loss(name: str, x: Any) -> Tensor:
    """The value of a learner's loss; a key stands where the loss draws or has dropout."""
    function, network, inputs = LOSSES[name]
    given = {"critic": _critic_state, "key": lambda _: random.PRNGKey(4)}
    arguments = [given[i](x) if i in given else x[i] for i in inputs]
    return function(x["params"], NETWORKS[network].apply, *arguments)[0]


def _critic_state(x: Any) -> TrainState:
    return TrainState.create(params=x["critic"], apply_fn=NETWORKS["Ensemble, min"].apply)


_MLP = functools.partial(networks.MLP, input_dim=3, hidden_dims=(4, 2))
_BASE = {"hidden_dims": (4,), "activate_final": True}


def _pixels(stop: bool) -> networks.Module:
    return networks.PixelMultiplexer(
        functools.partial(networks.D4PGEncoder, features=(2, 2), filters=(3, 3), strides=(2, 1)),
        functools.partial(networks.MLP, hidden_dims=(2,)),
        4,
        {"pixels": (9, 9, 1, 2), "state": (3,)},
        stop_gradient=stop,
    )


NETWORKS: dict[str, networks.Module] = {
    "MLP": _MLP(),
    "MLP, layer norm": _MLP(use_layer_norm=True),
    "MLP, mish": _MLP(activations=networks.mish),
    "MLP, dropout": _MLP(dropout_rate=0.3),
    "MLP, gelu": _MLP(activations=networks.gelu, layer_norm=True),
    "MLP, gelu exact": _MLP(activations=functools.partial(networks.gelu, approximate=False)),
    "Ensemble, named": networks.Ensemble(
        networks.MLP, 3, (4, 1), networks.gelu, layer_norm=True, name="value_net"
    ),
    "Sequential": networks.Sequential(
        [networks.Dense(3, 8, use_bias=False), networks.GroupNorm(8, 2), networks.swish]
    ),
    "ImpalaEncoder": networks.ImpalaEncoder(
        (9, 9, 2), stack_sizes=(4,), num_blocks=1, mlp_hidden_dims=(4,), layer_norm=True
    ),
    "MLPResNet": networks.MLPResNet(3, 1, 2, use_layer_norm=True, hidden_dim=4),
    "StateValue": networks.StateValue(networks.MLP, input_dim=3, **_BASE),
    "StateActionValue": networks.StateActionValue(networks.MLP, input_dim=5, **_BASE),
    "Ensemble, min": networks.Ensemble(
        networks.StateActionValue, networks.MLP, input_dim=5, **_BASE
    ),
    "DDPM": networks.DDPM(
        networks.MLP(4, (4,), networks.swish),
        networks.MLP(9, (4, 2), networks.swish),
        networks.FourierFeatures(4),
    ),
    "D4PGEncoder": networks.D4PGEncoder((9, 9, 2), (2, 2), (3, 3), (2, 1)),
    "ResNetV2Encoder": networks.ResNetV2Encoder((6, 6, 2), (1, 1), 4),
    "PixelMultiplexer": _pixels(False),
    "PixelMultiplexer, stop": _pixels(True),
    "Temperature": networks.Temperature(),
    "Normal": distributions.Normal(networks.MLP, input_dim=3, action_dim=2, **_BASE),
    "TanhNormal": distributions.TanhNormal(networks.MLP, input_dim=3, action_dim=2, **_BASE),
    "TanhDeterministic": distributions.TanhDeterministic(
        networks.MLP, input_dim=3, action_dim=2, **_BASE
    ),
    "IQL step": networks.StateValue(networks.MLP, input_dim=3, **_BASE),
}

# the loss, the network whose parameters it takes, and its further inputs
LOSSES: dict[str, tuple[Callable[..., Any], str, tuple[str, ...]]] = {
    "value_loss": (critics.value_loss, "StateValue", ("s", "q")),
    "critic_loss": (critics.critic_loss, "Ensemble, min", ("s", "a", "q")),
    "summed_critic_loss": (iql.summed_critic_loss, "Ensemble, min", ("s", "a", "q")),
    "weighted_actor_loss": (iql.weighted_actor_loss, "Normal", ("s", "a", "q")),
    "score_loss": (ddpm_iql.score_loss, "DDPM", ("s", "a", "t", "noise", "q")),
    "bc_loss": (bc.bc_loss, "Normal", ("s", "a", "key", "key", "level")),
    "soft_actor_loss": (
        sac.soft_actor_loss,
        "TanhNormal",
        ("s", "key", "critic", "key", "level"),
    ),
    "deterministic_actor_loss": (
        td3.deterministic_actor_loss,
        "TanhDeterministic",
        ("s", "critic", "key"),
    ),
    "temperature_loss": (sac.temperature_loss, "Temperature", ("q", "level")),
}

FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "adam": lambda x: _step(optim.adam, x),
    "adamw": lambda x: _step(lambda rate: optim.adamw(rate, weight_decay=0.1), x),
    "adam, cosine": lambda x: _step(_cosine, x),
    "adam, warm-up": lambda x: _step(_warm_up, x),
    "adam, eps_root": lambda x: _step(lambda rate: optim.adam(rate, eps_root=1e-3), x),
    "sgd, clipped": _clipped_sgd,
    "incremental_update": lambda x: optim.incremental_update(x["new"], x["old"], x["tau"]),
    "subsample_ensemble": lambda x: networks.subsample_ensemble(random.PRNGKey(0), x, 2, 5),
    "expectile_loss": lambda x: losses.expectile_loss(x["u"], x["level"]),
    "quantile_loss": lambda x: losses.quantile_loss(x["u"], x["level"]),
    "exponential_loss": lambda x: losses.exponential_loss(x["u"], x["level"]),
    **{
        f"exp_w_clip {mode}": lambda x, mode=mode: losses.exp_w_clip(x["u"], 0.3, mode)
        for mode in losses.CLIP_MODES
    },
    **{
        f"implicit {name}": lambda x, name=name: losses.implicit_policy_weights(
            x["u"], name, x["level"]
        )
        for name in losses.CRITIC_OBJECTIVES
    },
    "weights soft_adv": lambda x: _weights("soft_adv", x) * x["u"],
    "weights exp_adv": lambda x: _weights("exp_adv", x),
    "l2_loss": lambda x: losses.l2_loss(x["u"], x["w"]),
    "huber_loss": lambda x: losses.huber_loss(x["u"], x["w"], x["level"]),
    "sigmoid_binary_cross_entropy": lambda x: losses.sigmoid_binary_cross_entropy(
        4 * x["u"], torch.sigmoid(x["w"])
    ),
    "logsumexp": lambda x: logsumexp(x["u"], b=torch.exp(x["w"])),
    "dynamic slices": _moved_part,
    "MLP": _applied("MLP", "s"),
    "MLP, layer norm": _applied("MLP, layer norm", "s"),
    "MLP, mish": _applied("MLP, mish", "s"),
    "MLP, dropout": lambda x: NETWORKS["MLP, dropout"].apply(
        x["params"], x["s"], training=True, rngs={"dropout": random.PRNGKey(1)}
    ),
    "MLP, gelu": _applied("MLP, gelu", "s"),
    "MLP, gelu exact": _applied("MLP, gelu exact", "s"),
    "Ensemble, named": _applied("Ensemble, named", "s"),
    "Sequential": _applied("Sequential", "s"),
    "ImpalaEncoder": lambda x: NETWORKS["ImpalaEncoder"].apply(x["params"], 255 * x["image"]),
    "MLPResNet": _applied("MLPResNet", "s"),
    "StateValue": _applied("StateValue", "s"),
    "StateActionValue": _applied("StateActionValue", "s", "a"),
    "Ensemble, min": _ensemble,
    "DDPM": _applied("DDPM", "s", "a", "t"),
    "D4PGEncoder": _applied("D4PGEncoder", "image"),
    "ResNetV2Encoder": _applied("ResNetV2Encoder", "image"),
    "max_pool": lambda x: networks.max_pool(x["image"], (3, 3), (2, 2), "SAME"),
    "PixelMultiplexer": _applied("PixelMultiplexer", "observations"),
    "PixelMultiplexer, stop": _applied("PixelMultiplexer, stop", "observations"),
    "Temperature": _applied("Temperature"),
    "Normal": functools.partial(_policy, "Normal"),
    "TanhNormal": functools.partial(_policy, "TanhNormal"),
    "TanhDeterministic": _applied("TanhDeterministic", "s"),
    "log_prob": functools.partial(_log_prob, False),
    "log_prob, tanh": functools.partial(_log_prob, True),
    "sample": functools.partial(_sample, False),
    "sample, tanh": functools.partial(_sample, True),
    "categorical": _categorical,
    "log_prob, distrax": lambda x: _vector(x).log_prob(x["value"]),
    "log_prob, distrax, tanh": lambda x: _squashed(x).log_prob(x["value"]),
    "sample, distrax, tanh": lambda x: _squashed(x).sample_and_log_prob(random.PRNGKey(2)),
    "divergence": lambda x: _vector(x).kl_divergence(
        distributions.MultivariateNormalDiag(x["scale"], x["value"] ** 2 + 0.5)
    ),
    "uniform": lambda x: random.uniform(
        random.PRNGKey(3), (9,), x["low"].dtype, x["low"], x["high"]
    ),
    "truncated_normal": lambda x: random.truncated_normal(
        random.PRNGKey(3), x["low"], x["high"], (9,), x["low"].dtype
    ),
    **{name: functools.partial(_loss, name) for name in LOSSES},
    "IQL step": _meta,
}


DRAWS = (
    "MLP, dropout",
    "sample",
    "sample, tanh",
    "sample, distrax, tanh",
    "uniform",
    "truncated_normal",
    "bc_loss",
    "soft_actor_loss",
)
"""Functions that draw random numbers, which have other bits in double precision."""


# --- points -----------------------------------------------------------------------------


def point(name: str, dtype: str) -> tuple[Trees, Trees, Trees]:
    """Where a function is differentiated, the direction, and its integer inputs."""
    tree, fixed = _point(name)
    flat = {path: np.asarray(value, dtype) for path, value in flatten(tree).items()}
    direction = {
        path: uniform(f"direction/{name}/{path}", value.shape).astype(dtype)
        for path, value in flat.items()
    }
    return unflatten(flat), unflatten(direction), fixed


def _point(name: str) -> tuple[Trees, Trees]:
    def values(tag: str, *shape: int, low: float = -1.0, high: float = 1.0) -> np.ndarray:
        return uniform(f"derivatives/{name}/{tag}", shape, low, high)

    fixed: Trees = {}
    tree: Trees = {}
    if name.startswith(("adam", "sgd")):
        small = {"kernel": (3, 2), "bias": (2,)}
        tree = {k: {n: values(k + n, *s) for n, s in small.items()} for k in ("g", "p", "mu")}
        tree["nu"] = {n: values("nu" + n, *s, low=0.1) for n, s in small.items()}
        tree["rate"] = np.array(0.1)
    elif name == "incremental_update":
        tree = {k: {"w": values(k, 3, 2), "b": values(k, 2)} for k in ("new", "old")}
        tree["tau"] = np.array(0.3)
    elif name == "subsample_ensemble":
        tree = {"w": values("w", 5, 3), "b": values("b", 5)}
    elif name not in LOSSES and name.startswith(("exp_w_clip", "implicit", "weights", *_U_LOSSES)):
        tree = {"u": values("u", 7, low=-2.0, high=2.0), "level": np.array(0.7)}
    elif name in _PAIRS:
        tree = {"u": values("u", 7, low=-2.0, high=2.0), "w": values("w", 7)}
        tree |= {"level": np.array(0.7)} if name == "huber_loss" else {}
    elif name == "categorical":
        tree = {k: values(k, 3, 4, low=-2.0, high=2.0) for k in ("loc", "scale")}
    elif name.startswith(("log_prob", "sample", "divergence")):
        tree = {"loc": values("loc", 3, 2), "scale": values("scale", 3, 2, low=0.5, high=1.5)}
        if name.startswith(("log_prob", "divergence")):
            tree["value"] = values("value", 3, 2, low=-0.9, high=0.9)
    elif name in ("uniform", "truncated_normal"):
        tree = {"low": np.array(-1.5), "high": np.array(2.0)}
    network = LOSSES[name][1] if name in LOSSES else name
    if network in NETWORKS:
        tree["params"] = _parameters(name, network)
    if name in ("D4PGEncoder", "ResNetV2Encoder", "ImpalaEncoder", "max_pool"):
        side = 6 if name == "ResNetV2Encoder" else 9
        tree["image"] = values("image", 2, side, side, 2)
    elif name.startswith("PixelMultiplexer"):
        tree["observations"] = {"state": values("state", 2, 3)}
        frames = values("pixels", 2, 9, 9, 1, 2, low=0.0, high=256.0).astype(np.uint8)
        fixed = {"observations": {"pixels": frames}}
    elif name in LOSSES:
        sizes = {"s": (5, 3), "a": (5, 2), "t": (5, 1), "q": (5,), "noise": (5, 2), "level": ()}
        for i in LOSSES[name][2]:
            if i == "critic":
                tree[i] = _parameters(f"{name} of a critic", "Ensemble, min")
            elif i != "key":
                tree[i] = values(i, *sizes[i], low=-0.9, high=0.9)
    elif name in NETWORKS and name != "Temperature":
        tree["s"] = values("s", 5, 3)
        if name in ("StateActionValue", "Ensemble, min", "DDPM", "Normal", "TanhNormal"):
            tree["a"] = values("a", 5, 2, low=-0.9, high=0.9)
        if name == "DDPM":
            tree["t"] = values("t", 5, 1, low=0.0, high=5.0)
        if name == "IQL step":
            tree |= {"q": values("q", 5), "rate": np.array(0.1), "tau": np.array(0.3)}
            tree["level"] = np.array(0.7)
    return tree, fixed


def _parameters(tag: str, network: str) -> Trees:
    made = flatten(NETWORKS[network].init(random.PRNGKey(0)))
    shapes = {path: tuple(leaf.shape) for path, leaf in made.items()}
    return parameters(f"derivatives/{tag}", shapes, "float64")


# --- derivatives of the port ----------------------------------------------------------------


def derivatives(name: str, dtype: str, mode: str) -> dict[str, Any]:
    """Those of ``first``, ``second`` and ``along`` that a mode computes; see :data:`MODES`.

    ``first`` is the gradient, ``second`` the Hessian times a direction, and ``along`` the
    derivative along the direction, in forward mode.
    """
    with enable_x64(dtype == "float64"), random.threefry_partitionable(True):
        x, v, fixed = (_tensors(tree) for tree in point(name, dtype))

        def scalar(x: Any) -> Tensor:
            out = FUNCTIONS[name](_merged(x, fixed))
            return torch.stack([torch.sin(leaf).sum() for leaf in tree_flatten(out)[0]]).sum()

        return _derivatives(scalar, x, v, mode)


def _derivatives(scalar: Callable[[Any], Tensor], x: Any, v: Any, mode: str) -> dict[str, Any]:
    def first(x: Any, v: Any) -> Any:
        return grad(scalar)(x)

    def second(x: Any, v: Any) -> Any:
        return grad(lambda x: _dot(grad(scalar)(x), v))(x)

    def along(x: Any, v: Any) -> Any:
        return torch.func.jvp(scalar, (x,), (v,))[1]

    all_three = {"first": first, "second": second, "along": along}
    if mode == "eager":
        return {what: f(x, v) for what, f in all_three.items()}
    if mode == "jit":  # traced, without machine code
        with without_code_generation():
            return {what: jit(f)(x, v) for what, f in all_three.items()}
    if mode == "compiled":
        return {what: jit(f)(x, v) for what, f in all_three.items()}
    if mode == "vmap":
        pairs = [tree_map(lambda leaf: torch.stack([0.9 * leaf, leaf]), tree) for tree in (x, v)]
        rows = {what: vmap(f)(*pairs) for what, f in all_three.items()}
        return {what: tree_map(lambda leaf: leaf[1], row) for what, row in rows.items()}
    leaves, spec = tree_flatten(x)
    directions = tree_flatten(v)[0]
    if mode == "autograd":
        inputs = [leaf.clone().requires_grad_() for leaf in leaves]
        made = _autograd(scalar(tree_unflatten(spec, inputs)), inputs, create_graph=True)
        product = _dot(made, directions)
        twice = _autograd(product, inputs) if product.requires_grad else map(torch.zeros_like, made)
        pairs = {"first": made, "second": [*twice]}
        return {what: tree_unflatten(spec, [t.detach() for t in ts]) for what, ts in pairs.items()}
    assert mode == "forward"
    with forward_ad.dual_level():
        pairs = zip(leaves, directions, strict=True)
        dual = tree_unflatten(spec, [forward_ad.make_dual(*pair) for pair in pairs])
        tangent = forward_ad.unpack_dual(scalar(dual)).tangent
    forward = torch.zeros_like(leaves[0].sum()) if tangent is None else tangent
    return {"along": forward, "second": torch.func.jvp(grad(scalar), (x,), (v,))[1]}


def _autograd(value: Tensor, inputs: list[Tensor], **options: Any) -> list[Tensor]:
    return [*torch.autograd.grad(value, inputs, materialize_grads=True, **options)]


def _dot(a: Any, b: Any) -> Tensor:
    pairs = zip(tree_flatten(a)[0], tree_flatten(b)[0], strict=True)
    return torch.stack([(x * y).sum() for x, y in pairs]).sum()


def _tensors(tree: Trees) -> Any:
    return {k: _tensors(v) if isinstance(v, dict) else torch.tensor(v) for k, v in tree.items()}


def _merged(x: Any, fixed: Any) -> Any:
    """The differentiated inputs together with the others."""
    if not isinstance(x, dict):
        return x
    missing = {name: value for name, value in fixed.items() if name not in x}
    return {k: _merged(v, fixed.get(k, {})) for k, v in x.items()} | missing


# --- comparison -------------------------------------------------------------------------


def worst_error(found: dict[str, Any], wanted: dict[str, np.ndarray]) -> float:
    """The largest error of a leaf, relative to its largest entry.

    A leaf below 1e-4 of the largest leaf of its derivative is compared with that.
    """
    worst = 0.0
    for what, tree in found.items():
        leaves = {k: v for k, v in wanted.items() if k.split("/")[0] == what}
        made = flatten({what: tree})
        if made.keys() != leaves.keys():
            raise RecordError(f"the record holds {sorted(leaves)}, the port has {sorted(made)}.")
        largest = max(float(np.abs(leaf).max()) for leaf in leaves.values())
        for path, leaf in leaves.items():
            error = float(np.abs(made[path].detach().numpy() - leaf).max())
            size = max(float(np.abs(leaf).max()), 1e-4 * largest)
            worst = max(worst, np.inf if np.isnan(error) else error / size if size else error)
    return worst


def _nested(flat: dict[str, np.ndarray]) -> dict[str, Any]:
    return tree_map(lambda leaf: torch.from_numpy(leaf.copy()), unflatten(flat))


def by_jax(name: str, dtype: str) -> dict[str, np.ndarray]:
    """The derivatives by JAX, by path."""
    from parity.derivatives_jax import derivatives

    found = derivatives(name, *point(name, dtype))
    return {path: np.asarray(leaf) for path, leaf in flatten(found).items()}


def record(directory: Path = REFERENCE) -> None:
    """Save JAX's derivatives of all functions."""
    tensors = {
        f"{name}::{dtype}::{path}": leaf
        for name in FUNCTIONS
        for dtype in DTYPES
        for path, leaf in by_jax(name, dtype).items()
    }
    digest = save_tensors(directory / TENSORS, tensors)
    versions = {package: metadata.version(package) for package in ("jax", "flax", "optax")}
    head = {"command": COMMAND, "versions": versions, "sha256": digest}
    write_whole(directory / HEAD, (json.dumps(head, indent=1) + "\n").encode())


def recorded(directory: Path = REFERENCE) -> dict[tuple[str, str], dict[str, np.ndarray]]:
    """The saved derivatives, by function and dtype.

    Raises:
        RecordError: if the record is missing or damaged.
    """
    head = read_part(directory / HEAD)
    content = (directory / TENSORS).read_bytes()
    if hashlib.sha256(content).hexdigest() != head["sha256"]:
        raise RecordError(f"{TENSORS} is not the file that {HEAD} describes: make it again.")
    found: dict[tuple[str, str], dict[str, np.ndarray]] = {}
    for key, leaf in load(content).items():
        name, dtype, path = key.split("::")
        found.setdefault((name, dtype), {})[path] = leaf
    return found


def live(modes: Iterable[str], only: str | None = None) -> bool:
    """Print the table of worst errors beside JAX; whether double precision is in bounds.

    In float32 the last column is the error of JAX itself, beside its double precision; draws have
    none, because they are of other random bits there.
    """
    modes = tuple(modes)
    within = True
    exact: dict[str, dict[str, np.ndarray]] = {}  # JAX in double precision
    for dtype in DTYPES:
        print(f"\nworst relative error in {dtype}")
        columns = modes if dtype == "float64" else (*modes, "JAX")
        print(f"{'function':24s}" + "".join(f"{column:>10s}" for column in columns))
        worst = dict.fromkeys(columns, 0.0)
        for name in FUNCTIONS:
            if only is not None and not name.startswith(only):
                continue
            wanted = by_jax(name, dtype)
            errors = {m: worst_error(derivatives(name, dtype, m), wanted) for m in modes}
            if dtype == "float64":
                exact[name] = wanted
            else:
                own = worst_error(_nested(wanted), exact[name])
                errors["JAX"] = math.nan if name in DRAWS else own
            print(f"{name:24s}" + "".join(f"{e:10.1e}" for e in errors.values()), flush=True)
            worst = {column: max(worst[column], errors[column]) for column in columns}
        print(f"{'worst':24s}" + "".join(f"{e:10.1e}" for e in worst.values()))
        within = within and (dtype != "float64" or max(worst.values()) <= DOUBLE_BOUND)
    return within
