"""Learners whose networks are trained together: one tree, one loss, one optimiser.

After ``TrainState.apply_loss_fn`` of github.com/seohongpark/fql (``utils/flax_utils.py``). The
losses that FQL, IFQL and ReBRAC share stand here too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from idql_func import optim, random
from idql_func.agents.agent import TRANSITION_FIELDS, Agent
from idql_func.agents.checks import box_size, check_fraction, check_layers, check_rate
from idql_func.agents.critics import ApplyFn
from idql_func.networks import Module
from idql_func.networks.flow import ModuleDict
from idql_func.struct import TrainState
from idql_func.transforms import grad, jit
from idql_func.tree import tree_leaves, tree_map
from idql_func.types import Batch, InfoDict, InputError, Number, Params, PRNGKey

# --- losses and flows ---------------------------------------------------------------------


def q_loss(
    params: Params, apply_fn: ApplyFn, observations: Tensor, actions: Tensor, target_q: Tensor
) -> tuple[Tensor, InfoDict]:
    """``mean (Q_i(s, a) - target_q)^2`` over ensemble and batch, with the range of ``Q``.

    Shapes ``[B, O], [B, A]`` and ``[B]``.

    >>> apply_fn = lambda p, s, a, name: torch.stack([s[:, 0], a[:, 0]])
    >>> loss, info = q_loss({}, apply_fn, torch.ones(2, 1), torch.zeros(2, 1), torch.zeros(2))
    >>> loss.item(), sorted(info)
    (0.5, ['critic_loss', 'q_max', 'q_mean', 'q_min'])
    """
    q = apply_fn(params, observations, actions, name="critic")
    loss = ((q - target_q) ** 2).mean()
    return loss, {"critic_loss": loss, **spread("q", q)}


def spread(name: str, values: Tensor) -> InfoDict:
    """The mean, the maximum and the minimum of values, as the originals log them.

    >>> spread("v", torch.tensor([1.0, 3.0]))
    {'v_mean': tensor(2.), 'v_max': tensor(3.), 'v_min': tensor(1.)}
    """
    return {
        f"{name}_mean": values.mean(),
        f"{name}_max": values.amax(),
        f"{name}_min": values.amin(),
    }


def flow_matching_loss(
    params: Params,
    apply_fn: ApplyFn,
    name: str,
    observations: Tensor,
    actions: Tensor,
    noise_key: PRNGKey,
    time_key: PRNGKey,
) -> Tensor:
    """``mean |v(s, x_t, t) - (a - x_0)|^2`` with ``x_t = (1 - t) x_0 + t a`` (arXiv 2210.02747).

    Args:
        params: those of all networks.
        apply_fn: runs the network called ``name``.
        name: the vector field.
        observations: ``[B, O]``.
        actions: ``[B, A]``.
        noise_key: of the noise ``x_0``, ``[B, A]``.
        time_key: of the times, ``[B, 1]``.

    >>> apply_fn = lambda p, s, x, t, name: x * 0
    >>> loss = flow_matching_loss(
    ...     {}, apply_fn, "flow", torch.ones(2, 1), torch.zeros(2, 3), *random.split(
    ...     random.PRNGKey(0)))
    >>> loss.shape
    torch.Size([])
    """
    noise = random.normal(noise_key, tuple(actions.shape))
    times = random.uniform(time_key, (actions.shape[0], 1))
    points = (1 - times) * noise + times * actions
    predicted = apply_fn(params, observations, points, times, name=name)
    return ((predicted - (actions - noise)) ** 2).mean()


def integrate_flow(
    params: Params, apply_fn: ApplyFn, name: str, observations: Tensor, noise: Tensor, steps: int
) -> Tensor:
    """The actions ``[..., A]`` at the end of a flow from noise, by Euler's method, in [-1, 1].

    >>> apply_fn = lambda p, s, x, t, name: torch.ones_like(x)
    >>> integrate_flow({}, apply_fn, "flow", torch.ones(1, 1), torch.full((1, 2), -0.5), 10)
    tensor([[0.5000, 0.5000]])
    """
    actions = noise
    for step in range(steps):
        times = torch.full_like(actions[..., :1], step / steps)
        actions = actions + apply_fn(params, observations, actions, times, name=name) / steps
    return torch.clamp(actions, -1, 1)


# --- learners -----------------------------------------------------------------------------


class JointAgent(Agent):
    """A learner with one training state, ``network``, for all of its networks.

    ``network.params`` has an entry ``modules_<name>`` for each network. That of a target,
    ``modules_target_<name>``, has no gradient. ``network.step`` starts at 1, as in the original.
    """

    network: TrainState
    tau: float

    _batch_fields: ClassVar[tuple[str, ...]] = TRANSITION_FIELDS
    """The entries of a batch that the losses read."""

    def run(self, name: str, *inputs: Any, params: Params | None = None) -> Any:
        """The output of a network; without ``params`` those of the learner, without gradient."""
        params = self.network.params if params is None else params
        return self.network.apply_fn(params, *inputs, name=name)

    def total_loss(self, params: Params, batch: Batch, key: PRNGKey) -> tuple[Tensor, InfoDict]:
        """The sum of the learner's losses, as a function of the parameters of all networks."""
        raise NotImplementedError

    def update(self, batch: Batch, *, donate: bool = False) -> tuple[Self, InfoDict]:
        """One step of all networks on one batch; a new learner and its losses.

        Raises:
            InputError: an entry is missing or has a wrong shape or dtype.
        """
        return _update.donating(donate)(self, self._checked_batch(batch, self._batch_fields))

    def eval_loss(self, batch: Batch) -> tuple[Self, InfoDict]:
        """The losses of the networks as they are, by the learner's key, which stays.

        Raises:
            InputError: an entry is missing or has a wrong shape or dtype.
        """
        return self, _eval_loss(self, self._checked_batch(batch, self._batch_fields))

    def step_on(
        self,
        loss: Callable[[Params], tuple[Tensor, InfoDict]],
        rng: PRNGKey,
        targets: tuple[str, ...],
        part: Number = 1.0,
    ) -> tuple[Self, InfoDict]:
        """One optimiser step on ``loss(params)``, and the key ``rng``; then the targets' averages.

        The averages use the parameters before the step, at the rate ``part * tau``. ``info`` is
        the loss's, and :func:`gradient_statistics`.
        """
        before = self.network.params
        grads, info = grad(loss, has_aux=True)(before)
        network = self.network.apply_gradients(grads=grads)
        rate = self.tau if isinstance(part, float) else part * self.tau
        averages = {
            f"modules_target_{name}": optim.incremental_update(
                before[f"modules_{name}"], before[f"modules_target_{name}"], rate
            )
            for name in targets
        }
        network = network.replace(params={**network.params, **averages})
        return self.replace(network=network, rng=rng), {**info, **gradient_statistics(grads)}

    def _acting(
        self, observations: Any, seed: PRNGKey | None, temperature: float
    ) -> tuple[np.ndarray, Self]:
        """Actions for ``[O]`` or ``[E, O]`` by ``seed``, or by the learner's key."""

        def choose(learner: Self, rows: Any) -> tuple[Tensor, PRNGKey]:
            key, rng = (seed, learner.rng) if seed is not None else next_keys(learner.rng)
            return learner.choose_actions(rows, key, temperature), rng

        return self._act(observations, choose)

    def choose_actions(self, observations: Tensor, key: PRNGKey, temperature: Any = 1.0) -> Tensor:
        """:meth:`sample_actions` as a function of tensors, ``[E, O]`` to ``[E, A]``."""
        raise NotImplementedError

    def sample_actions(
        self, observations: Any, seed: PRNGKey | None = None, temperature: float = 1.0
    ) -> tuple[np.ndarray, Self]:
        """Actions for ``[O]`` or ``[E, O]``, ``[A]`` or ``[E, A]``, and the learner.

        Args:
            observations: one, or ``E`` of them.
            seed: the key of the draws, as in the original; the learner's key then stays. Without
                one the learner's key is split.
            temperature: scales the noise of learners that add some to their actions.

        Raises:
            InputError: an observation has another size, or ``seed`` is no key.
        """
        if seed is not None:
            seed = checked_key(seed, f"{type(self).__name__}.sample_actions: seed")
        return self._acting(observations, seed, temperature)

    def eval_actions(self, observations: Any) -> tuple[np.ndarray, Self]:
        """:meth:`sample_actions` at temperature 0, as the original evaluates.

        Raises:
            InputError: an observation has another size.
        """
        return self._acting(observations, None, 0.0)

    def to_act(self) -> Self:
        """The learner without its optimiser's state."""
        return self.replace(network=self.network.replace(opt_state=(), tx=None))


