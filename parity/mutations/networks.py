"""Bugs of layers, networks, distributions and the diffusion sampler."""

from __future__ import annotations

from parity.mutations.mutation import Mutation

NETWORKS = (
    Mutation(
        "layer-norm-eps",
        "LayerNorm's eps is 1e-5, PyTorch's default; Flax's is 1e-6 (quirk N5)",
        "networks/layers.py",
        "epsilon: float = 1e-6",
        "epsilon: float = 1e-5",
    ),
    Mutation(
        "layer-norm-var",
        "LayerNorm uses Tensor.var(), which divides by n - 1",
        "networks/layers.py",
        "torch.clamp((x * x).mean(dim=-1, keepdim=True) - mean * mean, min=0.0)",
        "x.var(dim=-1, keepdim=True)",
    ),
    Mutation(
        "group-norm-eps",
        "the encoder's GroupNorm has Flax's default eps; the original sets 1e-5",
        "networks/encoders.py",
        "super().__init__(input_dim, num_groups=4, epsilon=1e-5)",
        "super().__init__(input_dim, num_groups=4, epsilon=1e-6)",
    ),
    Mutation(
        "linear-init",
        "kernels start uniform in 1/sqrt(fan_in), as in nn.Linear, not with Xavier's",
        "networks/initializers.py",
        "variance = _rounded(scale / size, dtype)",
        "variance = _rounded(1.0 / (3 * fan_in), dtype)",
    ),
    Mutation(
        "lecun-uncorrected",
        "LeCun's normal lacks the correction for its truncation",
        "networks/initializers.py",
        "deviation / _rounded(_DEVIATION_OF_CUT_NORMAL, dtype)",
        "deviation",
    ),
    Mutation(
        "lecun-clamped",
        "the truncated normal is a clamped normal",
        "networks/initializers.py",
        "random.truncated_normal(key, -2.0, 2.0, shape, dtype)",
        "random.normal(key, shape, dtype).clamp(-2.0, 2.0)",
    ),
    Mutation(
        "dropout-no-rescale",
        "dropout does not rescale the kept values",
        "networks/dropout.py",
        "return torch.where(keep, x / (1.0 - self.rate), torch.zeros_like(x))",
        "return torch.where(keep, x, torch.zeros_like(x))",
    ),
    Mutation(
        "dropout-one-key",
        "all dropout layers of an MLP use the same key",
        "networks/mlp.py",
        'h = drop(h, training, rng and rng.push(f"Dropout_{i}"))',
        "h = drop(h, training, rng)",
    ),
    Mutation(
        "dropout-after-activation",
        "dropout is after the activation, as is usual in PyTorch (quirk N2)",
        "networks/mlp.py",
        """\
                if drop is not None:
                    h = drop(h, training, rng and rng.push(f"Dropout_{i}"))
                h = self.activations(h)
""",
        """\
                h = self.activations(h)
                if drop is not None:
                    h = drop(h, training, rng and rng.push(f"Dropout_{i}"))
""",
    ),
    Mutation(
        "block-norm-first",
        "the residual block normalises before its dropout, as transformers do (quirk N3)",
        "networks/mlp.py",
        """\
        if self.drop is not None:
            x = self.drop(x, training, rng and rng.push("Dropout_0"))
        if self.norm is not None:
            x = self.norm(x)
""",
        """\
        if self.norm is not None:
            x = self.norm(x)
        if self.drop is not None:
            x = self.drop(x, training, rng and rng.push("Dropout_0"))
""",
    ),
    Mutation(
        "block-no-skip",
        "the residual block lacks its residual connection",
        "networks/mlp.py",
        "return residual + self.contract(self.act(self.expand(x)))",
        "return self.contract(self.act(self.expand(x)))",
    ),
    Mutation(
        "resnet-no-last-activation",
        "there is no activation before the last layer, as in CleanDiffuser's IDQL",
        "networks/mlp.py",
        "return self.last(self.activations(h))",
        "return self.last(h)",
    ),
    Mutation(
        "ensemble-same-init",
        "all members of an ensemble are initialised with one key",
        "networks/module.py",
        "for key in rng.split(self.num)]",
        "for key in [rng.key] * self.num]",
    ),
    Mutation(
        "ensemble-same-dropout",
        "all members of an ensemble share their dropout masks",
        "networks/module.py",
        "keys = rng.split(count) if rng is not None and training else None",
        "keys = rng.key.expand(count, 2) if rng is not None and training else None",
    ),
    Mutation(
        "fourier-sin-first",
        "time features have the sine first, as in transformers",
        "networks/noise_predictor.py",
        "torch.cat([torch.cos(f), torch.sin(f)], dim=-1)",
        "torch.cat([torch.sin(f), torch.cos(f)], dim=-1)",
    ),
    Mutation(
        "steps-from-1",
        "the table of encoded times starts at 1, but times start at 0",
        "networks/noise_predictor.py",
        "torch.arange(steps, device=time.device).unsqueeze(1)",
        "torch.arange(1, steps + 1, device=time.device).unsqueeze(1)",
    ),
    Mutation(
        "vp-from-0",
        "the index of the variance-preserving schedule starts at 0",
        "networks/noise_schedules.py",
        "t = torch.arange(1, timesteps + 1).to(float_dtype())",
        "t = torch.arange(timesteps).to(float_dtype())",
    ),
    Mutation(
        "cosine-betas-unclipped",
        "the betas of the cosine schedule are not clipped to 0.999 (quirk N8)",
        "networks/noise_schedules.py",
        "torch.clamp(1 - alpha_hat[1:] / alpha_hat[:-1], 0, 0.999)",
        "torch.clamp(1 - alpha_hat[1:] / alpha_hat[:-1], 0, 1)",
    ),
    Mutation(
        "alpha-hat-shifted",
        "alpha_hat is the product of the alphas before a step, excluding the step",
        "agents/ddpm_iql_build.py",
        "alphas[: i + 1].prod() for i in range(T)",
        "alphas[:i].prod() for i in range(T)",
    ),
    Mutation(
        "sampler-posterior-variance",
        "the sampler's noise has DDPM's posterior variance; the original's is beta (quirk N12)",
        "networks/diffusion.py",
        "x = x + torch.sqrt(betas[t]) * (sample_temperature * z)",
        "x = x + torch.sqrt(betas[t] * (1 - alpha_hats[t - 1]) / (1 - alpha_hats[t])) * ("
        "sample_temperature * z)",
    ),
    Mutation(
        "sampler-temperature-of-variance",
        "the sampler's temperature scales the noise's variance, not its deviation",
        "networks/diffusion.py",
        "torch.sqrt(betas[t]) * (sample_temperature * z)",
        "torch.sqrt(sample_temperature * betas[t]) * z",
    ),
    Mutation(
        "sampler-noise-at-0",
        "the last step of the sampler adds noise too",
        "networks/diffusion.py",
        "        if t > 0:",
        "        if t >= 0:",
    ),
    Mutation(
        "sampler-clip-forgotten",
        "only the result of the sampler is clipped, not every step (quirk N14)",
        "networks/diffusion.py",
        """\
        if clip_sampler:
            x = torch.clamp(x, -1, 1)
""",
        "",
    ),
    Mutation(
        "tanh-no-correction",
        "the density of a squashed action omits the derivative of tanh",
        "distributions/diagonal.py",
        "        if not self.tanh:\n            return density",
        "        if True:\n            return density",
    ),
    Mutation(
        "tanh-correction-eps",
        "the derivative of tanh is log(1 - tanh^2 + 1e-6), as in CleanRL",
        "distributions/diagonal.py",
        "(2.0 * (math.log(2.0) - x - softplus)).sum(dim=-1)",
        "torch.log(1 - torch.tanh(x) ** 2 + 1e-6).sum(dim=-1)",
    ),
    Mutation(
        "diag-draws-actions-first",
        "a batch of distrax's normal vectors is drawn with the action axis first, as TFP's is",
        "distributions/normals.py",
        "return random.normal(key, (count, *self.loc.shape), dtype)",
        "return random.normal(key, (count, *self.loc.shape[::-1]), dtype).mT.reshape("
        "count, *self.loc.shape)",
    ),
    Mutation(
        "normal-entropy-one",
        "the entropy of a normal number is that of variance 1",
        "distributions/normals.py",
        "return 0.5 + (_HALF_LOG_TWO_PI + torch.log(self.scale))",
        "return 0.5 + (_HALF_LOG_TWO_PI + torch.zeros_like(self.scale))",
    ),
    Mutation(
        "normal-divergence-reversed",
        "the divergence of normals is that of the other from this one",
        "distributions/normals.py",
        "    logs = torch.log(scale) - torch.log(other_scale)",
        "    loc, scale, other_loc, other_scale = other_loc, other_scale, loc, scale\n"
        "    logs = torch.log(scale) - torch.log(other_scale)",
    ),
    Mutation(
        "categorical-not-normalised",
        "log-probabilities are the logits as they were given",
        "distributions/categorical.py",
        "logits = torch.log_softmax(logits, dim=-1)",
        "logits = logits * 1.0",
    ),
    Mutation(
        "categorical-outside",
        "a number beyond the categories has log-probability 0",
        "distributions/categorical.py",
        "inside = (value >= 0) & (value <= self.num_categories - 1)",
        "inside = value >= 0",
    ),
    Mutation(
        "categorical-entropy-nan",
        "the entropy of an excluded category is 0 times infinity",
        "distributions/categorical.py",
        "torch.where(probs == 0, 0.0, x) * probs",
        "x * probs",
    ),
    Mutation(
        "independent-mean",
        "log-probabilities are averaged over the axes of an event, not summed",
        "distributions/composed.py",
        "return x.sum(dim=[*range(-axes, 0)]) if axes else x",
        "return x.mean(dim=[*range(-axes, 0)]) if axes else x",
    ),
    Mutation(
        "tanh-transformed-sign",
        "the derivative of tanh is added to a draw's log-density",
        "distributions/composed.py",
        "return torch.tanh(x), log_prob - self._log_slope(x)",
        "return torch.tanh(x), log_prob + self._log_slope(x)",
    ),
    Mutation(
        "deterministic-strict",
        "a value at the edge of the tolerance counts as another one",
        "distributions/deterministic.py",
        "return ((value - self.loc).abs() <= self._slack()).to(float_dtype())",
        "return ((value - self.loc).abs() < self._slack()).to(float_dtype())",
    ),
    Mutation(
        "same-padding-in-front",
        "the odd row of SAME padding is in front, not at the end",
        "networks/conv.py",
        "((total // 2, total - total // 2) for total in totals)",
        "((total - total // 2, total // 2) for total in totals)",
    ),
    Mutation(
        "flatten-channels-first",
        "features are flattened with channels first, as in PyTorch's layout",
        "networks/encoders.py",
        ".flatten(-3)",
        ".movedim(-1, -3).flatten(-3)",
        count=2,
    ),
    Mutation(
        "frames-before-channels",
        "stacked frames are joined frame by frame, not channel by channel",
        "networks/pixel_multiplexer.py",
        "x = encoder(x.reshape(*x.shape[:-2], -1))",
        "x = encoder(x.movedim(-1, -2).reshape(*x.shape[:-2], -1))",
    ),
    Mutation(
        "encoder-not-stopped",
        "the policy's gradients reach the encoder: DrQ's stop_gradient is missing",
        "networks/pixel_multiplexer.py",
        "torch.is_grad_enabled() and not self.stop_gradient",
        "torch.is_grad_enabled()",
    ),
    Mutation(
        "norm-before-activation",
        "the MLP normalises before its activations, as is usual in PyTorch; jaxrl_m does after",
        "networks/mlp.py",
        """\
                h = self.activations(h)
            if (norm := self.norms[i]) is not None:
                h = norm(h)
""",
        """\
                norm = self.norms[i]
                h = self.activations(h if norm is None else norm(h))
""",
    ),
    Mutation(
        "kernel-init-ignored",
        "the MLP ignores kernel_init",
        "networks/mlp.py",
        "kernel_init or default_init()",
        "default_init()",
    ),
    Mutation(
        "gelu-exact-by-default",
        "gelu is exact by default, as in PyTorch; Flax's is the approximation",
        "networks/activations.py",
        "approximate: bool = True",
        "approximate: bool = False",
    ),
    Mutation(
        "ensemble-name-not-in-keys",
        "a named ensemble draws from the keys of the automatic name",
        "networks/module.py",
        "        path = (*rng.path, self.member_name)\n        members",
        '        path = (*rng.path, f"Vmap{type(self.member).__name__}_0")\n        members',
    ),
    Mutation(
        "orthogonal-no-sign",
        "the signs of an orthogonal matrix are those of LAPACK, so that it is not uniform",
        "networks/initializers.py",
        "q = q * torch.sign(torch.diagonal(r))",
        "q = q * torch.ones_like(torch.diagonal(r))",
    ),
    Mutation(
        "orthogonal-last-axis",
        "an orthogonal kernel has its columns on the last axis, whatever the axis asked for",
        "networks/initializers.py",
        ".reshape(*others, columns).movedim(-1, column_axis)",
        ".reshape(shape)",
    ),
    Mutation(
        "fan-without-window",
        "the fans of a convolution do not count its window",
        "networks/initializers.py",
        "return inputs * window, outputs * window",
        "return float(inputs), float(outputs)",
    ),
    Mutation(
        "uniform-symmetric",
        "the uniform initialiser is symmetric around zero, as Keras's is",
        "networks/initializers.py",
        "random.uniform(key, shape, dtype or default or float_dtype()) * scale",
        "(2 * random.uniform(key, shape, dtype or default or float_dtype()) - 1) * scale",
    ),
    Mutation(
        "group-norm-of-one-image",
        "GroupNorm takes three axes for one image; in Flax the first axis is that of the batch",
        "networks/conv.py",
        """\
        rows, channels = x.shape[0], x.shape[-1]
        flat = x.reshape(rows, math.prod(x.shape[1:-1]), channels)
""",
        """\
        rows, channels = 1 if x.ndim == 3 else x.shape[0], x.shape[-1]
        flat = x.reshape(rows, -1, channels)
""",
    ),
    Mutation(
        "group-size-is-number",
        "the size of a group is taken for the number of groups",
        "networks/conv.py",
        "divisor if group_size is None else input_dim // divisor",
        "divisor",
    ),
    Mutation(
        "pool-pads-zeros",
        "max pooling pads with zeros, which are larger than negative values",
        "networks/conv.py",
        "value=-torch.inf",
        "value=0.0",
    ),
    Mutation(
        "sequential-one-key",
        "all dropout layers of a Sequential use the same key",
        "networks/sequential.py",
        "rng and rng.push(name)",
        "rng",
    ),
    Mutation(
        "impala-one-mask",
        "the dropout of the IMPALA encoder has the same key after each stack",
        "networks/impala.py",
        'rng and rng.push("dropout"), place)',
        'rng and rng.push("dropout"), 1)',
    ),
)
