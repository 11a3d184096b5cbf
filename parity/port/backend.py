"""The port's side. Imports torch and ``idql_func``, never jax."""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor

import idql_func
from idql_func import agents, distributions, losses, optim, random
from idql_func import networks as nets
from idql_func.agents import augmentations, critics
from idql_func.transforms import tree_leaves
from parity import inputs
from parity.backend import Event, Settings
from parity.inputs import flatten
from parity.modes import Mode, Part
from parity.port import capture, modules
from parity.port.data import TorchData
from parity.port.env import evaluated
from parity.port.helpers import TorchHelpers, namespace
from parity.port.lift import Lift, Lifted
from parity.port.literal import literal_implicit_action
from parity.port.probability import TorchProbability

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
    "fql": "FQLLearner",
    "ifql": "IFQLLearner",
    "rebrac": "ReBRACLearner",
}


class TorchNetwork:
    """A module of the port; two of the same module are equal and share their compiled programs."""

    def __init__(self, module: nets.Module, lift: Lift):
        self.module, self._lift = module, lift

    def init(self, key: Any) -> Any:
        # The port never jits creation.
        drawn = functools.partial(nets.init, self.module)
        return drawn(key) if self._lift.mode == "compiled" else self._lift(drawn)(key)

    def apply(
        self, params: Any, *inputs: Any, training: bool = False, dropout_key: Any = None
    ) -> Any:
        passed = self._lift(self._apply)
        return passed(params, *inputs, training=training, dropout_key=dropout_key)

    def _apply(self, params: Any, *inputs: Any, training: bool, dropout_key: Any) -> Any:
        rngs = None if dropout_key is None else {"dropout": dropout_key}
        result = nets.apply(self.module, params, *inputs, training=training, rngs=rngs)
        found = capture.parts(result)
        return torch.cat(list(found.values()), dim=-1) if isinstance(found, Mapping) else found

    def layers(
        self, params: Any, *inputs: Any, training: bool = False, dropout_key: Any = None
    ) -> dict[str, np.ndarray]:
        # Never lifted: there are no values to read under a transform.
        run = functools.partial(
            self._apply, params, *inputs, training=training, dropout_key=dropout_key
        )
        _, found = capture.captured(self.module, run)
        return flatten(capture.array(found))


def _mlp_options(settings: Settings) -> dict[str, Any]:
    options = {k: v for k, v in settings.items() if k != "net"}
    if "activations" in options:
        options["activations"] = modules.ACTIVATIONS[options["activations"]]
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


class _Random(Lifted):
    """``idql_func.random``, its keys on a device."""

    def __init__(self, lift: Lift, device: str):
        super().__init__(random, lift)
        self._device = device

    def PRNGKey(self, seed: int) -> Tensor:
        return random.PRNGKey(seed, self._device)


class _Transformation:
    """An optimiser; creating its state is never jitted."""

    def __init__(self, native: Any, lift: Lift):
        self.native, self.init, self.update = native, native.init, lift(native.update)


class _Schedule:
    """A schedule."""

    def __init__(self, native: optim.Schedule, lift: Lift):
        self.native, self._call = native, lift(native)

    def __call__(self, count: Tensor) -> Tensor:
        return self._call(count)


class _Optim(Lifted):
    """``idql_func.optim``: what its functions make is lifted, not the functions."""

    def __getattr__(self, name: str) -> Any:
        if name in ("apply_updates", "incremental_update"):
            return super().__getattr__(name)
        kind = _Schedule if name.endswith("schedule") or name == "join_schedules" else None

        def make(*args: Any, **kwargs: Any) -> Any:
            native = getattr(optim, name)(*map(_native, args), **kwargs)
            return (kind or _Transformation)(native, self._lift)

        return make


def _native(value: Any) -> Any:
    """An argument, or what stands behind it."""
    if isinstance(value, list):
        return [_native(part) for part in value]
    return getattr(value, "native", value)


class _Distribution:
    """A distribution of the port."""

    def __init__(self, native: distributions.Diagonal, lift: Lift):
        self.native, self._lift = native, lift

    def mode(self) -> Tensor:
        return self._lift(distributions.Diagonal.mode)(self.native)

    def entropy(self) -> Tensor:
        return self._lift(distributions.Diagonal.entropy)(self.native)

    def log_prob(self, value: Tensor) -> Tensor:
        return self._lift(distributions.Diagonal.log_prob)(self.native, value)


def _widened(leaf: Any) -> Any:
    narrow = isinstance(leaf, Tensor) and leaf.dtype == torch.float32
    return leaf.double() if narrow else leaf


