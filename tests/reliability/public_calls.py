"""A valid call of each public function: the function and its arguments by name."""

# ruff: noqa: E731, PLW0108 - short functions with the names of arguments

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import public_calls_more
import torch
from tiny_learners import ACT, OBS, STATE_LEARNERS, TINY, box, make_batch, make_state_learner

import idql_func
from idql_func import (
    agents,
    data,
    debug,
    distributions,
    envs,
    evaluation,
    interop,
    losses,
    networks,
    optim,
    random,
    struct,
    transforms,
    tree,
)

Call = tuple[Callable[..., Any], dict[str, Any]]

ROWS = 8
KEY = random.PRNGKey(0)
X = torch.linspace(-1, 1, ROWS * OBS).reshape(ROWS, OBS)
ARRAYS = {
    "observations": np.ones((ROWS, OBS), np.float32),
    "next_observations": np.ones((ROWS, OBS), np.float32),
    "actions": np.zeros((ROWS, ACT), np.float32),
    "rewards": np.arange(ROWS, dtype=np.float32),
    "masks": np.ones(ROWS, np.float32),
    "dones": np.arange(ROWS) % 4 == 3,
}
PARAMS = {"w": torch.ones(3), "b": torch.zeros(2)}


def of_random() -> Iterator[tuple[str, Call]]:
    r = random
    yield "PRNGKey", (r.PRNGKey, {"seed": 0, "device": None})
    yield "key", (r.key, {"seed": 0, "device": None})
    yield "key_data", (r.key_data, {"keys": KEY})
    yield "wrap_key_data", (r.wrap_key_data, {"words": KEY})
    yield "split", (r.split, {"key": KEY, "num": 3})
    yield "split_chain", (r.split_chain, {"key": KEY, "num": 3, "carry": 0})
    yield "fold_in", (r.fold_in, {"key": KEY, "data": 3})
    yield "bits", (r.bits, {"key": KEY, "shape": (3,), "dtype": None})
    yield (
        "uniform",
        (r.uniform, {"key": KEY, "shape": (3,), "dtype": None, "minval": 0.0, "maxval": 1.0}),
    )
    yield "normal", (r.normal, {"key": KEY, "shape": (3,), "dtype": None})
    yield (
        "truncated_normal",
        (r.truncated_normal, {"key": KEY, "lower": -1.0, "upper": 1.0, "shape": (3,)}),
    )
    yield (
        "randint",
        (r.randint, {"key": KEY, "shape": (3,), "minval": 0, "maxval": 9, "dtype": None}),
    )
    yield "bernoulli", (r.bernoulli, {"key": KEY, "p": 0.5, "shape": (3,)})
    yield "permutation", (r.permutation, {"key": KEY, "x": 5, "axis": 0, "independent": False})
    yield (
        "choice",
        (r.choice, {"key": KEY, "a": 5, "shape": (2,), "replace": True, "p": None, "axis": 0}),
    )
    yield "categorical", (r.categorical, {"key": KEY, "logits": X, "axis": -1, "shape": None})
    yield "gumbel", (r.gumbel, {"key": KEY, "shape": (3,), "dtype": None})


