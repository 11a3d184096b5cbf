"""Bugs of the learners."""

from __future__ import annotations

from parity.mutations.mutation import Mutation

LEARNERS = (
    Mutation(
        "noise-loss-mean",
        "the noise error is averaged over action dimensions, as in mse_loss (quirk U5)",
        "agents/ddpm_iql.py",
        "errors = ((eps_pred - noise) ** 2).sum(dim=-1)",
        "errors = ((eps_pred - noise) ** 2).mean(dim=-1)",
    ),
    Mutation(
        "keys-other-order",
        "the two halves of a split key are swapped (quirk N15)",
        "agents/ddpm_iql.py",
        "keys = random.split_chain(self.rng, 3, carry=1)",
        "keys = random.split_chain(self.rng, 3, carry=0)",
    ),
    Mutation(
        "torch-randn",
        "the noise of the actor's loss is drawn by torch.randn",
        "agents/ddpm_iql.py",
        "noise = random.normal(noise_key, (rows, self.act_dim))",
        "noise = torch.randn(rows, self.act_dim)",
    ),
    Mutation(
        "time-one-less",
        "diffusion times are 0 to T - 2, as if randint's upper bound were inclusive",
        "agents/ddpm_iql.py",
        "time = random.randint(time_key, (rows,), 0, self.T)",
        "time = random.randint(time_key, (rows,), 0, max(1, self.T - 1))",
    ),
    Mutation(
        "q-before-v",
        "Q is stepped before V, so that it bootstraps from the old V (quirks U1, U3)",
        "agents/ddpm_iql.py",
        """\
    learner, value_info = learner.update_v(batch)
    learner, critic_info = learner.update_q(batch)
    return learner, {**actor_info,""",
        """\
    learner, critic_info = learner.update_q(batch)
    learner, value_info = learner.update_v(batch)
    return learner, {**actor_info,""",
    ),
    Mutation(
        "actor-after-v",
        "the actor is stepped after V, as in plain IQL, with weights of the new V (quirk U1)",
        "agents/ddpm_iql.py",
        """\
    learner, actor_info = learner.update_actor(batch)
    learner, value_info = learner.update_v(batch)
""",
        """\
    learner, value_info = learner.update_v(batch)
    learner, actor_info = learner.update_actor(batch)
""",
    ),
    Mutation(
        "no-mask",
        "terminal states bootstrap, since the target omits the mask",
        "agents/critics.py",
        'return batch["rewards"] + discount * batch["masks"] * next_v',
        'return batch["rewards"] + discount * next_v',
    ),
    Mutation(
        "v-from-online-q",
        "V is fitted to the critic, not to its moving average",
        "agents/ddpm_iql.py",
        "q = batch_min_q(self.target_critic, batch)",
        "q = batch_min_q(self.critic, batch)",
    ),
    Mutation(
        "act-by-mean-q",
        "candidates are ranked by the mean of the critics, not by the minimum",
        "agents/candidates.py",
        "qs = min_q(critic.apply_fn, critic.params, repeated, actions.flatten(0, 1))",
        "qs = critic.apply_fn(critic.params, repeated, actions.flatten(0, 1)).mean(dim=0)",
    ),
    Mutation(
        "act-by-online-actor",
        "candidates are drawn from the actor, not from its moving average (quirk E4)",
        "agents/candidates.py",
        "apply_fn, params = learner.score_model.apply_fn, learner.target_score_model.params",
        "apply_fn, params = learner.score_model.apply_fn, learner.score_model.params",
    ),
    Mutation(
        "repeat-last-step-lost",
        "the number of repeated last steps is not passed to the sampler",
        "agents/candidates.py",
        "learner.ddpm_temperature, learner.M, learner.clip_sampler,",
        "learner.ddpm_temperature, 0, learner.clip_sampler,",
    ),
    Mutation(
        "swish-for-mish",
        "the general learner's actor uses swish; its default is mish (quirk N16)",
        "agents/ddpm_iql_learners.py",
        "actor_architecture, time_dim, (128, 128), mish,",
        "actor_architecture, time_dim, (128, 128), swish,",
    ),
    Mutation(
        "min-of-two",
        "the minimum is over the first two critics, even if there are more",
        "agents/critics.py",
        "**dropout_options(dropout_key)).amin(dim=0)",
        "**dropout_options(dropout_key))[:2].amin(dim=0)",
    ),
    Mutation(
        "ema-before-step",
        "the target averages the critic before its step, as in jaxrl_m",
        "agents/critics.py",
        """\
    critic, info = step_on_loss(critic, loss, observations, actions, target_q, dropout_key)
    return critic, soft_update(target_critic, critic, tau), info""",
        """\
    stepped, info = step_on_loss(critic, loss, observations, actions, target_q, dropout_key)
    return stepped, soft_update(target_critic, critic, tau), info""",
    ),
    Mutation(
        "iql-loss-mean",
        "plain IQL's critic loss is averaged over the critics, not summed (quirk U4)",
        "agents/iql.py",
        "loss = ((qs - target_q) ** 2).sum(dim=0).mean()",
        "loss = ((qs - target_q) ** 2).mean()",
    ),
    Mutation(
        "iql-actor-first",
        "plain IQL steps its actor before V, as IDQL does (quirk U2)",
        "agents/iql.py",
        """\
    learner, value_info = learner.update_v(batch)
    learner, actor_info = learner.update_actor(batch)
""",
        """\
    learner, actor_info = learner.update_actor(batch)
    learner, value_info = learner.update_v(batch)
""",
    ),
    Mutation(
        "bc-keys-swapped",
        "behaviour cloning draws its action with the key of its dropout",
        "agents/bc.py",
        "rng, dropout_key, sample_key = random.split(self.rng, 3).unbind(0)",
        "rng, sample_key, dropout_key = random.split(self.rng, 3).unbind(0)",
    ),
    Mutation(
        "sac-backup-sign",
        "the soft target adds the log-density instead of the entropy",
        "agents/sac.py",
        "target_q = target_q - self.discount * masks * temperature * next_log_probs",
        "target_q = target_q + self.discount * masks * temperature * next_log_probs",
    ),
    Mutation(
        "sac-target-entropy",
        "a target entropy of -A, as in the paper; the original's is -A / 2 (quirk A4)",
        "agents/sac.py",
        "target_entropy=-act_dim / 2 if",
        "target_entropy=-float(act_dim) if",
    ),
    Mutation(
        "sac-actor-min",
        "SAC's actor maximises the critics' minimum, as in the paper, not their mean (quirk A3)",
        "agents/sac.py",
        "qs.mean(dim=0)).mean()",
        "qs.amin(dim=0)).mean()",
    ),
    Mutation(
        "td3-noise-unclipped",
        "the noise on TD3's target actions is not clipped",
        "agents/td3.py",
        "clip_noise(noise, self.target_policy_noise_clip)",
        "noise",
    ),
    Mutation(
        "td3-actions-clipped",
        "TD3's noisy target actions are clipped to the bounds, as in the paper (quirk A1)",
        "agents/td3.py",
        "next_actions + clip_noise(noise, self.target_policy_noise_clip)",
        "(next_actions + clip_noise(noise, self.target_policy_noise_clip)).clamp(-1.0, 1.0)",
    ),
    Mutation(
        "td3-delay-shifted",
        "TD3's actor steps one update early",
        "agents/td3.py",
        "critic_step / utd_ratio % self.actor_delay == 0",
        "(critic_step - 1) / utd_ratio % self.actor_delay == 0",
    ),
    Mutation(
        "drq-own-encoder",
        "DrQ's actor keeps its own encoder instead of the critic's",
        "agents/drq.py",
        "learner.replace(actor=share_encoder(self.critic, self.actor))",
        "learner.replace()",
    ),
    Mutation(
        "crop-reflected",
        "images are padded by reflection; the original repeats their edges",
        "agents/augmentations.py",
        "rows, columns = rows.clamp(0, height - 1), columns.clamp(0, width - 1)",
        """\
rows, columns = (
        (n - 1) - ((n - 1) - x.abs()).abs()
        for x, n in ((rows, height), (columns, width))
    )""",
    ),
    Mutation(
        "crop-range",
        "crops never reach the last row and column, as if the upper bound were inclusive",
        "agents/augmentations.py",
        "random.randint(key, (2,), 0, 2 * padding + 1)",
        "random.randint(key, (2,), 0, 2 * padding)",
    ),
    Mutation(
        "depth-own-crop",
        "the depth image is cropped with another key than its camera (quirk A14)",
        "agents/pixels.py",
        "observations = batched_random_crop(key, observations, depth_key)",
        "observations = batched_random_crop(rng, observations, depth_key)",
    ),
)
