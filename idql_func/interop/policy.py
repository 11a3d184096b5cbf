"""Export a learner's policy as a plain ``torch.nn.Module``.

Keys of its ``state_dict`` are the learner's field and Flax's names, joined with dots:
``actor.MLP_0.Dense_0.kernel``. It can be saved and loaded like any other. :func:`save_policy` adds
the settings that rebuild the module, so its file can be loaded without a learner.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from idql_func import random
from idql_func.agents.agent import Agent
from idql_func.agents.critics import min_q
from idql_func.agents.ddpm_iql import BaseDDPMIQL
from idql_func.agents.joint import JointAgent
from idql_func.boundary import explain_module
from idql_func.distributions import Diagonal
from idql_func.files import parse_json
from idql_func.files.tensors import open_tensors, write_tensors
from idql_func.interop.architecture import build_network, check_settings, describe_network
from idql_func.interop.state import from_state_dict
from idql_func.networks import Module, ddpm_sampler
from idql_func.struct import TrainState
from idql_func.tree import flatten_params
from idql_func.types import InputError, PRNGKey

__all__ = [
    "DiffusionPolicy",
    "GreedyPolicy",
    "Policy",
    "build_policy",
    "load_policy",
    "policy_module",
    "save_policy",
]

_METADATA = "idql_func policy"
_PROBLEM = "{path} must be a safetensors file that save_policy wrote"
_SCHEDULE = ("betas", "alphas", "alpha_hats")


class Policy(nn.Module):
    """Base class: the settings that rebuild the module, and checks of observations.

    Parameters do not require gradients; ``policy.requires_grad_()`` makes them trainable.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.config: dict[str, Any] = dict(config)
        """JSON-compatible settings, from which :func:`build_policy` makes the same module."""
        shapes = config["observations"]
        self.shapes: dict[str, tuple[int, ...]] | int = (
            {name: tuple(shape) for name, shape in shapes.items()}
            if isinstance(shapes, Mapping)
            else int(shapes)
        )

    def _network(self, name: str) -> Module:
        shapes = self.shapes if isinstance(self.shapes, dict) else None
        return build_network(self.config["networks"][name], shapes)

    def _rows(self, observations: Any) -> tuple[Any, bool]:
        """Check observations; return them as a batch, and whether the input was a single one."""
        if isinstance(self.shapes, int):
            return self._checked("observations", observations, (self.shapes,))
        if not isinstance(observations, Mapping) or not set(self.shapes) <= set(observations):
            found = sorted(observations) if isinstance(observations, Mapping) else observations
            raise InputError(
                f"observations must be a dict with the entries {', '.join(self.shapes)}, got "
                f"{found if isinstance(found, list) else type(found).__name__}."
            )
        rows: dict[str, Tensor] = {}
        counts: set[int | None] = set()
        for name, shape in self.shapes.items():
            what = f"observations[{name!r}]"
            rows[name], single = self._checked(what, observations[name], shape)
            counts.add(None if single else rows[name].shape[0])
        if len(counts) > 1:
            got = ", ".join(f"{name!r} {tuple(observations[name].shape)}" for name in rows)
            raise InputError(
                "the entries of observations must all be single or all have the same batch size, "
                f"got {got}."
            )
        return rows, counts == {None}

    @staticmethod
    def _checked(what: str, value: Any, shape: tuple[int, ...]) -> tuple[Tensor, bool]:
        if not isinstance(value, Tensor) or value.is_sparse or value.is_meta:
            raise InputError(
                f"{what} must be a dense tensor, which torch.from_numpy makes of an array; got "
                f"{type(value).__name__}."
            )
        single = value.ndim == len(shape)
        if tuple(value.shape) != (*value.shape[: 0 if single else 1], *shape):
            raise InputError(
                f"{what} must have shape {shape} or (batch, {', '.join(map(str, shape))}), got "
                f"{tuple(value.shape)}."
            )
        return (value.unsqueeze(0) if single else value), single


