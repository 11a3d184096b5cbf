"""Build an IDQL learner from its settings: checks, networks, optimisers, initial values."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from idql_func import losses, optim, random
from idql_func.agents.checks import (
    box_size,
    check_dropout,
    check_fraction,
    check_integer,
    check_layers,
    check_name,
    check_number,
    check_rate,
    key_of_seed,
)
from idql_func.agents.factories import critic_network, target_state, train_state, value_network
from idql_func.networks import (
    DDPM,
    MLP,
    FourierFeatures,
    MLPResNet,
    Module,
    cosine_beta_schedule,
    get_weight_decay_mask,
    linear_beta_schedule,
    vp_beta_schedule,
)
from idql_func.types import InputError

BETA_SCHEDULES = {
    "cosine": cosine_beta_schedule,
    "linear": linear_beta_schedule,
    "vp": vp_beta_schedule,
}
ARCHITECTURES = ("mlp", "ln_resnet")
_DEFAULT_HIDDEN_DIMS = (256, 256, 256)


@dataclass(frozen=True)
class ActorSettings:
    """Settings of the noise predictor's network, except its input and output sizes."""

    architecture: str
    time_dim: int
    cond_dims: tuple[int, ...]
    activation: Callable[[Tensor], Tensor]
    layer_norm: bool
    hidden_dims: tuple[int, ...] = _DEFAULT_HIDDEN_DIMS
    num_blocks: int = 0
    dropout_rate: float | None = None

    def check(self) -> None:
        """Check the settings; messages use the argument names of ``create``.

        Raises:
            InputError: a setting is out of range, or has no effect with this architecture.
        """
        check_name("actor_architecture", self.architecture, ARCHITECTURES)
        check_layers("actor_hidden_dims", self.hidden_dims)
        check_integer("actor_num_blocks", self.num_blocks, 0, 10_000)
        check_integer("time_dim", self.time_dim, 2)
        if self.time_dim % 2:
            raise InputError(f"time_dim must be even and at least 2, got {self.time_dim}.")
        check_dropout("actor_dropout_rate", self.dropout_rate)
        if self.architecture == "ln_resnet" and self.hidden_dims != _DEFAULT_HIDDEN_DIMS:
            raise InputError(
                "actor_hidden_dims has no effect with actor_architecture='ln_resnet', whose "
                "size is set by actor_num_blocks: leave it out, or use 'mlp'."
            )


# Networks hold no weights, so equal settings share one object. Learners with equal settings then
# have equal static fields, can be stacked as trees, and use the same compiled program.


@functools.cache
def actor_network(settings: ActorSettings, obs_dim: int, act_dim: int) -> Module:
    """The noise predictor of IDQL (section 5 of arXiv 2304.10573)."""
    input_dim = act_dim + obs_dim + settings.cond_dims[-1]
    act, norm = settings.activation, settings.layer_norm
    if settings.architecture == "mlp":
        reverse: Module = MLP(input_dim, (*settings.hidden_dims, act_dim), act, use_layer_norm=norm)
    else:
        reverse = MLPResNet(
            input_dim, settings.num_blocks, act_dim, settings.dropout_rate, norm, activations=act
        )
    cond = MLP(settings.time_dim, settings.cond_dims, act)
    return DDPM(cond, reverse, FourierFeatures(settings.time_dim))


