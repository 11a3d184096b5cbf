"""The original's side. Imports jax and the original, never torch; runs in the JAX environment."""
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false, reportPrivateImportUsage=false

from __future__ import annotations

import contextlib
import os
import sys
import types
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from parity import inputs
from parity.backend import Event, Settings
from parity.inputs import flatten
from parity.original.arrays import JaxArrays, use_one_thread
from parity.original.capture import captured, parts, watched
from parity.original.data import JaxData
from parity.original.env import evaluated
from parity.original.helpers import JaxHelpers, namespace

_OPTAX_LOSSES = ("l2_loss", "huber_loss", "sigmoid_binary_cross_entropy")
PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "gym", "tensorflow-probability", "distrax")


def prepare(upstream: Path) -> None:
    """Make the original importable: put its checkout on the path, and an empty `mjrl` module.

    XLA gets one thread, so that recording gives the same bits on any number of cores.

    Raises:
        FileNotFoundError: ``upstream`` is not a checkout of the original.
    """
    if not (upstream / "jaxrl5" / "agents").is_dir():
        raise FileNotFoundError(f"{upstream} holds no jaxrl5 package: give the original's checkout")
    os.environ["D4RL_SUPPRESS_IMPORT_ERROR"] = "1"
    use_one_thread()
    # d4rl and the original import mjrl (quirk D13), which nothing here needs.
    sys.modules.setdefault("mjrl", types.ModuleType("mjrl"))
    sys.path.insert(0, str(upstream))


def _tuples(options: Settings) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}


class JaxNetwork:
    """A Flax module with the inputs for its initialisation.

    ``jitted`` compiles the forward pass, as it always is within the original's learners.
    """

    def __init__(
        self, module: Any, example: list[Any], positional_training: bool, jitted: bool = False
    ):
        self.module, self.example = module, example
        self.positional_training, self.jitted = positional_training, jitted

    def init(self, key: Any) -> Any:
        return self.module.init(key, *self.example).get("params", {})

    def apply(
        self, params: Any, *inputs: Any, training: bool = False, dropout_key: Any = None
    ) -> Any:
        found, _ = self._pass(params, inputs, training, dropout_key)
        if not isinstance(found, dict):
            return found
        import jax.numpy as jnp

        return jnp.concatenate(list(found.values()), axis=-1)

    def layers(
        self, params: Any, *inputs: Any, training: bool = False, dropout_key: Any = None
    ) -> dict[str, np.ndarray]:
        _, found = self._pass(params, inputs, training, dropout_key, capture=True)
        return {path: np.asarray(value) for path, value in flatten(found).items()}

    def _pass(
        self,
        params: Any,
        inputs: tuple[Any, ...],
        training: bool,
        dropout_key: Any,
        capture: bool = False,
    ) -> tuple[Any, dict[str, Any]]:
        """The output, and those of the submodules if requested."""
        rngs = None if dropout_key is None else {"dropout": dropout_key}
        flag: dict[str, Any] = {"training": True} if training else {}
        position = ()
        if training and self.positional_training:
            position, flag = (True,), {}

        def run(params: Any, rngs: Any, *inputs: Any) -> tuple[Any, dict[str, Any]]:
            given = ({"params": params}, *inputs, *position)
            if not capture:
                return parts(self.module.apply(*given, rngs=rngs, **flag)), {}
            result, found = captured(self.module.apply, *given, rngs=rngs, **flag)
            return parts(result), found

        if not self.jitted:
            return run(params, rngs, *inputs)
        import jax

        return jax.jit(run)(params, rngs, *inputs)