def of_floor() -> Iterator[tuple[str, Call]]:
    t, double = transforms, lambda x: x * 2
    loss = lambda x: (x * x).sum()
    yield "jit", (lambda x: transforms.jit(double)(x), {"x": X})
    yield (
        "jit.static",
        (lambda nums: transforms.jit(double, static_argnums=nums), {"nums": ()}),
    )
    yield "grad", (lambda x: t.grad(loss)(x), {"x": X})
    yield "grad.argnums", (lambda argnums: t.grad(loss, argnums)(X), {"argnums": 0})
    yield "value_and_grad", (lambda x: t.value_and_grad(loss)(x), {"x": X})
    yield "vmap", (lambda x: t.vmap(double)(x), {"x": X})
    yield (
        "vmap.axes",
        (
            lambda in_axes, out_axes, axis_size, chunk: t.vmap(
                double, in_axes, out_axes, chunk, axis_size=axis_size
            )(X),
            {"in_axes": 0, "out_axes": 0, "axis_size": None, "chunk": None},
        ),
    )
    step = lambda c, x: (c + 1, c)
    yield (
        "scan",
        (
            lambda **kw: t.scan(step, **kw),
            {"init": torch.tensor(0.0), "xs": X, "length": ROWS, "reverse": False},
        ),
    )
    yield "tree_flatten", (t.tree_flatten, {"tree": PARAMS})
    yield "tree_leaves", (t.tree_leaves, {"tree": PARAMS})
    yield "tree_map", (lambda **kw: t.tree_map(lambda a, b: a, *kw.values()), {"a": X, "b": X})
    yield "tree_paths", (t.tree_paths, {"tree": PARAMS})
    yield "tree_stack", (t.tree_stack, {"trees": [PARAMS, PARAMS]})
    spec = t.tree_flatten(PARAMS)[1]
    yield "tree_unflatten", (t.tree_unflatten, {"treespec": spec, "leaves": [1, 2]})
    yield "tree_unstack", (t.tree_unstack, {"tree": {"a": X}})
    yield "flatten_params", (tree.flatten_params, {"params": {"a": PARAMS}})
    yield (
        "dynamic_slice",
        (t.dynamic_slice, {"operand": X, "start_indices": (1, 2), "slice_sizes": (2, 1)}),
    )
    yield (
        "dynamic_slice_in_dim",
        (t.dynamic_slice_in_dim, {"operand": X, "start_index": 1, "slice_size": 2, "axis": 0}),
    )
    yield (
        "dynamic_index_in_dim",
        (t.dynamic_index_in_dim, {"operand": X, "index": 1, "axis": 0, "keepdims": True}),
    )
    yield (
        "dynamic_update_slice",
        (t.dynamic_update_slice, {"operand": X, "update": X[:2], "start_indices": (1, 0)}),
    )
    yield (
        "dynamic_update_slice_in_dim",
        (
            t.dynamic_update_slice_in_dim,
            {"operand": X, "update": X[:2], "start_index": 1, "axis": 0},
        ),
    )
    yield "stop_gradient", (t.stop_gradient, {"x": PARAMS})
    yield "logsumexp", (t.logsumexp, {"a": X, "axis": 0, "b": None, "keepdims": True})
    yield "ShapeDtypeStruct", (t.ShapeDtypeStruct, {"shape": (2, 3), "dtype": torch.float32})
    yield "eval_shape", (lambda **kw: t.eval_shape(double, *kw.values()), {"x": X})
    yield "eval_shape.fun", (lambda fun: t.eval_shape(fun, X), {"fun": double})
    yield "debug.print", (debug.print, {"fmt": "x = {x}", "x": X})
    yield "FrozenDict", (struct.FrozenDict, {"a": PARAMS})
    yield "freeze", (struct.freeze, {"xs": PARAMS})
    yield "unfreeze", (struct.unfreeze, {"x": PARAMS})
    yield "enable_x64", (lambda flag: _within(idql_func.enable_x64(flag)), {"flag": True})
    yield "disable_jit", (lambda flag: _within(idql_func.disable_jit(flag)), {"flag": True})

    state = struct.TrainState.create(params=PARAMS, tx=optim.adam(0.1))
    yield (
        "TrainState.create",
        (struct.TrainState.create, {"params": PARAMS, "tx": optim.adam(0.1), "apply_fn": None}),
    )
    yield "TrainState.apply_gradients", (state.apply_gradients, {"grads": PARAMS})
    yield "TrainState.replace", (lambda step: state.replace(step=step), {"step": 1})


def _within(context: Any) -> None:
    with context:
        pass