def build(
    cls: Any,
    seed: int,
    observation_space: Any,
    action_space: Any,
    *,
    actor: ActorSettings,
    critic_hidden_dims: Sequence[int],
    num_qs: int,
    value_layer_norm: bool,
    actor_lr: float | optim.Schedule,
    critic_lr: float | optim.Schedule,
    value_lr: float | optim.Schedule,
    decay_steps: int | None,
    beta_schedule: str,
    actor_weight_decay: float | None = None,
    **fields: Any,
) -> Any:
    """Create a learner of class ``cls`` with upstream's initial values for the seed.

    ``fields`` holds the other fields of the learner by name.

    Raises:
        InputError: a setting is out of range.
    """
    obs_dim = box_size(observation_space, "observation_space")
    act_dim = box_size(action_space, "action_space")
    actor.check()
    check_layers("critic_hidden_dims", critic_hidden_dims)
    check_integer("num_qs", num_qs, 1)
    check_name("beta_schedule", beta_schedule, tuple(BETA_SCHEDULES))
    for name, rate in (("actor_lr", actor_lr), ("critic_lr", critic_lr), ("value_lr", value_lr)):
        check_rate(name, rate)
    _check_fields(fields)

    actor_def = actor_network(actor, obs_dim, act_dim)
    critic_def = critic_network(obs_dim, act_dim, tuple(critic_hidden_dims), num_qs)
    value_def = value_network(obs_dim, tuple(critic_hidden_dims), value_layer_norm)
    rng, actor_key, critic_key, value_key = random.split(key_of_seed(seed), 4).unbind(0)
    optimiser = _actor_optimiser(actor_lr, decay_steps, actor_weight_decay)
    score_model = train_state(actor_def, actor_def.init(actor_key), tx=optimiser)
    critic = train_state(critic_def, critic_def.init(critic_key), critic_lr)
    betas, alphas, alpha_hats = _noise_schedule(beta_schedule, fields["T"], rng.device)
    return cls(
        rng=rng.clone(),
        obs_dim=obs_dim,
        act_dim=act_dim,
        score_model=score_model,
        target_score_model=target_state(score_model),
        critic=critic,
        target_critic=target_state(critic),
        value=train_state(value_def, value_def.init(value_key), value_lr),
        betas=betas,
        alphas=alphas,
        alpha_hats=alpha_hats,
        **fields,
    )


def _noise_schedule(name: str, T: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    betas = BETA_SCHEDULES[name](T).to(device)
    alphas = 1 - betas
    # one product per prefix: a cumulative product rounds differently (quirk N11)
    alpha_hats = torch.stack([alphas[: i + 1].prod() for i in range(T)])
    if name == "linear" and float(alpha_hats[-1]) > 0.5:
        warnings.warn(
            f"beta_schedule='linear' with T={T} ends with alpha_hat {float(alpha_hats[-1]):.3f}, "
            "far from the pure noise that sampling starts from (quirk N10); use 'vp' or 'cosine'.",
            stacklevel=5,
        )
    return betas, alphas, alpha_hats


def _actor_optimiser(
    actor_lr: float | optim.Schedule, decay_steps: int | None, weight_decay: float | None
) -> optim.Chain:
    rate: Any = actor_lr
    if decay_steps is not None:
        check_integer("decay_steps", decay_steps, 1)
        if callable(actor_lr):
            raise InputError("actor_lr is already a schedule: pass decay_steps=None with it.")
        rate = optim.cosine_decay_schedule(actor_lr, decay_steps)
    if weight_decay is None:  # as upstream: optax's default decay on every leaf (quirks U12, U13)
        return optim.adamw(rate)
    return optim.adamw(rate, weight_decay=weight_decay, mask=get_weight_decay_mask)


def _check_fields(fields: dict[str, Any]) -> None:
    for name, least, most in (("T", 1, 100_000), ("N", 1, None), ("M", 0, 100_000)):
        check_integer(name, fields[name], least, most)
    for name in ("ddpm_temperature", "policy_temperature", "critic_hyperparam"):
        check_number(name, fields[name])
    for name in ("discount", "tau", "actor_tau"):
        check_fraction(name, fields[name])
    check_name("actor_objective", fields["actor_objective"], losses.ACTOR_OBJECTIVES)
    objective, level = fields["critic_objective"], fields["critic_hyperparam"]
    check_name("critic_objective", objective, losses.CRITIC_OBJECTIVES)
    if not (level > 0 if objective == "exponential" else 0 < level < 1):
        span = "above 0" if objective == "exponential" else "between 0 and 1"
        raise InputError(
            f"critic_hyperparam must be {span} for critic_objective={objective!r}, got {level}."
        )