class TorchBackend(TorchData, TorchHelpers):
    """:class:`parity.backend.Backend` over ``idql_func``.

    Args:
        mode: how the port's functions run; functions that programs call go through ``lift``.
            Creation and work on the host are not changed.
        device: of arrays, keys and learners. Results are compared on the host.
        part: the only part of a learner that is compiled; None for all that it jits.
    """

    def __init__(self, mode: Mode = "eager", device: str = "cpu", part: Part | None = None):
        self.mode, self.device, self._part = mode, device, part
        self.lift = Lift(mode)
        self.random = _Random(self.lift, device)
        self.losses, self.optim = Lifted(losses, self.lift), _Optim(optim, self.lift)
        self.helpers = namespace(self.lift)

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
        return torch.from_numpy(np.array(value)).to(self.device)

    def numpy(self, value: Any) -> np.ndarray:
        return value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)

    def grad(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return self.lift(idql_func.grad(function))

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
        return modules.made(s)

    def network(self, settings: Settings) -> TorchNetwork:
        return TorchNetwork(self._module(settings), self.lift)

    def distribution(self, loc: Any, log_scale: Any, tanh: bool) -> Any:
        native = distributions.Diagonal(loc=loc, scale=torch.exp(log_scale), tanh=tanh)
        return _Distribution(native, self.lift)

    def draw(self, distribution: Any, key: Any, shape: tuple[int, ...]) -> tuple[Any, Any]:
        return self.lift(distributions.Diagonal.sample_and_log_prob)(
            distribution.native, key, shape
        )

    def probability(self, settings: Settings, params: Any) -> Any:
        args = settings.get("args", {})
        return TorchProbability(settings["distribution"], args, params, self.lift)

    def crop(self, key: Any, image: Any, padding: int) -> Any:
        return self.lift(augmentations.random_crop)(key, image, padding)

    def crops(self, key: Any, observations: Any, name: str, padding: int) -> Mapping[str, Any]:
        return self.lift(augmentations.batched_random_crop)(key, observations, name, padding)

    def beta_schedule(self, name: str, timesteps: int) -> Any:
        return _SCHEDULES[name](timesteps).to(self.device)

    def ddpm_sampler(self, network: Any, *arguments: Any) -> tuple[Any, Any]:
        return self.lift(nets.ddpm_sampler)(network.module.apply, *arguments)

    def decay_mask(self, params: Any) -> Any:
        return nets.get_weight_decay_mask(params)

    def learner(self, settings: Settings) -> Any:
        acted = gymnasium.spaces.Box(-1.0, 1.0, (settings["act_dim"],), np.float32)
        options = {k: tuple(v) if isinstance(v, list) else v for k, v in settings["kwargs"].items()}
        cls = getattr(agents, _LEARNERS[settings["learner"]])
        with warnings.catch_warnings():
            # A warning for users who choose a schedule; cases use the original's settings.
            warnings.filterwarnings("ignore", "beta_schedule=")
            learner = cls.create(
                settings["seed"],
                inputs.observation_space(gymnasium.spaces, settings),
                acted,
                **options,
            )
        learner = learner.to(self.device)
        if settings.get("x64"):
            learner = self.tree_map(_widened, learner)
        return learner

    def updated(
        self, learner: Any, method: str, batch: Any, *options: Any
    ) -> tuple[Any, Mapping[str, Any]]:
        update = getattr(type(learner), method)
        if self.mode == "compiled":
            with self._compiling("update"):
                return update(learner, batch, *options)
        if self.mode == "vmapped" and not all(map(torch.is_tensor, tree_leaves(learner))):
            # A member of a stack, as in a run of many seeds: its numbers are tensors too.
            (learner,) = idql_func.tree_unstack(idql_func.tree_stack([learner]))
        return self.lift(update)(learner, batch, *options)

    def watched(
        self, learner: Any, names: Sequence[str]
    ) -> contextlib.AbstractContextManager[tuple[Any, list[Event]]]:
        return capture.watched(learner, names)

    def first_moments(self, learner: Any, name: str) -> dict[str, Any]:
        return self.nested(getattr(learner, name).opt_state[0].mu)

    def batch(self, arrays: Any) -> Any:
        return self.tree(arrays) if isinstance(arrays, Mapping) else self.array(arrays)

    def choose(self, learner: Any, how: str, observations: Any) -> tuple[np.ndarray, Any]:
        if how == "literal_implicit":
            return literal_implicit_action(learner, observations)
        if self.mode != "compiled":
            return getattr(learner, how)(observations)
        with self._compiling("choice"):
            return getattr(learner, how)(observations)

    @contextlib.contextmanager
    def _compiling(self, part: Part) -> Iterator[None]:
        """Context for a learner's methods, which are jitted; disables jit for the other part."""
        if self._part not in (None, part):
            with idql_func.disable_jit():
                yield
        else:
            self.lift.calls += 1
            yield

    def initialiser(self, described: Sequence[Any], key: Any, shape: tuple[int, ...]) -> Any:
        return self.lift(modules.initializer(described))(key, shape)

    def subsample(self, key: Any, params: Any, num_sample: int | None, num_qs: int) -> Any:
        return self.lift(nets.subsample_ensemble)(key, params, num_sample, num_qs)

    def estimates(self, learner: Any, observations: Any, actions: Any) -> tuple[Any, Any]:
        critic, value = learner.critic, learner.value
        q = self.lift(critics.min_q)(critic.apply_fn, critic.params, observations, actions)
        return q, self.lift(value.apply_fn)(value.params, observations)

    def evaluated(self, learner: Any, walk: Any, episodes: int, how: str) -> float:
        return evaluated(learner, walk, episodes, how)
