"""The port's side. Imports torch and ``idql_func``, never jax."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor

import idql_func
from idql_func import losses, optim, random
from idql_func import networks as nets
from idql_func.agents import DDPMIQLLearner, GeneralDDPMIQLLearner
from idql_func.data import Dataset
from parity.backend import Settings
from parity.literal import literal_implicit_action

_ACTIVATIONS = {"relu": nets.relu, "swish": nets.swish, "mish": nets.mish}
_SCHEDULES = {
    "cosine": nets.cosine_beta_schedule,
    "linear": nets.linear_beta_schedule,
    "vp": nets.vp_beta_schedule,
}
_LEARNERS = {"simple": DDPMIQLLearner, "general": GeneralDDPMIQLLearner}


class TorchNetwork:
    """A module of the port."""

    def __init__(self, module: nets.Module):
        self.module = module

    def init(self, key: Any) -> Any:
        return nets.init(self.module, key)

    def apply(
        self, params: Any, *inputs: Any, training: bool = False, dropout_key: Any = None
    ) -> Any:
        rngs = None if dropout_key is None else {"dropout": dropout_key}
        return nets.apply(self.module, params, *inputs, training=training, rngs=rngs)


def _mlp_options(settings: Settings) -> dict[str, Any]:
    options = {k: v for k, v in settings.items() if k != "net"}
    if "activations" in options:
        options["activations"] = _ACTIVATIONS[options["activations"]]
    return options


class TorchBackend:
    """:class:`parity.backend.Backend` over ``idql_func``.

    Args:
        compiled: whether jitted functions are compiled, or run eagerly.
    """

    def __init__(self, compiled: bool = False):
        self.random, self.losses, self.optim = random, losses, optim
        self.compiled = compiled

    @contextlib.contextmanager
    def flags(self, x64: bool, partitionable: bool) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            stack.enter_context(random.threefry_partitionable(partitionable))
            if x64:
                stack.enter_context(idql_func.enable_x64())
            if not self.compiled:
                stack.enter_context(idql_func.disable_jit())
            yield

    def array(self, value: np.ndarray) -> Any:
        return torch.from_numpy(np.array(value))

    def numpy(self, value: Any) -> np.ndarray:
        return value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)

    def grad(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return idql_func.grad(function)

    def tree_map(self, function: Callable[..., Any], tree: Any) -> Any:
        return idql_func.tree_map(function, tree)

    def nested(self, tree: Any) -> dict[str, Any]:
        return {
            name: self.nested(value) if isinstance(value, Mapping) else self.numpy(value)
            for name, value in tree.items()
        }

    def tree(self, nested: Mapping[str, Any]) -> Any:
        return {
            name: self.tree(value) if isinstance(value, Mapping) else self.array(value)
            for name, value in nested.items()
        }

    def _module(self, s: Settings) -> nets.Module:
        match s["net"]:
            case "MLP":
                return nets.MLP(**_mlp_options(s))
            case "MLPResNet":
                return nets.MLPResNet(**_mlp_options(s))
            case "FourierFeatures":
                return nets.FourierFeatures(s["output_size"], s["input_dim"], s["learnable"])
            case "StateValue":
                return nets.StateValue(nets.MLP, input_dim=s["obs_dim"], **_mlp_options(s["base"]))
            case "StateActionValue":
                width = s["obs_dim"] + s["act_dim"]
                return nets.StateActionValue(nets.MLP, input_dim=width, **_mlp_options(s["base"]))
            case "Ensemble":
                return nets.Ensemble(
                    nets.StateActionValue,
                    nets.MLP,
                    input_dim=s["obs_dim"] + s["act_dim"],
                    num=s["num"],
                    **_mlp_options(s["base"]),
                )
            case "DDPM":
                time = nets.FourierFeatures(s["time_dim"], learnable=s.get("learnable", True))
                cond = nets.MLP(**{**_mlp_options(s["cond"]), "input_dim": s["time_dim"]})
                width = s["act_dim"] + s["obs_dim"] + s["cond"]["hidden_dims"][-1]
                return nets.DDPM(cond, self._module({**s["reverse"], "input_dim": width}), time)
        raise ValueError(f"unknown network {s['net']!r}")

    def network(self, settings: Settings) -> TorchNetwork:
        return TorchNetwork(self._module(settings))

    def beta_schedule(self, name: str, timesteps: int) -> Any:
        return _SCHEDULES[name](timesteps)

    def sample_ddpm(
        self, network: Any, params: Any, key: Any, observations: Any, settings: Settings
    ) -> tuple[Any, Any]:
        betas = self.beta_schedule(settings["schedule"], settings["T"])
        alphas = 1 - betas
        alpha_hats = torch.stack([alphas[: i + 1].prod() for i in range(settings["T"])])
        return nets.ddpm_sampler(
            network.module.apply,
            params,
            settings["T"],
            key,
            settings["network"]["act_dim"],
            observations,
            alphas,
            alpha_hats,
            betas,
            settings["temperature"],
            settings["repeat_last_step"],
            settings["clip_sampler"],
        )

    def decay_mask(self, params: Any) -> Any:
        return nets.get_weight_decay_mask(params)

    def learner(self, settings: Settings) -> Any:
        observed = gymnasium.spaces.Box(-np.inf, np.inf, (settings["obs_dim"],), np.float32)
        acted = gymnasium.spaces.Box(-1.0, 1.0, (settings["act_dim"],), np.float32)
        options = {k: tuple(v) if isinstance(v, list) else v for k, v in settings["kwargs"].items()}
        learner = _LEARNERS[settings["learner"]].create(
            settings["seed"], observed, acted, **options
        )
        if not settings.get("x64"):
            return learner

        def widen(leaf: Any) -> Any:
            narrow = isinstance(leaf, Tensor) and leaf.dtype == torch.float32
            return leaf.double() if narrow else leaf

        return self.tree_map(widen, learner)

    def first_moments(self, learner: Any, name: str) -> dict[str, Any]:
        return self.nested(getattr(learner, name).opt_state[0].mu)

    def implicit_action(self, learner: Any, observation: Any) -> tuple[np.ndarray, Any]:
        return literal_implicit_action(learner, observation)

    def dataset(self, arrays: Mapping[str, np.ndarray], seed: int | None) -> Any:
        return Dataset(dict(arrays), seed)

    def sample_device(self, dataset: Any, batch_size: int) -> Mapping[str, Any]:
        return dataset.sample_torch(batch_size)