@jit
def _update(learner: JointAgent, batch: Batch) -> tuple[JointAgent, InfoDict]:
    key, rng = next_keys(learner.rng)
    return learner.step_on(lambda params: learner.total_loss(params, batch, key), rng, ("critic",))


@jit
def _eval_loss(learner: JointAgent, batch: Batch) -> InfoDict:
    return learner.total_loss(learner.network.params, batch, learner.rng)[1]


def next_keys(rng: PRNGKey) -> tuple[PRNGKey, PRNGKey]:
    """A key to use, and the learner's next key, in the order of the originals' ``update``.

    >>> [key.shape for key in next_keys(random.PRNGKey(0))]
    [torch.Size([2]), torch.Size([2])]
    """
    rng, key = random.split(rng).unbind(0)
    return key, rng


def checked_key(value: Any, what: str) -> PRNGKey:
    """A key of ``idql_func.random``.

    Raises:
        InputError: it is none.

    >>> checked_key(random.PRNGKey(0), "seed").tolist()
    [0, 0]
    """
    if not isinstance(value, Tensor) or value.shape != (2,) or value.dtype != torch.int64:
        raise InputError(
            f"{what} must be a key such as random.PRNGKey(0), got {type(value).__name__}."
        )
    return value


def checked_sizes(observation_space: Any, action_space: Any) -> tuple[int, int]:
    """The sizes of an observation and an action.

    Raises:
        InputError: a space is not a Box with one axis.

    >>> import gymnasium as gym
    >>> checked_sizes(gym.spaces.Box(-1, 1, (3,)), gym.spaces.Box(-1, 1, (2,)))
    (3, 2)
    """
    return (
        box_size(observation_space, "observation_space"),
        box_size(action_space, "action_space"),
    )