class GreedyPolicy(Policy):
    """The mode of a policy network: BC, IQL, SAC, TD3, DrQ, pixel BC.

    Deterministic. ``forward(observations)`` maps ``[O]`` or ``[B, O]`` (for images, a dict of
    tensors) to ``[A]`` or ``[B, A]``, as ``learner.eval_actions`` does.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__(config)
        self.actor = self._network("actor")

    def forward(self, observations: Any) -> Tensor:
        """The mode of the policy's distribution.

        Raises:
            InputError: an observation has the wrong shape.
        """
        rows, single = self._rows(observations)
        outputs = self.actor(rows)
        actions = outputs.mode() if isinstance(outputs, Diagonal) else outputs
        return actions[0] if single else actions


class DiffusionPolicy(Policy):
    """IDQL's greedy policy: the candidate with the largest min-Q among ``N`` of the EMA actor.

    ``forward`` is pure: equal observations and keys give equal actions. The default key is
    ``policy.key``, the learner's key at export; with it the actions equal those of
    ``learner.eval_actions``. In a control loop pass a different key at each step: an integer seed
    or a threefry key ``[2]``.
    """

    key: Tensor
    betas: Tensor
    alphas: Tensor
    alpha_hats: Tensor

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__(config)
        self.target_score_model = self._network("target_score_model")
        self.target_critic = self._network("target_critic")
        for name in _SCHEDULE:
            self.register_buffer(name, torch.zeros(int(config["T"])))
        self.register_buffer("key", torch.zeros(2, dtype=torch.int64))

    def forward(self, observations: Tensor, key: PRNGKey | int | None = None) -> Tensor:
        """Map observations ``[O]`` or ``[B, O]`` to the chosen actions ``[A]`` or ``[B, A]``.

        Raises:
            InputError: an observation has the wrong shape.
        """
        rows, single = self._rows(observations)
        if key is None:
            key = self.key
        elif isinstance(key, int):
            key = random.PRNGKey(key).to(rows.device)
        count, settings = self.config["N"], self.config
        repeated = rows.repeat_interleave(count, dim=0)
        candidates, _ = ddpm_sampler(
            lambda _, *inputs, training: self.target_score_model(*inputs, training=training),
            {},
            settings["T"],
            key,
            settings["act_dim"],
            repeated,
            self.alphas,
            self.alpha_hats,
            self.betas,
            settings["ddpm_temperature"],
            settings["M"],
            settings["clip_sampler"],
        )
        qs = min_q(lambda _, *inputs: self.target_critic(*inputs), {}, repeated, candidates)
        best = torch.argmax(qs.reshape(-1, count), dim=1)
        grouped = candidates.reshape(-1, count, settings["act_dim"])
        actions = grouped[torch.arange(grouped.shape[0], device=best.device), best]
        return actions[0] if single else actions


_KINDS: dict[str, type[Policy]] = {"greedy": GreedyPolicy, "diffusion": DiffusionPolicy}


def policy_module(learner: Agent) -> Policy:
    """Export the learner's greedy policy as a module with copies of its tensors on its device.

    Args:
        learner: any learner of ``idql_func.agents``.

    Returns:
        :class:`DiffusionPolicy` for IDQL, with its EMA actor and target critic (quirk E4), and
        :class:`GreedyPolicy` for the others. Its actions equal those of ``learner.eval_actions``.

    Raises:
        InputError: the learner is a stack of several, or has a custom network.

    Example:
        >>> import gymnasium as gym
        >>> from idql_func.agents import BCLearner
        >>> box = gym.spaces.Box(-1, 1, (3,))
        >>> policy = policy_module(BCLearner.create(0, box, box, hidden_dims=(8,)))
        >>> sorted(policy.state_dict())[:2], policy(torch.zeros(5, 3)).shape
        (['actor.MLP_0.Dense_0.bias', 'actor.MLP_0.Dense_0.kernel'], torch.Size([5, 3]))
    """
    if learner.rng.ndim != 1:
        raise InputError(
            f"this {type(learner).__name__} is a stack of learners; export one of "
            "tree_unstack(learners)."
        )
    if isinstance(learner, JointAgent):
        raise InputError(
            f"the policy of a {type(learner).__name__} has no module yet; call "
            "learner.choose_actions(observations, key), which torch.export takes too."
        )
    shapes = dict(learner.obs_dim) if isinstance(learner.obs_dim, tuple) else learner.obs_dim
    config: dict[str, Any] = {
        "kind": "greedy",
        "learner": type(learner).__name__,
        "dtype": str(learner.float_dtype).removeprefix("torch."),
        "observations": shapes,
    }
    tensors: dict[str, Tensor] = {}
    networks = ["actor"]
    if isinstance(learner, BaseDDPMIQL):
        networks = ["target_score_model", "target_critic"]
        tensors = {name: getattr(learner, name) for name in _SCHEDULE} | {"key": learner.rng}
        config |= {
            "kind": "diffusion",
            "act_dim": learner.act_dim,
            "T": learner.T,
            "M": learner.M,
            "N": int(learner.N),
            "ddpm_temperature": float(learner.ddpm_temperature),
            "clip_sampler": learner.clip_sampler,
        }
    config["networks"] = {}
    for name in networks:
        state: TrainState = getattr(learner, name)
        config["networks"][name] = describe_network(_network_of(state, name))
        tensors |= flatten_params(state.params, f"{name}.")
    config = json.loads(json.dumps(config))  # lists in place of tuples, as in a file
    return build_policy(config, tensors).to(learner.rng.device)


def build_policy(config: Mapping[str, Any], state_dict: Mapping[str, Tensor]) -> Policy:
    """Build a policy from its settings and tensors, for custom file formats.

    Raises:
        InputError: the settings are invalid, or tensors do not match them; names each tensor.

    Example:
        >>> import gymnasium as gym, io
        >>> from idql_func.agents import TD3Learner
        >>> box = gym.spaces.Box(-1, 1, (3,))
        >>> policy, file = policy_module(TD3Learner.create(0, box, box)), io.BytesIO()
        >>> torch.save({"config": policy.config, "state": policy.state_dict()}, file)
        >>> _ = file.seek(0)
        >>> saved = torch.load(file, weights_only=True)
        >>> again = build_policy(saved["config"], saved["state"])
        >>> torch.equal(again(torch.ones(3)), policy(torch.ones(3)))
        True
    """
    kind = _KINDS.get(str(config.get("kind")))
    dtype = getattr(torch, str(config.get("dtype")), None)
    if kind is None or not isinstance(dtype, torch.dtype):
        raise InputError(
            f"a policy's settings must have a kind ({', '.join(_KINDS)}) and a dtype, got "
            f"{config.get('kind')!r} and {config.get('dtype')!r}."
        )
    check_settings(config, state_dict)
    try:
        policy = kind(config).to(dtype)
    except (KeyError, TypeError, ValueError) as error:
        why = error.__cause__ if isinstance(error.__cause__, KeyError) else error
        raise InputError(
            f"these settings are not those of a policy: {str(why).rstrip('.')}."
        ) from None
    except (RuntimeError, ArithmeticError, AttributeError, MemoryError, RecursionError):
        raise InputError("these settings are not those of a policy: a size is wrong.") from None
    arrays = {name: tensor.numpy(force=True) for name, tensor in state_dict.items()}
    policy.load_state_dict(from_state_dict(dict(policy.state_dict()), arrays))
    return policy


def save_policy(policy: Policy, path: str | os.PathLike[str]) -> Path:
    """Write a policy's tensors and settings to one safetensors file, atomically.

    Raises:
        OSError: the disk is full or the path cannot be written to.

    Example:
        >>> import gymnasium as gym, tempfile
        >>> from idql_func.agents import IQLLearner
        >>> box = gym.spaces.Box(-1, 1, (3,))
        >>> policy = policy_module(IQLLearner.create(0, box, box))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     again = load_policy(save_policy(policy, f"{folder}/policy.safetensors"))
        >>> torch.equal(again(torch.ones(3)), policy(torch.ones(3)))
        True
    """
    tensors = {
        name: tensor.detach().to("cpu", copy=True).contiguous()
        for name, tensor in policy.state_dict().items()
    }
    return write_tensors(path, tensors, {_METADATA: json.dumps(policy.config)})


def load_policy(path: str | os.PathLike[str]) -> Policy:
    """Load a policy that :func:`save_policy` wrote; needs no learner.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: the file is damaged or does not hold a policy.

    Example:
        >>> load_policy("/no/such/file")
        Traceback (most recent call last):
        ...
        FileNotFoundError: there is no policy at /no/such/file
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"there is no policy at {path}")
    with open_tensors(path, "a saved policy", _PROBLEM) as file:
        start = _PROBLEM.format(path=path)
        if _METADATA not in file.metadata:
            raise InputError(f"{start}: it holds no settings of a policy.")
        file.warn_without_digest(path)
        try:
            config = parse_json(file.metadata[_METADATA], "its text of settings")
            if not isinstance(config, dict):
                raise InputError("its settings are not a JSON object")
            tensors = {name: file.read(name) for name in file.tensors}
        except InputError as error:
            raise InputError(f"{start}: {str(error).rstrip('.')}.") from None
    return build_policy(config, tensors)


def _network_of(state: TrainState, name: str) -> Module:
    network = getattr(state.apply_fn, "__self__", None)
    if not isinstance(network, Module):
        raise InputError(
            f"{name} cannot be exported: its apply_fn is not a method of a network of this package."
        )
    return network


explain_module(__name__)