def of_optim() -> Iterator[tuple[str, Call]]:
    o, tx = optim, optim.adam(0.1)
    yield "constant_schedule", (o.constant_schedule, {"value": 0.1})
    yield (
        "cosine_decay_schedule",
        (o.cosine_decay_schedule, {"init_value": 0.1, "decay_steps": 9, "alpha": 0.0}),
    )
    yield (
        "schedule of a count",
        (o.cosine_decay_schedule(0.1, 9), {"count": torch.tensor(3)}),
    )
    yield "adam", (o.adam, {"learning_rate": 0.1, "b1": 0.9, "b2": 0.999, "eps": 1e-8})
    yield (
        "adamw",
        (o.adamw, {"learning_rate": 0.1, "b1": 0.9, "eps": 1e-8, "weight_decay": 0.1}),
    )
    yield (
        "linear_schedule",
        (
            o.linear_schedule,
            {"init_value": 0.1, "end_value": 0.0, "transition_steps": 3, "transition_begin": 1},
        ),
    )
    schedules = [o.constant_schedule(0.1), o.cosine_decay_schedule(0.1, 9)]
    joined = {"schedules": schedules, "boundaries": [3]}
    yield "join_schedules", (o.join_schedules, joined)
    yield "joined at a count", (o.join_schedules(schedules, [3]), {"count": torch.tensor(3)})
    yield "clip", (o.clip, {"max_delta": 0.1})
    yield "clip_by_global_norm", (o.clip_by_global_norm, {"max_norm": 0.1})
    yield "clipped", (o.clip_by_global_norm(0.1).update, {"updates": PARAMS, "state": ()})
    yield "global_norm", (o.global_norm, {"updates": PARAMS})
    yield "scale_by_adam", (o.scale_by_adam, {"b1": 0.9, "b2": 0.9, "eps": 1e-8, "eps_root": 0.0})
    yield "scale_by_schedule", (o.scale_by_schedule, {"step_size_fn": schedules[1]})
    yield "sgd", (o.sgd, {"learning_rate": 0.1, "momentum": 0.9, "nesterov": True})
    yield "adamw.mask", (lambda mask: o.adamw(0.1, mask=mask).init(PARAMS), {"mask": None})
    yield "chain", (lambda part: o.chain(part), {"part": tx})
    yield "init", (tx.init, {"params": PARAMS})
    state = tx.init(PARAMS)
    yield "update", (tx.update, {"updates": PARAMS, "state": state, "params": PARAMS})
    yield "step", (o.step, {"tx": tx, "grads": PARAMS, "state": state, "params": PARAMS})
    yield "learning_rate_of", (o.learning_rate_of, {"tx": tx})
    yield "with_learning_rate", (o.with_learning_rate, {"tx": tx, "rate": 0.2})
    yield "apply_updates", (o.apply_updates, {"params": PARAMS, "updates": PARAMS})
    yield (
        "incremental_update",
        (
            o.incremental_update,
            {"new_tensors": PARAMS, "old_tensors": PARAMS, "step_size": 0.1},
        ),
    )


def of_losses() -> Iterator[tuple[str, Call]]:
    yield "asymmetry", (losses.asymmetry, {"diff": X, "level": 0.7})
    yield "expectile_loss", (losses.expectile_loss, {"diff": X, "expectile": 0.7})
    yield "quantile_loss", (losses.quantile_loss, {"diff": X, "quantile": 0.7})
    yield "exp_w_clip", (losses.exp_w_clip, {"x": X, "x0": 1.0, "mode": "zero"})
    yield (
        "exponential_loss",
        (losses.exponential_loss, {"diff": X, "beta": 1.0, "clip": 1.0, "mode": "zero"}),
    )
    yield "l2_loss", (losses.l2_loss, {"predictions": X, "targets": X})
    yield "huber_loss", (losses.huber_loss, {"predictions": X, "targets": X, "delta": 1.0})
    yield (
        "sigmoid_binary_cross_entropy",
        (losses.sigmoid_binary_cross_entropy, {"logits": X, "labels": X}),
    )
    yield (
        "critic_objective_loss",
        (
            losses.critic_objective_loss,
            {"diff": X, "objective": "expectile", "hyperparam": 0.7},
        ),
    )
    yield (
        "advantage_weights",
        (
            losses.advantage_weights,
            {
                "adv": X,
                "objective": "exp_adv",
                "critic_hyperparam": 0.7,
                "policy_temperature": 1.0,
                "hard_adv_threshold": 0.0,
            },
        ),
    )
    yield (
        "implicit_policy_weights",
        (
            losses.implicit_policy_weights,
            {"adv": X, "objective": "quantile", "critic_hyperparam": 0.7},
        ),
    )


