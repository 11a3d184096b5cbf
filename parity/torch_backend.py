"""The port's side. Imports torch and ``idql_func``, never jax."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor

import idql_func
from idql_func import agents, distributions, losses, optim, random
from idql_func import networks as nets
from idql_func.agents import augmentations
from idql_func.data import Dataset, MemoryEfficientReplayBuffer, ReplayBuffer
from parity import inputs
from parity.backend import Settings
from parity.literal import literal_implicit_action
from parity.modes import Mode

_ACTIVATIONS = {"relu": nets.relu, "swish": nets.swish, "mish": nets.mish}
_SCHEDULES = {
    "cosine": nets.cosine_beta_schedule,
    "linear": nets.linear_beta_schedule,
    "vp": nets.vp_beta_schedule,
}
_LEARNERS = {
    "simple": "DDPMIQLLearner",
    "general": "GeneralDDPMIQLLearner",
    "bc": "BCLearner",
    "iql": "IQLLearner",
    "sac": "SACLearner",
    "td3": "TD3Learner",
    "drq": "DrQLearner",
    "pixel_bc": "PixelBCLearner",
}


def _space(settings: Settings) -> gymnasium.Space:
    box = gymnasium.spaces.Box
    if "space" not in settings or settings.get("flat"):
        return box(-np.inf, np.inf, (settings["obs_dim"],), np.float32)
    seen = inputs.pixel_observations(0, 1, settings["space"])
    spaces: dict[str, Any] = {}
    for name, values in seen.items():
        low, high = (0, 255) if values.ndim == 5 else (-np.inf, np.inf)
        spaces[name] = box(low, high, values.shape[1:], values.dtype.type)
    return gymnasium.spaces.Dict(spaces)


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
        result = nets.apply(self.module, params, *inputs, training=training, rngs=rngs)
        if not isinstance(result, distributions.Diagonal):
            return result
        return torch.cat([result.loc, result.scale.expand(result.loc.shape)], dim=-1)


def _mlp_options(settings: Settings) -> dict[str, Any]:
    options = {k: v for k, v in settings.items() if k != "net"}
    if "activations" in options:
        options["activations"] = _ACTIVATIONS[options["activations"]]
    return options


def _policy(s: Settings) -> Callable[..., nets.Module]:
    cls = getattr(distributions, s["net"])
    options = {**s.get("options", {}), **_mlp_options(s["base"])}
    return functools.partial(cls, nets.MLP, action_dim=s["act_dim"], **options)


def _multiplexer(s: Settings) -> nets.Module:
    head = s["head"]
    if head["net"] == "Ensemble":
        base = _mlp_options(head["base"])
        network_cls = functools.partial(
            nets.Ensemble, nets.StateActionValue, nets.MLP, num=head["num"], **base
        )
    else:
        network_cls = _policy({**head, "act_dim": s["act_dim"]})
    return nets.PixelMultiplexer(
        functools.partial(getattr(nets, s["encoder_net"]), **s["encoder"]),
        network_cls,
        s["latent_dim"],
        s["space"],
        s["act_dim"] if head["net"] == "Ensemble" else 0,
        **s["options"],
    )


class TorchBackend:
    """:class:`parity.backend.Backend` over ``idql_func``.

    Args:
        mode: how the port's functions run.
        device: where its arrays live.
    """

    def __init__(self, mode: Mode = "eager", device: str = "cpu"):
        self.random, self.losses, self.optim = random, losses, optim
        self.mode, self.device = mode, device

    @contextlib.contextmanager
    def flags(self, x64: bool, partitionable: bool) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            stack.enter_context(random.threefry_partitionable(partitionable))
            if x64:
                stack.enter_context(idql_func.enable_x64())
            if self.mode != "compiled":
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
            case "Normal" | "TanhDeterministic":
                return _policy(s)(input_dim=s["obs_dim"])
            case "D4PGEncoder" | "ResNetV2Encoder":
                return getattr(nets, s["net"])(s["shape"], **s["options"])
            case "PixelMultiplexer":
                return _multiplexer(s)
        raise ValueError(f"unknown network {s['net']!r}")

    def network(self, settings: Settings) -> TorchNetwork:
        return TorchNetwork(self._module(settings))

    def distribution(self, loc: Any, log_scale: Any, tanh: bool) -> Any:
        return distributions.Diagonal(loc=loc, scale=torch.exp(log_scale), tanh=tanh)

    def draw(self, distribution: Any, key: Any, shape: tuple[int, ...]) -> tuple[Any, Any]:
        return distribution.sample_and_log_prob(key, shape)

    def crop(self, key: Any, image: Any, padding: int) -> Any:
        return augmentations.random_crop(key, image, padding)

    def crops(self, key: Any, observations: Any, name: str, padding: int) -> Mapping[str, Any]:
        return augmentations.batched_random_crop(key, observations, name, padding)

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
        acted = gymnasium.spaces.Box(-1.0, 1.0, (settings["act_dim"],), np.float32)
        options = {k: tuple(v) if isinstance(v, list) else v for k, v in settings["kwargs"].items()}
        cls = getattr(agents, _LEARNERS[settings["learner"]])
        learner = cls.create(settings["seed"], _space(settings), acted, **options)
        if not settings.get("x64"):
            return learner

        def widen(leaf: Any) -> Any:
            narrow = isinstance(leaf, Tensor) and leaf.dtype == torch.float32
            return leaf.double() if narrow else leaf

        return self.tree_map(widen, learner)

    def first_moments(self, learner: Any, name: str) -> dict[str, Any]:
        return self.nested(getattr(learner, name).opt_state[0].mu)

    def batch(self, arrays: Any) -> Any:
        return self.tree(arrays) if isinstance(arrays, Mapping) else self.array(arrays)

    def choose(self, learner: Any, how: str, observations: Any) -> tuple[np.ndarray, Any]:
        if how == "literal_implicit":
            return literal_implicit_action(learner, observations)
        return getattr(learner, how)(observations)

    def dataset(self, arrays: Mapping[str, np.ndarray], seed: int | None) -> Any:
        return Dataset(dict(arrays), seed)

    def sample_device(self, dataset: Any, batch_size: int) -> Mapping[str, Any]:
        return dataset.sample_torch(batch_size)

    def replay(self, settings: Settings) -> Any:
        keys = settings.get("pixel_keys")
        acted = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
        space, capacity = _space(settings), settings["capacity"]
        if keys is None:
            buffer = ReplayBuffer(space, acted, capacity)
        else:
            buffer = MemoryEfficientReplayBuffer(space, acted, capacity, tuple(keys))
        buffer.seed(settings["seed"])
        return buffer

    def replay_rows(self, buffer: Any) -> np.ndarray:
        rows = getattr(buffer, "transition_rows", None)
        return np.arange(len(buffer)) if rows is None else np.sort(rows)