class JaxBackend(JaxData, JaxHelpers, JaxArrays):
    """:class:`parity.backend.Backend` over jax, flax, optax and the original."""

    def __init__(self, upstream: Path):
        prepare(upstream)
        import flax.linen as nn
        import gym
        import jax
        import jax.numpy as jnp
        import optax
        from jaxrl5 import agents, distributions, networks
        from jaxrl5.agents.ddpm_iql import ddpm_iql_learner as general
        from jaxrl5.agents.ddpm_iql_simple import ddpm_iql_learner as simple
        from jaxrl5.agents.drq import augmentations
        from jaxrl5.distributions.tanh_normal import tfd
        from jaxrl5.distributions.tanh_transformed import TanhTransformedDistribution
        from jaxrl5.networks import encoders
        from jaxrl5.networks.diffusion import linear_beta_schedule

        from parity.original import modules

        self.modules = modules
        jax.config.update("jax_default_matmul_precision", "float32")
        self.jax, self.jnp, self.gym, self.networks = jax, jnp, gym, networks
        named = {name: getattr(optax, name) for name in _OPTAX_LOSSES}
        self.losses = types.SimpleNamespace(**{**vars(general), **named})
        self.random, self.optim, self.helpers = jax.random, optax, namespace()
        self._learners = {
            "simple": simple.DDPMIQLLearner,
            "general": general.DDPMIQLLearner,
            "bc": agents.BCLearner,
            "iql": agents.IQLLearner,
            "sac": agents.SACLearner,
            "td3": agents.TD3Learner,
            "drq": agents.DrQLearner,
            "pixel_bc": agents.PixelBCLearner,
        }
        self.policies, self.encoders, self.augmentations = distributions, encoders, augmentations
        self.tfd, self._tanh = tfd, TanhTransformedDistribution
        self._schedules = {
            "cosine": networks.cosine_beta_schedule,
            "linear": linear_beta_schedule,
            "vp": networks.vp_beta_schedule,
        }
        self._activations = {"relu": nn.relu, "swish": nn.swish, "mish": general.mish}

    def _mlp(self, settings: Settings) -> Any:
        options = {k: v for k, v in settings.items() if k not in ("net", "input_dim")}
        options["hidden_dims"] = tuple(options["hidden_dims"])
        if "activations" in options:
            options["activations"] = self._activations[options["activations"]]
        return partial(self.networks.MLP, **options)

    def _resnet(self, settings: Settings) -> Any:
        options = {k: v for k, v in settings.items() if k not in ("net", "input_dim")}
        if "activations" in options:
            options["activations"] = self._activations[options["activations"]]
        return partial(self.networks.MLPResNet, **options)

    def _policy(self, s: Settings) -> Any:
        base = self._mlp(s["base"])
        cls = getattr(self.policies, s["net"])
        return partial(cls, base_cls=base, action_dim=s["act_dim"], **s.get("options", {}))

    def _encoder(self, name: str, options: Settings) -> Any:
        return partial(getattr(self.encoders, name), **_tuples(options))

    def _multiplexer(self, s: Settings) -> Any:
        head = s["head"]
        if head["net"] == "Ensemble":
            single = partial(self.networks.StateActionValue, base_cls=self._mlp(head["base"]))
            network_cls = partial(self.networks.Ensemble, net_cls=single, num=head["num"])
        else:
            network_cls = self._policy({**head, "act_dim": s["act_dim"]})
        return self.networks.PixelMultiplexer(
            encoder_cls=self._encoder(s["encoder_net"], s["encoder"]),
            network_cls=network_cls,
            latent_dim=s["latent_dim"],
            **_tuples(s["options"]),
        )

    def _module(self, s: Settings) -> Any:
        n = self.networks
        match s["net"]:
            case "MLP":
                return self._mlp(s)()
            case "MLPResNet":
                return self._resnet(s)()
            case "FourierFeatures":
                return n.FourierFeatures(output_size=s["output_size"], learnable=s["learnable"])
            case "StateValue":
                return n.StateValue(base_cls=self._mlp(s["base"]))
            case "StateActionValue":
                return n.StateActionValue(base_cls=self._mlp(s["base"]))
            case "Ensemble":
                single = partial(n.StateActionValue, base_cls=self._mlp(s["base"]))
                return n.Ensemble(single, num=s["num"])
            case "DDPM":
                reverse = self._mlp if s["reverse"]["net"] == "MLP" else self._resnet
                return n.DDPM(
                    time_preprocess_cls=partial(
                        n.FourierFeatures,
                        output_size=s["time_dim"],
                        learnable=s.get("learnable", True),
                    ),
                    cond_encoder_cls=self._mlp(s["cond"]),
                    reverse_encoder_cls=reverse(s["reverse"]),
                )
            case "Normal" | "TanhDeterministic":
                return self._policy(s)()
            case "D4PGEncoder" | "ResNetV2Encoder":
                return self._encoder(s["net"], s["options"])()
            case "PixelMultiplexer":
                return self._multiplexer(s)
        return self.modules.made(s)

    def network(self, settings: Settings) -> JaxNetwork:
        from parity.programs.networks import network_inputs

        example = network_inputs(settings, 1, "float32")
        if settings["net"] == "DDPM":
            example[-1] = example[-1].astype(np.float32)
        # Compiled, the division of bytes by 255 is a product with the reciprocal, rounded.
        jitted = settings["net"] in ("PixelMultiplexer", "ImpalaEncoder")
        return JaxNetwork(self._module(settings), example, settings["net"] == "Ensemble", jitted)

    def distribution(self, loc: Any, log_scale: Any, tanh: bool) -> Any:
        normal = self.tfd.MultivariateNormalDiag(loc=loc, scale_diag=self.jnp.exp(log_scale))
        return self._tanh(normal) if tanh else normal

    def draw(self, distribution: Any, key: Any, shape: tuple[int, ...]) -> tuple[Any, Any]:
        actions = distribution.sample(shape, seed=key)
        return actions, distribution.log_prob(actions)

    def probability(self, settings: Settings, params: Any) -> Any:
        from parity.original.probability import JaxProbability

        return JaxProbability(settings["distribution"], settings.get("args", {}), params)

    def crop(self, key: Any, image: Any, padding: int) -> Any:
        return self.augmentations.random_crop(key, image, padding)

    def crops(self, key: Any, observations: Any, name: str, padding: int) -> Mapping[str, Any]:
        import flax

        frozen = flax.core.freeze(observations)
        return self.augmentations.batched_random_crop(key, frozen, name, padding)

    def beta_schedule(self, name: str, timesteps: int) -> Any:
        return self._schedules[name](timesteps)

    def ddpm_sampler(self, network: Any, *arguments: Any) -> tuple[Any, Any]:
        return self.networks.ddpm_sampler(network.module.apply, *arguments)

    def decay_mask(self, params: Any) -> Any:
        return self.networks.get_weight_decay_mask(params)

    def learner(self, settings: Settings) -> Any:
        acted = self.gym.spaces.Box(-1.0, 1.0, (settings["act_dim"],), np.float32)
        options = _tuples(settings["kwargs"])
        cls = self._learners[settings["learner"]]
        with self._encoder_width(cls, settings):
            learner = cls.create(
                settings["seed"],
                inputs.observation_space(self.gym.spaces, settings),
                acted,
                **options,
            )
        if not settings.get("x64"):
            return learner

        def widen(leaf: Any) -> Any:
            narrow = getattr(leaf, "dtype", None) == np.float32
            return leaf.astype(np.float64) if narrow else leaf

        return self.tree_map(widen, learner)

    def _encoder_width(
        self, cls: Any, settings: Settings
    ) -> contextlib.AbstractContextManager[Any]:
        """Set the float width of the original's residual encoder, which is float32 by default."""
        module = sys.modules[cls.__module__]
        if not settings.get("x64") or settings["kwargs"].get("encoder") != "resnet":
            return contextlib.nullcontext()
        wide = partial(module.ResNetV2Encoder, dtype=self.jnp.float64)
        return mock.patch.object(module, "ResNetV2Encoder", wide)

    def watched(
        self, learner: Any, names: Sequence[str]
    ) -> contextlib.AbstractContextManager[tuple[Any, list[Event]]]:
        return watched(learner, names)

    def first_moments(self, learner: Any, name: str) -> dict[str, Any]:
        return self.nested(getattr(learner, name).opt_state[0].mu)

    def updated(
        self, learner: Any, method: str, batch: Any, *ratio: int
    ) -> tuple[Any, Mapping[str, Any]]:
        return getattr(learner, method)(batch, *ratio)

    def batch(self, arrays: Any) -> Any:
        import flax

        native = self.jax.tree_util.tree_map(self.jnp.asarray, arrays)
        nested = isinstance(native, dict) and isinstance(native.get("observations"), dict)
        # The pixel learners call a method that only a FrozenDict has (quirk A9).
        return flax.core.freeze(native) if nested else native

    def choose(self, learner: Any, how: str, observations: Any) -> tuple[np.ndarray, Any]:
        if how == "literal_implicit":
            how = "sample_implicit_policy"
        chosen = getattr(learner, how)(observations)
        # TD3's eval_actions returns no learner (quirk E7).
        return chosen if isinstance(chosen, tuple) else (chosen, learner)

    def initialiser(self, described: Sequence[Any], key: Any, shape: tuple[int, ...]) -> Any:
        if described == ["default_init"]:
            return self.networks.default_init()(key, shape)
        return self.modules.initializer(described)(key, shape)

    def subsample(self, key: Any, params: Any, num_sample: int | None, num_qs: int) -> Any:
        return self.networks.subsample_ensemble(key, params, num_sample, num_qs)

    def estimates(self, learner: Any, observations: Any, actions: Any) -> tuple[Any, Any]:
        # The simple learner's compute_v has no caller in the original.
        module, critic, value = sys.modules[type(learner).__module__], learner.critic, learner.value
        q = module.compute_q(critic.apply_fn, critic.params, observations, actions)
        return q, module.compute_v(value.apply_fn, value.params, observations)

    def evaluated(self, learner: Any, walk: Any, episodes: int, how: str) -> float:
        return evaluated(learner, walk, episodes, how)