def of_networks() -> Iterator[tuple[str, Call]]:
    n = networks
    net = n.MLP(OBS, [4])
    params = net.init(KEY)
    yield "MLP", (n.MLP, {"input_dim": 3, "hidden_dims": [4], "dropout_rate": None})
    yield "Dense", (n.Dense, {"input_dim": 3, "features": 2})
    yield "LayerNorm", (n.LayerNorm, {"input_dim": 3, "epsilon": 1e-6})
    yield "Dropout", (n.Dropout, {"rate": 0.1})
    yield "GroupNorm", (n.GroupNorm, {"input_dim": 8, "num_groups": 4})
    yield "FourierFeatures", (n.FourierFeatures, {"output_size": 4})
    yield "init", (n.init, {"module": net, "key": KEY})
    yield "apply", (lambda module, params, x: n.apply(module, params, x), {
        "module": net, "params": params, "x": X,
    })  # fmt: skip
    yield (
        "Ensemble",
        (
            lambda num, size: n.Ensemble(n.StateValue, n.MLP, size, [4], num=num),
            {"num": 2, "size": 3},
        ),
    )
    yield (
        "subsample_ensemble",
        (
            n.subsample_ensemble,
            {"key": KEY, "params": {"a": torch.ones(4, 2)}, "num_sample": 2, "num_qs": 4},
        ),
    )
    for name in ("cosine", "linear", "vp"):
        yield (
            f"{name}_beta_schedule",
            (
                getattr(n, f"{name}_beta_schedule"),
                {{"cosine": "timesteps", "linear": "timesteps", "vp": "timesteps"}[name]: 5},
            ),
        )
    yield "relu", (n.relu, {"x": X})
    yield "swish", (n.swish, {"x": X})
    yield "mish", (n.mish, {"x": X})
    yield "gelu", (n.gelu, {"x": X, "approximate": False})
    yield (
        "max_pool",
        (n.max_pool, {"x": torch.ones(1, 4, 4, 2), "window_shape": (2, 2), "strides": (2, 2)}),
    )
    yield "get_weight_decay_mask", (n.get_weight_decay_mask, {"params": params})
    policy = distributions.Normal(n.MLP, input_dim=3, hidden_dims=[4], action_dim=2)
    dist = policy.apply(policy.init(KEY), X)
    yield (
        "Normal",
        (
            lambda **kw: distributions.Normal(n.MLP, input_dim=3, hidden_dims=[4], **kw),
            {"action_dim": 2, "log_std_min": -1.0, "log_std_max": 1.0},
        ),
    )
    d = distributions
    vector = {"loc": X, "scale_diag": torch.ones(ROWS, OBS)}
    yield "Categorical", (d.Categorical, {"logits": X, "probs": None, "dtype": None})
    yield "Deterministic", (d.Deterministic, {"loc": X, "atol": 0.0, "rtol": 0.0})
    yield "UnivariateNormal", (d.UnivariateNormal, {"loc": X, "scale": 1.0})
    yield "MultivariateNormalDiag", (d.MultivariateNormalDiag, vector)
    normal, two = d.MultivariateNormalDiag(**vector), d.Categorical(X)
    joint = {"distribution": two, "reinterpreted_batch_ndims": 1}
    yield "Independent", (d.Independent, joint)
    yield "TanhTransformed", (d.TanhTransformed, {"distribution": normal})
    for name, each in {
        "Categorical": two,
        "Deterministic": d.Deterministic(X),
        "MultivariateNormalDiag": normal,
        "UnivariateNormal": d.UnivariateNormal(X, 1.0),
        "Independent": d.Independent(d.UnivariateNormal(X, 1.0), 1),
        "TanhTransformed": d.TanhTransformed(normal),
    }.items():
        value = torch.zeros(ROWS, OBS)
        yield f"{name}.sample", (each.sample, {"key": KEY, "sample_shape": (2,)})
        yield (
            f"{name}.sample_and_log_prob",
            (each.sample_and_log_prob, {"key": KEY, "sample_shape": (2,)}),
        )
        yield f"{name}.log_prob", (each.log_prob, {"value": value[:, 0] if each is two else value})
        yield f"{name}.prob", (each.prob, {"value": value[:, 0] if each is two else value})
        yield f"{name}.kl_divergence", (each.kl_divergence, {"other": each})
    yield "sample", (dist.sample, {"key": KEY, "sample_shape": (2,)})
    yield "sample_and_log_prob", (dist.sample_and_log_prob, {"key": KEY, "sample_shape": (2,)})
    yield "log_prob", (dist.log_prob, {"value": torch.zeros(ROWS, 2)})


