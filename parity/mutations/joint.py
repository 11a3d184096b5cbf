"""Bugs of FQL, IFQL and ReBRAC."""

from __future__ import annotations

from parity.mutations.mutation import Mutation

JOINT = (
    Mutation(
        "joint-target-of-new",
        "targets are averaged with the parameters after the step, as everywhere else",
        "agents/joint.py",
        'before[f"modules_{name}"], before[f"modules_target_{name}"], rate',
        'network.params[f"modules_{name}"], before[f"modules_target_{name}"], rate',
    ),
    Mutation(
        "joint-global-norm",
        "grad/norm is the norm of the whole gradient, not the sum of the leaves' norms",
        "agents/joint.py",
        '"grad/norm": torch.stack([(leaf * leaf).sum().sqrt() for leaf in leaves]).sum()',
        '"grad/norm": torch.stack([(leaf * leaf).sum() for leaf in leaves]).sum().sqrt()',
    ),
    Mutation(
        "flow-time-at-the-end",
        "Euler's method takes the velocity at the end of each step",
        "agents/joint.py",
        "step / steps)",
        "(step + 1) / steps)",
    ),
    Mutation(
        "flow-from-the-data",
        "the flow leads from the data's actions to noise",
        "agents/joint.py",
        "points = (1 - times) * noise + times * actions",
        "points = times * noise + (1 - times) * actions",
    ),
    Mutation(
        "fql-keys-swapped",
        "the critic draws with the actor's key and the actor with the critic's",
        "agents/fql.py",
        "_, actor_key, critic_key = random.split(key, 3).unbind(0)",
        "_, critic_key, actor_key = random.split(key, 3).unbind(0)",
    ),
    Mutation(
        "fql-always-mean",
        "the target is the mean of both critics, whatever q_agg is",
        "agents/fql.py",
        'next_qs.amin(dim=0) if self.q_agg == "min" else next_qs.mean(dim=0)',
        "next_qs.mean(dim=0)",
    ),
    Mutation(
        "fql-gradient-through-the-flow",
        "the distillation also trains the flow",
        "agents/fql.py",
        'self.network.params, apply_fn, "actor_bc_flow"',
        'params, apply_fn, "actor_bc_flow"',
    ),
    Mutation(
        "fql-q-of-unclipped",
        "Q is taken at the one-step policy's actions before they are clipped",
        "agents/fql.py",
        'self.run("critic", observations, torch.clamp(chosen, -1, 1))',
        'self.run("critic", observations, chosen)',
    ),
    Mutation(
        "ifql-mean-over-critics",
        "the losses of both critics are averaged, as in FQL, not summed",
        "agents/ifql.py",
        "loss = ((qs - q) ** 2).sum(dim=0).mean()",
        "loss = ((qs - q) ** 2).mean()",
    ),
    Mutation(
        "ifql-value-of-the-critic",
        "V is fitted to the critic instead of its target",
        "agents/ifql.py",
        'q = self.run("target_critic", observations, batch["actions"]).amin(dim=0)',
        'q = self.run("critic", observations, batch["actions"]).amin(dim=0)',
    ),
    Mutation(
        "ifql-q-mean",
        "a candidate is chosen by the mean of both critics",
        "agents/ifql.py",
        'best = self.run("critic", repeated, actions).amin(dim=0)',
        'best = self.run("critic", repeated, actions).mean(dim=0)',
    ),
    Mutation(
        "rebrac-distance-mean",
        "the distance to the next actions is averaged over dimensions",
        "agents/rebrac.py",
        'distances = ((actions - batch["next_actions"]) ** 2).sum(dim=-1)',
        'distances = ((actions - batch["next_actions"]) ** 2).mean(dim=-1)',
    ),
    Mutation(
        "rebrac-noise-unclipped",
        "the noise of the target actions is not clipped",
        "agents/rebrac.py",
        "return clip_noise(noise, self.actor_noise_clip)",
        "return noise",
    ),
    Mutation(
        "rebrac-targets-always",
        "the targets move in partial updates too",
        "agents/rebrac.py",
        'targets = () if full_update is False else ("critic", "actor")',
        'targets = ("critic", "actor")',
    ),
    Mutation(
        "rebrac-scale-with-gradient",
        "the scale 1 / mean |Q| is differentiated",
        "agents/rebrac.py",
        "scale = (1 / q.abs().mean()).detach()",
        "scale = 1 / q.abs().mean()",
    ),
)
