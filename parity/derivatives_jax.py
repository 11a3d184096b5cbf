"""The functions of ``derivatives.py`` in JAX, Flax and optax: same names, same trees."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

Function = Callable[[Any], Any]


# --- optimisers -------------------------------------------------------------------------


def _step(make: Callable[[Any], optax.GradientTransformation], x: Any) -> Any:
    tx = make(x["rate"])
    state: Any = tx.init(x["p"])
    count = jnp.asarray(3, jnp.int32)
    moments = state[0]._replace(count=count, mu=x["mu"], nu=x["nu"])
    others = [
        s._replace(count=count) if "count" in getattr(s, "_fields", ()) else s for s in state[1:]
    ]
    updates, state = tx.update(x["g"], (moments, *others), x["p"])
    return optax.apply_updates(x["p"], updates), state[0].mu, state[0].nu


def _warm_up(rate: Any) -> optax.GradientTransformation:
    parts = [optax.linear_schedule(0.0, rate, 6), optax.constant_schedule(rate)]
    return optax.adam(optax.join_schedules(parts, [6]))


def _clipped_sgd(x: Any) -> Any:
    tx = optax.chain(optax.clip_by_global_norm(0.5), optax.sgd(x["rate"], 0.9, nesterov=True))
    state: Any = tx.init(x["p"])
    first, (momentum, *others) = state
    state = first, (momentum._replace(trace=x["mu"]), *others)
    updates, state = tx.update(x["g"], state, x["p"])
    return optax.apply_updates(x["p"], updates), state[1][0].trace


def _average(x: Any) -> Any:
    return optax.incremental_update(x["new"], x["old"], x["tau"])


def _members(x: Any) -> Any:
    index = jax.random.choice(jax.random.PRNGKey(0), 5, (2,), replace=False)
    return jax.tree.map(lambda leaf: leaf[index], x)


# --- losses -----------------------------------------------------------------------------


def _asymmetry(u: Any, level: Any) -> Any:
    return jnp.where(u > 0, level, 1 - level)


def _expectile(x: Any) -> Any:
    return _asymmetry(x["u"], x["level"]) * x["u"] ** 2


def _quantile(x: Any) -> Any:
    return _asymmetry(x["u"], x["level"]) * jnp.abs(x["u"])


def _clipped_exp(mode: str, u: Any, top: float) -> Any:
    value = jnp.exp(jnp.asarray(top, u.dtype))
    beyond = value
    if mode != "zero":
        beyond = beyond + value * (u - top)
    if mode == "second":
        beyond = beyond + value / 2 * (u - top) ** 2
    return jnp.where(u < top, jnp.exp(u), beyond)


def _exponential(x: Any) -> Any:
    weight = _clipped_exp("zero", x["u"] * x["level"], float(np.log(6)))
    return (jax.lax.stop_gradient(weight) - 1) * x["u"]


def _implicit(objective: str, x: Any) -> Any:
    u, level = x["u"], x["level"]
    if objective == "exponential":
        return jnp.abs(jnp.exp(jnp.minimum(u * level, np.log(6))) - 1) / jnp.abs(u)
    weight = _asymmetry(u, level)
    return weight / jnp.abs(u) if objective == "quantile" else weight


# --- networks ---------------------------------------------------------------------------


class MLP(nn.Module):
    dims: Sequence[int]
    final: bool = False
    norm: bool = False
    act: Any = nn.relu
    rate: float | None = None

    @nn.compact
    def __call__(self, x: Any, training: bool = False) -> Any:
        x = nn.LayerNorm()(x) if self.norm else x
        for i, size in enumerate(self.dims):
            x = nn.Dense(size)(x)
            if i + 1 < len(self.dims) or self.final:
                if self.rate:
                    x = nn.Dropout(self.rate)(x, deterministic=not training)
                x = self.act(x)
        return x


class NormedMLP(nn.Module):
    dims: Sequence[int]
    final: bool = False

    @nn.compact
    def __call__(self, x: Any) -> Any:
        for i, size in enumerate(self.dims):
            x = nn.Dense(size)(x)
            if i + 1 < len(self.dims) or self.final:
                x = nn.LayerNorm()(nn.gelu(x))
        return x


class ImpalaEncoder(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        x = _ImpalaStack(name="stack_blocks_0")(x.astype(jnp.float32) * jnp.float32(1 / 255))
        x = nn.LayerNorm()(nn.relu(x))
        return NormedMLP((4,), True, name="MLP_0")(x.reshape(*x.shape[:-3], -1))


class _ImpalaStack(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        x = nn.max_pool(nn.Conv(4, (3, 3))(x), (3, 3), (2, 2), "SAME")
        y = nn.Conv(4, (3, 3))(nn.relu(x))  # before the next one is made and named
        return x + nn.Conv(4, (3, 3))(nn.relu(y))


def _named_ensemble(x: Any) -> Any:
    network = NormedMLP((4, 1))
    return jax.vmap(lambda p: network.apply({"params": p}, x["s"]))(x["params"]["value_net"])


class MLPResNetBlock(nn.Module):
    features: int

    @nn.compact
    def __call__(self, x: Any) -> Any:
        residual = x
        x = nn.Dense(4 * self.features)(nn.LayerNorm()(x))
        return residual + nn.Dense(self.features)(nn.relu(x))


class MLPResNet(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        x = MLPResNetBlock(4)(nn.Dense(4)(x))
        return nn.Dense(2)(nn.relu(x))


class StateValue(nn.Module):
    @nn.compact
    def __call__(self, s: Any) -> Any:
        return nn.Dense(1, name="OutputVDense")(MLP((4,), True)(s)).squeeze(-1)


class StateActionValue(nn.Module):
    @nn.compact
    def __call__(self, s: Any, a: Any) -> Any:
        x = MLP((4,), True)(jnp.concatenate([s, a], -1))
        return nn.Dense(1)(x).squeeze(-1)


class FourierFeatures(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        kernel = self.param("kernel", nn.initializers.zeros, (2, x.shape[-1]))
        f = 2 * jnp.pi * x @ kernel.T
        return jnp.concatenate([jnp.cos(f), jnp.sin(f)], -1)


class DDPM(nn.Module):
    @nn.compact
    def __call__(self, s: Any, a: Any, t: Any) -> Any:
        condition = MLP((4,), act=nn.swish)(FourierFeatures()(t))
        return MLP((4, 2), act=nn.swish)(jnp.concatenate([a, s, condition], -1))


class D4PGEncoder(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        for stride in (2, 1):
            x = nn.relu(nn.Conv(2, (3, 3), (stride, stride), padding="VALID")(x))
        return x.reshape(*x.shape[:-3], -1)


class MyGroupNorm(nn.GroupNorm):
    num_groups: int | None = 4
    epsilon: float = 1e-5


class ResNetV2Block(nn.Module):
    filters: int
    stride: int

    @nn.compact
    def __call__(self, x: Any) -> Any:
        steps = (self.stride, self.stride)
        y = nn.Conv(self.filters, (3, 3), steps, use_bias=False)(nn.relu(MyGroupNorm()(x)))
        y = nn.Conv(self.filters, (3, 3), use_bias=False)(nn.relu(MyGroupNorm()(y)))
        if x.shape != y.shape:
            x = nn.Conv(self.filters, (1, 1), steps, use_bias=False)(x)
        return x + y


class ResNetV2Encoder(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        x = nn.Conv(4, (3, 3), use_bias=False)(x)
        x = ResNetV2Block(4, 1)(x)
        x = ResNetV2Block(8, 2)(x)
        return nn.relu(MyGroupNorm()(x)).reshape(*x.shape[:-3], -1)


class PixelMultiplexer(nn.Module):
    stop: bool

    @nn.compact
    def __call__(self, x: Any) -> Any:
        frames = x["pixels"].astype(jnp.float32) * jnp.float32(1 / 255)
        encoder = D4PGEncoder(name="encoder_0")
        y = encoder(frames.reshape(*frames.shape[:-2], -1))
        y = jax.lax.stop_gradient(y) if self.stop else y
        pixels = jnp.tanh(nn.LayerNorm()(nn.Dense(4)(y)))
        state = jnp.tanh(nn.LayerNorm()(nn.Dense(4)(x["state"])))
        return MLP((2,))(jnp.concatenate([pixels, state], -1))


class Normal(nn.Module):
    tanh: bool = False

    @nn.compact
    def __call__(self, s: Any) -> Any:
        x = MLP((4,), True)(s)
        mean = nn.Dense(2, name="OutputDenseMean")(x)
        log_std = nn.Dense(2, name="OutputDenseLogStd")(x)
        return mean, jnp.exp(jnp.clip(log_std, -20.0, 2.0))


class TanhDeterministic(nn.Module):
    @nn.compact
    def __call__(self, s: Any) -> Any:
        return jnp.tanh(nn.Dense(2, name="OutputDenseMean")(MLP((4,), True)(s)))


def _apply(network: nn.Module, *names: str) -> Function:
    return lambda x: network.apply({"params": x["params"]}, *[x[name] for name in names])


def _ensemble(x: Any) -> Any:
    values = _qs(x["params"], x["s"], x["a"])
    return values, values.min(0)


def _dropout(x: Any) -> Any:
    network, key = MLP((4, 2), rate=0.3), jax.random.PRNGKey(1)
    return network.apply({"params": x["params"]}, x["s"], training=True, rngs={"dropout": key})


# --- distributions and draws --------------------------------------------------------------


def _density(loc: Any, scale: Any, value: Any, tanh: bool) -> Any:
    x = jnp.arctanh(value) if tanh else value
    density = jax.scipy.stats.norm.logpdf(x, loc, scale).sum(-1)
    return density - (jnp.log1p(-(value**2)).sum(-1) if tanh else 0)


def _policy(tanh: bool, x: Any) -> Any:
    mean, scale = Normal().apply({"params": x["params"]}, x["s"])
    return mean, _density(mean, scale, x["a"], tanh)


def _log_prob(tanh: bool, x: Any) -> Any:
    return _density(x["loc"], x["scale"], x["value"], tanh)


def _drawn(loc: Any, scale: Any, key: Any) -> Any:
    *batch, size = loc.shape
    draw = jax.random.normal(key, (1, size, *batch), loc.dtype)
    return loc + scale * jnp.moveaxis(draw, 1, -1)[0]


def _sample(tanh: bool, x: Any) -> Any:
    y = _drawn(x["loc"], x["scale"], jax.random.PRNGKey(2))
    y = jnp.tanh(y) if tanh else y
    return y, _density(x["loc"], x["scale"], y, tanh)


def _sample_in_order(x: Any) -> Any:
    """A batch drawn as by distrax, action axis last."""
    key = jax.random.PRNGKey(2)
    y = jnp.tanh(x["loc"] + x["scale"] * jax.random.normal(key, x["loc"].shape, x["loc"].dtype))
    return y, _density(x["loc"], x["scale"], y, True)


def _divergence(x: Any) -> Any:
    other, wide = x["scale"], x["value"] ** 2 + 0.5
    ratio = (x["scale"] ** 2 + (x["loc"] - other) ** 2) / (2 * wide**2)
    return (jnp.log(wide / x["scale"]) + ratio - 0.5).sum(-1)


def _categorical(x: Any) -> Any:
    first, second = (jax.nn.log_softmax(x[name]) for name in ("loc", "scale"))
    chosen = first[jnp.arange(3), jnp.array([2, 0, 1])]
    p = jnp.exp(first)
    return chosen, -(p * first).sum(-1), (p * (first - second)).sum(-1)


def _moved_part(x: Any) -> Any:
    part = jax.lax.dynamic_slice_in_dim(x["u"], 3, 3)
    changed = part * jax.lax.stop_gradient(part) ** 2
    return jax.lax.dynamic_update_slice(x["w"], changed, (9,))


def _uniform(x: Any) -> Any:
    return jax.random.uniform(jax.random.PRNGKey(3), (9,), x["low"].dtype, x["low"], x["high"])


def _truncated(x: Any) -> Any:
    key = jax.random.PRNGKey(3)
    return jax.random.truncated_normal(key, x["low"], x["high"], (9,), x["low"].dtype)


def _meta(x: Any) -> Any:
    """The value loss after one IQL step of the value network, and its averaged target."""
    value = StateValue()

    def loss(params: Any) -> Any:
        u = x["q"] - value.apply({"params": params}, x["s"])
        return (_asymmetry(u, x["level"]) * u**2).mean()

    tx = optax.adam(x["rate"])
    updates, _ = tx.update(jax.grad(loss)(x["params"]), tx.init(x["params"]))
    new = optax.apply_updates(x["params"], updates)
    return loss(new), optax.incremental_update(new, x["params"], x["tau"])


# --- losses of the learners ---------------------------------------------------------------


def _qs(params: Any, s: Any, a: Any) -> Any:
    member = StateActionValue()
    qs: Any = jax.vmap(lambda p: member.apply({"params": p}, s, a))(
        params["VmapStateActionValue_0"]
    )
    return qs


def _value_loss(x: Any) -> Any:
    u = x["q"] - StateValue().apply({"params": x["params"]}, x["s"])
    return (_asymmetry(u, 0.7) * u**2).mean()


def _critic_errors(x: Any) -> Any:
    return (_qs(x["params"], x["s"], x["a"]) - x["q"]) ** 2


def _weighted_actor_loss(x: Any) -> Any:
    return -(x["q"] * _policy(False, x)[1]).mean()


def _score_loss(x: Any) -> Any:
    found: Any = DDPM().apply({"params": x["params"]}, x["s"], x["a"], x["t"])
    return (x["q"] * ((found - x["noise"]) ** 2).sum(-1)).mean()


def _bc_loss(x: Any) -> Any:
    mean, scale = Normal().apply({"params": x["params"]}, x["s"])
    drawn = jnp.clip(_drawn(mean, scale, jax.random.PRNGKey(4)), -1 + 1e-5, 1 - 1e-5)
    density = _density(mean, scale, jax.lax.stop_gradient(drawn), False)
    bonus = -(density * jax.lax.stop_gradient(density)).mean()
    return -_density(mean, scale, x["a"], False).mean() - x["level"] * bonus


def _soft_actor_loss(x: Any) -> Any:
    mean, scale = Normal().apply({"params": x["params"]}, x["s"])
    before = _drawn(mean, scale, jax.random.PRNGKey(4))
    actions = jnp.tanh(before)
    density = _density(mean, scale, before, False) - jnp.log1p(-(actions**2)).sum(-1)
    return (x["level"] * density - _qs(x["critic"], x["s"], actions).mean(0)).mean()


def _deterministic_actor_loss(x: Any) -> Any:
    actions = TanhDeterministic().apply({"params": x["params"]}, x["s"])
    return -_qs(x["critic"], x["s"], actions).mean()


def _temperature_loss(x: Any) -> Any:
    return jnp.exp(x["params"]["log_temp"]) * (x["q"] - x["level"]).mean()


FUNCTIONS: dict[str, Function] = {
    "adam": lambda x: _step(optax.adam, x),
    "adamw": lambda x: _step(lambda rate: optax.adamw(rate, weight_decay=0.1), x),
    "adam, cosine": lambda x: _step(
        lambda rate: optax.adam(lambda t: rate * 0.5 * (1 + jnp.cos(jnp.pi * t / 10))), x
    ),
    "adam, warm-up": lambda x: _step(_warm_up, x),
    "adam, eps_root": lambda x: _step(lambda rate: optax.adam(rate, eps_root=1e-3), x),
    "sgd, clipped": _clipped_sgd,
    "incremental_update": _average,
    "subsample_ensemble": _members,
    "expectile_loss": _expectile,
    "quantile_loss": _quantile,
    "exponential_loss": _exponential,
    **{
        f"exp_w_clip {mode}": lambda x, mode=mode: _clipped_exp(mode, x["u"], 0.3)
        for mode in ("zero", "first", "second")
    },
    **{
        f"implicit {name}": lambda x, name=name: _implicit(name, x)
        for name in ("expectile", "quantile", "exponential")
    },
    "weights soft_adv": lambda x: _asymmetry(x["u"], x["level"]) * x["u"],
    "weights exp_adv": lambda x: jnp.minimum(jnp.exp(3 * x["level"] * x["u"]), 100.0),
    "l2_loss": lambda x: optax.l2_loss(x["u"], x["w"]),
    "huber_loss": lambda x: optax.huber_loss(x["u"], x["w"], delta=x["level"]),
    "sigmoid_binary_cross_entropy": lambda x: optax.sigmoid_binary_cross_entropy(
        4 * x["u"], jax.nn.sigmoid(x["w"])
    ),
    "logsumexp": lambda x: jax.scipy.special.logsumexp(x["u"], b=jnp.exp(x["w"])),
    "dynamic slices": _moved_part,
    "MLP": _apply(MLP((4, 2)), "s"),
    "MLP, layer norm": _apply(MLP((4, 2), norm=True), "s"),
    "MLP, mish": _apply(MLP((4, 2), act=lambda x: x * jnp.tanh(nn.softplus(x))), "s"),
    "MLP, dropout": _dropout,
    "MLP, gelu": _apply(NormedMLP((4, 2)), "s"),
    "MLP, gelu exact": _apply(MLP((4, 2), act=lambda x: nn.gelu(x, approximate=False)), "s"),
    "Ensemble, named": _named_ensemble,
    "Sequential": _apply(
        nn.Sequential([nn.Dense(8, use_bias=False), nn.GroupNorm(2), nn.swish]), "s"
    ),
    "ImpalaEncoder": lambda x: ImpalaEncoder().apply({"params": x["params"]}, 255 * x["image"]),
    "MLPResNet": _apply(MLPResNet(), "s"),
    "StateValue": _apply(StateValue(), "s"),
    "StateActionValue": _apply(StateActionValue(), "s", "a"),
    "Ensemble, min": _ensemble,
    "DDPM": _apply(DDPM(), "s", "a", "t"),
    "D4PGEncoder": _apply(D4PGEncoder(), "image"),
    "ResNetV2Encoder": _apply(ResNetV2Encoder(), "image"),
    "max_pool": lambda x: nn.max_pool(x["image"], (3, 3), (2, 2), "SAME"),
    "PixelMultiplexer": _apply(PixelMultiplexer(False), "observations"),
    "PixelMultiplexer, stop": _apply(PixelMultiplexer(True), "observations"),
    "Temperature": lambda x: jnp.exp(x["params"]["log_temp"]),
    "Normal": lambda x: _policy(False, x),
    "TanhNormal": lambda x: _policy(True, x),
    "TanhDeterministic": _apply(TanhDeterministic(), "s"),
    "log_prob": lambda x: _log_prob(False, x),
    "log_prob, tanh": lambda x: _log_prob(True, x),
    "sample": lambda x: _sample(False, x),
    "sample, tanh": lambda x: _sample(True, x),
    "categorical": _categorical,
    "log_prob, distrax": lambda x: _log_prob(False, x),
    "log_prob, distrax, tanh": lambda x: _log_prob(True, x),
    "sample, distrax, tanh": _sample_in_order,
    "divergence": _divergence,
    "uniform": _uniform,
    "truncated_normal": _truncated,
    "value_loss": _value_loss,
    "critic_loss": lambda x: _critic_errors(x).mean(),
    "summed_critic_loss": lambda x: _critic_errors(x).sum(0).mean(),
    "weighted_actor_loss": _weighted_actor_loss,
    "score_loss": _score_loss,
    "bc_loss": _bc_loss,
    "soft_actor_loss": _soft_actor_loss,
    "deterministic_actor_loss": _deterministic_actor_loss,
    "temperature_loss": _temperature_loss,
    "IQL step": _meta,
}


def derivatives(name: str, point: Any, direction: Any, fixed: Any) -> dict[str, Any]:
    """The gradient, the Hessian times a direction, and the derivative along it."""

    def scalar(x: Any) -> Any:
        out = FUNCTIONS[name](_merged(x, fixed))
        return sum(jnp.sin(leaf).sum() for leaf in jax.tree.leaves(out))

    def all_three(x: Any, v: Any) -> dict[str, Any]:
        first, second = jax.jvp(jax.grad(scalar), (x,), (v,))
        return {"first": first, "second": second, "along": jax.jvp(scalar, (x,), (v,))[1]}

    wide = jax.tree.leaves(point)[0].dtype == np.float64
    jax.config.update("jax_enable_x64", wide)
    return jax.jit(all_three)(point, direction)


def _merged(x: Any, fixed: Any) -> Any:
    if not isinstance(x, dict):
        return x
    missing = {name: value for name, value in fixed.items() if name not in x}
    return {k: _merged(v, fixed.get(k, {})) for k, v in x.items()} | missing