def of_data() -> Iterator[tuple[str, Call]]:
    make = lambda: data.Dataset(dict(ARRAYS), seed=0)
    yield "Dataset", (data.Dataset, {"dataset_dict": dict(ARRAYS), "seed": 0, "device": "cpu"})
    yield "Dataset.seed", (lambda seed: make().seed(seed), {"seed": 0})
    yield (
        "Dataset.sample",
        (lambda **kw: make().sample(**kw), {"batch_size": 2, "keys": None, "indx": None}),
    )
    yield (
        "Dataset.sample_torch",
        (lambda **kw: make().sample_torch(**kw), {"batch_size": 2, "key": None, "keys": None}),
    )
    yield "Dataset.split", (lambda ratio: make().split(ratio), {"ratio": 0.5})
    yield (
        "Dataset.filter",
        (lambda **kw: make().filter(**kw), {"take_top": 50.0, "threshold": None}),
    )
    yield (
        "Dataset.normalize_returns",
        (lambda scaling: make().normalize_returns(scaling), {"scaling": 1000}),
    )
    yield "Dataset.to", (lambda device: make().to(device), {"device": "cpu"})
    yield (
        "Dataset.get_iterator",
        (
            lambda queue_size, batch: next(make().get_iterator(queue_size, {"batch_size": batch})),
            {"queue_size": 1, "batch": 2},
        ),
    )
    spaces: Any = {"observation_space": box(OBS), "action_space": box(ACT)}
    yield "ReplayBuffer", (data.ReplayBuffer, {**spaces, "capacity": 9, "seed": 0})
    row = {name: value[0] for name, value in ARRAYS.items()}
    yield (
        "ReplayBuffer.insert",
        (lambda row: data.ReplayBuffer(**spaces, capacity=9).insert(row), {"row": row}),
    )
    for field, valid in row.items():
        yield (
            f"ReplayBuffer.insert {field}",
            (
                lambda value, field=field: data.ReplayBuffer(**spaces, capacity=9).insert(
                    {**row, field: value}
                ),
                {"value": valid},
            ),
        )
        yield (
            f"validate_transitions {field}",
            (
                lambda value, field=field: data.validate_transitions({**ARRAYS, field: value}),
                {"value": ARRAYS[field]},
            ),
        )
    yield "validate_transitions", (data.validate_transitions, {"dataset_dict": ARRAYS})
    yield "D4RLDataset", (data.D4RLDataset, {"source": "nothing.hdf5", "eps": 1e-5})
    yield "BinaryDataset", (data.BinaryDataset, {"source": "nothing.npy"})
    yield "MinariDataset", (data.MinariDataset, {"source": "nothing"})
    yield "fit_mean_std", (data.fit_mean_std, {"x": X})
    yield "fit_min_max", (data.fit_min_max, {"x": X})
    yield (
        "normalized_score",
        (data.normalized_score, {"name": "hopper-medium-v2", "ret": 100.0}),
    )
    yield "reference_scores", (data.reference_scores, {"name": "hopper-medium-v2"})


def of_envs() -> Iterator[tuple[str, Call]]:
    yield "make_env", (lambda name: envs.make_env(name).close(), {"name": "Pendulum-v1"})
    yield "gymnasium_id", (envs.gymnasium_id, {"name": "Pendulum-v1"})
    make = lambda: envs.wrap_gym(gym.make("Pendulum-v1"))
    yield "wrap_gym", (envs.wrap_gym, {"env": gym.make("Pendulum-v1"), "rescale_actions": True})
    yield (
        "RepeatAction",
        (lambda repeat: envs.RepeatAction(make(), repeat), {"repeat": 2}),
    )
    yield "UniversalSeed.seed", (lambda seed: envs.UniversalSeed(make()).seed(seed), {"seed": 0})
    policy = agents.BCLearner.create(0, box(3), box(1), hidden_dims=(4,))
    yield (
        "evaluate",
        (
            lambda learner, **kw: evaluation.evaluate(learner, _short, **kw),
            {"learner": policy, "num_episodes": 1, "seed": 0, "num_envs": None},
        ),
    )
    yield "episode_seeds", (evaluation.episode_seeds, {"seed": 0, "num_episodes": 2})