def check_joint_settings(
    lr: Any, actor_hidden_dims: Any, value_hidden_dims: Any, discount: Any, tau: Any
) -> None:
    """Check the keywords of ``create`` that these learners share.

    Raises:
        InputError: one is out of its range.

    >>> check_joint_settings(3e-4, (8,), (8,), 0.99, 0.005)
    """
    check_rate("lr", lr)
    check_layers("actor_hidden_dims", actor_hidden_dims)
    check_layers("value_hidden_dims", value_hidden_dims)
    check_fraction("discount", discount)
    check_fraction("tau", tau)


def joint_state(networks: Mapping[str, Module], key: PRNGKey, lr: Any) -> TrainState:
    """The training state of networks under their names, with Adam; targets equal their sources.

    >>> from idql_func.networks.flow import Value
    >>> state = joint_state({"critic": Value(3, (8,)), "target_critic": Value(3, (8,))},
    ...     random.PRNGKey(0), 3e-4)
    >>> sorted(state.params)
    ['modules_critic', 'modules_target_critic']
    """
    module = ModuleDict(networks)
    params = module.init(key)
    for name in networks:
        if name.startswith("target_"):
            source = params[f"modules_{name.removeprefix('target_')}"]
            params[f"modules_{name}"] = tree_map(torch.clone, source)
    state = TrainState.create(params=params, tx=optim.adam(lr), apply_fn=module.apply)
    return state.replace(step=state.step + 1)


def gradient_statistics(grads: Params) -> InfoDict:
    """``grad/max``, ``grad/min``, and ``grad/norm``, the sum of the leaves' norms.

    >>> gradient_statistics({"a": torch.tensor([3.0, 4.0]), "b": torch.tensor([-1.0])})
    {'grad/max': tensor(4.), 'grad/min': tensor(-1.), 'grad/norm': tensor(6.)}
    """
    leaves = tree_leaves(grads)
    return {
        "grad/max": torch.stack([leaf.amax() for leaf in leaves]).amax(),
        "grad/min": torch.stack([leaf.amin() for leaf in leaves]).amin(),
        "grad/norm": torch.stack([(leaf * leaf).sum().sqrt() for leaf in leaves]).sum(),
    }


def with_prefix(prefix: str, info: InfoDict) -> InfoDict:
    """The same values under ``prefix/name``.

    >>> with_prefix("critic", {"q": torch.ones(())})
    {'critic/q': tensor(1.)}
    """
    return {f"{prefix}/{name}": value for name, value in info.items()}
