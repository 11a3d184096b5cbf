"""Cases of the two IDQL learners."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from parity.cases.case import Case, Options


def _learner(learner: str, seed: int, **kwargs: Any) -> Options:
    """Settings of a learner whose critic is small; the actor's width is fixed by the original."""
    defaults: Options = {"critic_hidden_dims": [32, 32]}
    if learner == "simple" or kwargs.get("actor_architecture") == "ln_resnet":
        defaults["actor_num_blocks"] = 1
    else:
        defaults["actor_hidden_dims"] = [32, 32]
    return {
        "learner": learner,
        "seed": seed,
        "obs_dim": 5,
        "act_dim": 3,
        "kwargs": {**defaults, "time_dim": 16, **kwargs},
        "batch": 32,
        "batch_seed": seed,
        "keep": 96,
    }


def learners() -> dict[str, Options]:
    """Settings of every learner that is trained, by name: all objectives, most options once."""
    resnet = {"actor_architecture": "ln_resnet"}
    full = {**resnet, "actor_layer_norm": True, "actor_dropout_rate": 0.1}
    named: dict[str, Options] = {
        "simple": _learner("simple", 0),
        "simple-dropout": _learner("simple", 1, actor_dropout_rate=0.1),
        "simple-dropout-cosine": _learner(
            "simple", 2, actor_dropout_rate=0.1, beta_schedule="cosine", decay_steps=None
        ),
        "simple-linear-no_layer_norm": _learner(
            "simple",
            3,
            beta_schedule="linear",
            actor_layer_norm=False,
            value_layer_norm=False,
            actor_dropout_rate=0.3,
        ),
        "simple-T1-qs5": _learner("simple", 4, T=1, num_qs=5, critic_hyperparam=0.9, M=2),
        "simple-two_blocks": _learner(
            "simple", 42, actor_num_blocks=2, actor_dropout_rate=0.1, decay_steps=20, T=10
        ),
        "simple-rates": _learner(
            "simple",
            2**32 - 1,
            actor_lr=1e-3,
            critic_lr=1e-3,
            value_lr=2e-3,
            tau=0.05,
            actor_tau=0.1,
            discount=0.9,
        ),
    }
    objectives = itertools.product(
        ("expectile", "quantile", "exponential"), ("bc", "soft_adv", "hard_adv", "exp_adv")
    )
    options: list[Options] = [
        {"beta_schedule": "vp"},
        {**full, "beta_schedule": "cosine", "num_qs": 5},
        {"actor_layer_norm": True, "beta_schedule": "linear", "decay_steps": None},
        {**resnet, "T": 1, "M": 2},
    ]
    for index, (critic, actor) in enumerate(objectives):
        # A shift by one for each critic objective, so that every option meets every objective.
        chosen = options[(index + index // 4) % 4]
        named[f"general-{critic}-{actor}"] = _learner(
            "general", 100 + index, critic_objective=critic, actor_objective=actor, **chosen
        )
    named["general-exp_adv-warm"] = _learner(
        "general", 7, actor_objective="exp_adv", policy_temperature=30.0, critic_hyperparam=0.9
    )
    named["general-dropout-decay"] = _learner("general", 8, **full, decay_steps=20)
    sizes: Options = {"obs_dim": 17, "act_dim": 6, "batch": 64, "batch_seed": 9, "keep": 96}
    named["simple-default"] = {
        **sizes,
        "learner": "simple",
        "seed": 9,
        "kwargs": {"actor_dropout_rate": 0.1},
    }
    named["general-default"] = {**sizes, "learner": "general", "seed": 9, "kwargs": {}}
    named["simple-newer"] = {**named["simple-dropout"], "partitionable": True}
    return named


def learner_cases() -> Iterator[Case]:
    """Creation, single updates, 25 updates, action choice and double precision."""
    all_learners = learners()
    kinds = {"rng": "bits", "constants": "forward", "params": "init"}
    for name, settings in all_learners.items():
        if name.startswith("general-") and "-bc" not in name and "dropout" not in name:
            continue
        yield Case("create", name, "create", {**settings, "keep": 128}, kinds)

    single = {
        "rng": "bits",
        "losses": "loss",
        "means": "mean",
        "params": "state",
        "norms": "state",
        "gradient": "gradient",
    }
    for name, settings in all_learners.items():
        one = {**settings, "method": "update", "steps": 1, "moments": True, "keep": 64}
        yield Case("update", name, "run", one, single)
    parts: dict[str, tuple[str, str, list[str] | None]] = {
        "simple-actor_update": ("simple-dropout", "actor_update", None),
        "simple-critic_update": ("simple-dropout", "critic_update", None),
        "general-actor_update": ("general-dropout-decay", "actor_update", None),
        "general-critic_update": ("general-quantile-soft_adv", "critic_update", None),
        # The port's held-out losses cover more than the original's; the actor's is common.
        "general-eval_loss": ("general-dropout-decay", "eval_loss", ["actor_loss"]),
    }
    for name, (learner, method, infos) in parts.items():
        settings = {**all_learners[learner], "method": method, "steps": 2, "keep": 64}
        if infos is not None:
            settings["infos"] = infos
        yield Case("update", name, "run", settings, single)

    for name, settings in all_learners.items():
        many = {**settings, "method": "update", "steps": 25}
        yield Case("update25", name, "run", many, single)

    yield from action_cases(all_learners)

    double = {
        "rng": "bits",
        "losses": "double_loss",
        "means": "double",
        "params": "double",
        "norms": "double",
    }
    lengths = {
        "simple": 50,
        "simple-dropout": 200,
        "simple-two_blocks": 50,
        "simple-T1-qs5": 25,
        "general-dropout-decay": 100,
        "general-expectile-exp_adv": 50,
        "general-quantile-soft_adv": 50,
        "general-exponential-hard_adv": 50,
        "general-exp_adv-warm": 100,
    }
    for name, steps in lengths.items():
        settings = {**all_learners[name], "method": "update", "steps": steps, "x64": True}
        yield Case("double", name, "run", {**settings, "batch": 16}, double)


def action_cases(all_learners: dict[str, Options]) -> Iterator[Case]:
    """Actions and keys, for several observations in sequence."""
    chosen: dict[str, tuple[str, str, Options]] = {
        "simple": ("simple", "eval_actions", {}),
        "simple-N64-repeat": ("simple-dropout", "eval_actions", {"N": 64, "M": 2}),
        "simple-T1": ("simple-T1-qs5", "eval_actions", {}),
        "simple-N1": ("simple-two_blocks", "eval_actions", {"N": 1}),
        "simple-cold": ("simple-dropout-cosine", "eval_actions", {"ddpm_temperature": 0.5}),
        "simple-unclipped": (
            "simple-linear-no_layer_norm",
            "eval_actions",
            {"clip_sampler": False},
        ),
        "general": ("general-dropout-decay", "eval_actions", {}),
        "general-mlp-repeat": ("general-exp_adv-warm", "eval_actions", {"M": 2}),
        "implicit-expectile": ("general-expectile-bc", "sample_implicit_policy", {}),
        "implicit-expectile-N64": (
            "general-dropout-decay",
            "sample_implicit_policy",
            {"N": 64, "critic_hyperparam": 0.9},
        ),
        # Quirks E1 and E2: the port samples by corrected weights; parity has the literal ones.
        "implicit-quantile-literal": ("general-quantile-bc", "literal_implicit", {}),
        "implicit-exponential-literal": ("general-exponential-bc", "literal_implicit", {}),
    }
    kinds = {"actions": "action", "rng": "bits"}
    for name, (learner, choose, changes) in chosen.items():
        base = all_learners[learner]
        settings = {
            **base,
            "kwargs": {**base["kwargs"], "N": 16, **changes},
            "method": "update",
            "steps": 5,
            "choose": choose,
            "observations": 6,
        }
        yield Case("actions", name, "act", settings, kinds)
    for name in ("simple-N64-repeat", "implicit-expectile"):
        learner, choose, changes = chosen[name]
        base = all_learners[learner]
        settings = {
            **base,
            "kwargs": {**base["kwargs"], "N": 16, **changes},
            "method": "update",
            "steps": 5,
            "choose": choose,
            "observations": 6,
            "x64": True,
        }
        yield Case(
            "actions", f"{name}-double", "act", settings, {"actions": "double", "rng": "bits"}
        )