def _short() -> gym.Env:
    return gym.wrappers.TimeLimit(envs.wrap_gym(gym.make("Pendulum-v1").unwrapped), 2)


def of_interop() -> Iterator[tuple[str, Call]]:
    learner = make_state_learner("bc")
    yield "to_state_dict", (interop.to_state_dict, {"target": learner})
    state = interop.to_state_dict(learner)
    yield "from_state_dict", (interop.from_state_dict, {"target": learner, "state": state})
    yield "to_bytes", (interop.to_bytes, {"target": learner})
    content = interop.to_bytes(learner)
    yield "from_bytes", (interop.from_bytes, {"target": learner, "data": content})
    yield "msgpack_serialize", (interop.msgpack_serialize, {"tree": {"a": np.ones(2)}})
    encoded = interop.msgpack_serialize({"a": np.ones(2)})
    yield "msgpack_restore", (interop.msgpack_restore, {"data": encoded})
    yield "policy_module", (interop.policy_module, {"learner": learner})
    policy = interop.policy_module(learner)
    yield "Policy.forward", (policy, {"observations": X})
    yield "load_policy", (interop.load_policy, {"path": "nothing"})
    yield "latest_checkpoint", (interop.latest_checkpoint, {"ckpt_dir": "nothing"})
    yield (
        "restore_checkpoint",
        (interop.restore_checkpoint, {"ckpt_dir": "nothing", "target": learner}),
    )


_CALLED = ("bc", "iql", "sac", "td3", "fql", "ifql", "rebrac")


def learners() -> dict[str, tuple[Any, dict[str, Any]]]:
    """Each learner's class and its settings."""
    state = [STATE_LEARNERS[name][:2] for name in _CALLED]
    return {cls.__name__: (cls, settings) for cls, settings in (*state, *TINY.items())}


def of_learners() -> Iterator[tuple[str, Call]]:
    import inspect

    for name, (cls, settings) in learners().items():
        spaces = {"observation_space": box(OBS), "action_space": box(ACT)}
        defaults = {
            k: p.default
            for k, p in inspect.signature(cls.create).parameters.items()
            if p.kind == p.KEYWORD_ONLY
        }
        yield f"{name}.create", (cls.create, {"seed": 0, **spaces, **defaults, **settings})
        learner = cls.create(0, *spaces.values(), **settings)
        yield f"{name}.update", (learner.update, {"batch": make_batch()})
        for field in make_batch():
            yield (
                f"{name}.update {field}",
                (
                    lambda value, learner=learner, field=field: learner.update(
                        {**make_batch(), field: value}
                    ),
                    {"value": make_batch()[field]},
                ),
            )
        if name in ("SACLearner", "TD3Learner"):
            yield (
                f"{name}.update utd",
                (
                    lambda utd_ratio, learner=learner: learner.update(make_batch(), utd_ratio),
                    {"utd_ratio": 1},
                ),
            )
        if name in ("FQLLearner", "IFQLLearner", "ReBRACLearner"):
            acting = {"seed": KEY, "temperature": 1.0}
            given = {"observations": X, **acting}
            yield f"{name}.sample_actions key", (learner.sample_actions, given)
        if name == "ReBRACLearner":
            options = {"batch": make_batch(), "full_update": True}
            yield f"{name}.update full", (learner.update, options)
        for method in ("eval_actions", "sample_actions", "sample_implicit_policy"):
            if hasattr(learner, method):
                yield f"{name}.{method}", (getattr(learner, method), {"observations": X})
        yield f"{name}.to", (learner.to, {"device": "cpu"})


GROUPS: dict[str, Callable[[], Iterator[tuple[str, Call]]]] = {
    "random": of_random,
    "floor": of_floor,
    "optim": of_optim,
    "losses": of_losses,
    "networks": of_networks,
    "data": of_data,
    "envs": of_envs,
    "interop": of_interop,
    "learners": of_learners,
    **public_calls_more.GROUPS,
}
