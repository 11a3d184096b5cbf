"""Valid calls of the classes and the less used functions, as ``public_calls.py``."""

# ruff: noqa: E731 - short functions with the names of arguments

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pixel_learners
import torch
from canvas_env import CanvasEnv
from tiny_learners import ACT, OBS, box, make_batch, make_state_learner

import idql_func
from idql_func import data, distributions, envs, evaluation, interop, networks, random
from idql_func.networks import initializers
from idql_func.training import updates
from idql_func.training.runs import checkpoint

Call = tuple[Callable[..., Any], dict[str, Any]]
Calls = Iterator[tuple[str, Call]]

KEY = random.PRNGKey(0)
X = torch.linspace(-1, 1, 8 * OBS).reshape(8, OBS)
IMAGES = torch.ones(2, 8, 8, 3)
ONE_LAYER: dict[str, Any] = {"features": (4,), "filters": (3,), "strides": (2,)}
FOLDER = Path(tempfile.mkdtemp(prefix="hostile"))


def made_anew(write: Callable[..., Any], argument: str, name: str) -> Callable[..., Any]:
    """A function that writes into an empty folder of its own."""

    def call(**given: Any) -> Any:
        with tempfile.TemporaryDirectory() as folder:
            if isinstance(given.get(argument), Path):
                given[argument] = Path(folder, name)
            return write(**given)

    return call


def settings_of(cls: Any, **valid: Any) -> dict[str, Any]:
    """The arguments of a class: valid ones and its defaults."""
    parameters = inspect.signature(cls).parameters.items()
    defaults = {k: p.default for k, p in parameters if p.default is not p.empty}
    return {**defaults, **valid}


def of_layers() -> Calls:
    n = networks
    shape = (8, 8, 3)
    for cls, valid in (
        (n.MLP, {"input_dim": 3, "hidden_dims": [4]}),
        (n.Dense, {"input_dim": 3, "features": 4}),
        (n.LayerNorm, {"input_dim": 3}),
        (n.GroupNorm, {"input_dim": 8, "num_groups": 2}),
        (n.FourierFeatures, {"output_size": 4}),
        (n.Conv, {"input_dim": 3, "features": 4, "kernel_size": (3, 3)}),
        (n.D4PGEncoder, {"input_shape": shape, **ONE_LAYER}),
        (n.ResNetV2Block, {"input_shape": shape, "filters": 4}),
        (n.ResNetV2Encoder, {"input_shape": shape, "stage_sizes": (1, 1), "num_filters": 4}),
        (
            n.ImpalaEncoder,
            {"input_shape": shape, "stack_sizes": (2,), "num_blocks": 1, "mlp_hidden_dims": (4,)},
        ),
        (n.ResnetStack, {"input_shape": shape, "num_features": 2, "num_blocks": 1}),
        (n.MLPResNet, {"input_dim": 3, "num_blocks": 1, "out_dim": 2, "hidden_dim": 4}),
        (n.MLPResNetBlock, {"features": 4, "act": n.relu}),
        (n.Temperature, {}),
        (n.Sequential, {"layers": [n.Dense(3, 4), n.relu]}),
    ):
        yield (
            f"{cls.__name__}.init",
            (
                lambda cls=cls, **given: cls(**given).init(KEY),
                settings_of(cls, **valid),
            ),
        )
    for net, valid in (
        (n.Conv(3, 4, (3, 3)), IMAGES),
        (n.ImpalaEncoder((8, 8, 3), 1, (2,), 1, mlp_hidden_dims=(4,)), IMAGES),
        (n.Sequential([n.Dense(OBS, 4), n.relu]), X),
        (n.D4PGEncoder((8, 8, 3), **ONE_LAYER), IMAGES),
        (n.ResNetV2Encoder((8, 8, 3), (1, 1), 4), IMAGES),
        (n.GroupNorm(8, 2), torch.ones(2, 8)),
        (n.MLPResNet(3, 1, 2, hidden_dim=4), X),
        (n.LayerNorm(OBS), X),
        (n.FourierFeatures(4), torch.ones(8, 1)),
        (n.StateValue(n.MLP, OBS, [4]), X),
    ):
        yield (
            f"{type(net).__name__}.apply",
            (
                lambda x, net=net: net.apply(net.init(KEY), x),
                {"x": valid},
            ),
        )
    critic = n.StateActionValue(n.MLP, OBS + ACT, [4])
    params = critic.init(KEY)
    yield (
        "StateActionValue.apply",
        (
            lambda observations, actions: critic.apply(params, observations, actions),
            {"observations": X, "actions": torch.zeros(8, ACT)},
        ),
    )
    for cls in (n.StateActionValue, n.StateValue):
        yield cls.__name__, (cls, {"base_cls": lambda: n.MLP(OBS, [4])})
    yield (
        "default_init",
        (
            lambda shape, scale: n.default_init(scale)(KEY, shape),
            {"shape": (3, 2), "scale": 0.5},
        ),
    )
    yield "LazyRng", (lambda key: n.LazyRng(key).make(1), {"key": KEY})
    yield "Module.init", (n.MLP(3, [4]).init, {"key": KEY})
    yield "PixelMultiplexer", (
        lambda **given: n.PixelMultiplexer(n.D4PGEncoder, n.MLP, **given),
        {"latent_dim": 4, "observation_shapes": {"pixels": (8, 8, 3)}, "action_dim": 2,
         "stop_gradient": False, "pixel_keys": ("pixels",), "depth_keys": ()},
    )  # fmt: skip
    steps = n.vp_beta_schedule(2)
    schedule = {"alphas": 1 - steps, "alpha_hats": torch.cumprod(1 - steps, 0), "betas": steps}
    sampler: dict[str, Any] = {
        "actor_params": {}, "T": 2, "rng": KEY, "act_dim": ACT, "observations": X, **schedule,
        "sample_temperature": 1.0, "repeat_last_step": 0, "clip_sampler": True,
    }  # fmt: skip
    yield "ddpm_sampler", (lambda **given: n.ddpm_sampler(noise, **given), sampler)
    yield (
        "candidate_sampler",
        (
            lambda **given: n.candidate_sampler(noise, **given),
            {**sampler, "count": 2, "observations": X[0]},
        ),
    )
    module = n.DDPM(n.MLP(OBS, [4]), n.MLP(OBS + ACT + 4, [2]), n.FourierFeatures(4))
    weights = module.init(KEY)
    yield "DDPM", (
        lambda observations, actions, time: module.apply(weights, observations, actions, time),
        {"observations": X, "actions": torch.zeros(8, ACT), "time": torch.zeros(8, 1)},
    )  # fmt: skip
    for name in ("TanhNormal", "TanhDeterministic"):
        cls = getattr(distributions, name)
        yield (
            name,
            (
                lambda cls=cls, **given: cls(n.MLP, input_dim=3, hidden_dims=[4], **given),
                {"action_dim": 2},
            ),
        )
    yield (
        "Diagonal",
        (
            lambda **given: distributions.Diagonal(**given).sample(KEY),
            {"loc": X, "scale": torch.ones(8, OBS), "tanh": True},
        ),
    )


def of_initializers() -> Calls:
    i = initializers
    axes = {"in_axis": -2, "out_axis": -1, "batch_axis": (), "dtype": torch.float32}
    for family in ("xavier", "glorot", "lecun", "he", "kaiming"):
        for kind in ("uniform", "normal"):
            make = getattr(i, f"{family}_{kind}")
            call = lambda make=make, **given: make(**given)(KEY, (3, 2))
            yield f"{family}_{kind}", (call, axes)
    kinds = {"scale": 1.0, "mode": "fan_in", "distribution": "normal", **axes}
    yield "variance_scaling", (lambda **given: i.variance_scaling(**given)(KEY, (3, 2)), kinds)
    for name, given in (
        ("constant", {"value": 0.5, "dtype": None}),
        ("uniform", {"scale": 0.5, "dtype": None}),
        ("normal", {"stddev": 0.5, "dtype": None}),
        ("truncated_normal", {"stddev": 0.5, "dtype": None, "lower": -1.0, "upper": 1.0}),
        ("orthogonal", {"scale": 0.5, "column_axis": -1, "dtype": None}),
        ("delta_orthogonal", {"scale": 0.5, "column_axis": -1, "dtype": None}),
        ("default_init", {"scale": 0.5}),
    ):
        make = getattr(i, name)
        yield name, (lambda make=make, **given: make(**given)(KEY, (3, 2, 2)), given)
        drawn = {"key": KEY, "shape": (3, 2, 2), "dtype": torch.float32}
        yield f"{name} drawn", (make(*(() if name != "constant" else (1.0,))), drawn)
    for draw in (i.zeros, i.ones, i.zeros_init(), i.ones_init()):
        yield draw.__name__, (draw, {"key": KEY, "shape": (3, 2), "dtype": torch.float32})
    yield "zeros_init", (i.zeros_init, {})
    yield "ones_init", (i.ones_init, {})
    yield "takes_dtype", (i.takes_dtype, {"initializer": i.zeros})


def noise(params: Any, observations: Any, actions: Any, *rest: Any, **options: Any) -> Any:
    return torch.zeros_like(actions)


def of_storage() -> Calls:
    from public_calls import ARRAYS

    yield (
        "Normalizer",
        (
            lambda **given: data.Normalizer(**given).normalize(X),
            {"shift": X[0], "scale": torch.ones(OBS)},
        ),
    )
    fitted = data.fit_mean_std(X)
    yield "Normalizer.normalize", (fitted.normalize, {"x": X})
    yield "Normalizer.denormalize", (fitted.denormalize, {"z": X})
    yield (
        "ReferenceScores",
        (
            lambda **given: data.normalized_score(data.ReferenceScores(**given), 1.0),
            {"min_score": 0.0, "max_score": 1.0},
        ),
    )
    images = gym.spaces.Dict({"pixels": gym.spaces.Box(0, 255, (4, 4, 3, 2), np.uint8)})
    yield "MemoryEfficientReplayBuffer", (
        data.MemoryEfficientReplayBuffer,
        {"observation_space": images, "action_space": box(ACT), "capacity": 9,
         "pixel_keys": ("pixels",), "storage": None, "seed": 0, "device": "cpu"},
    )  # fmt: skip
    yield "ReplayBuffer.made", (
        data.ReplayBuffer,
        {"observation_space": box(OBS), "action_space": box(ACT), "capacity": 9,
         "next_observation_space": None, "storage": None, "seed": 0, "device": "cpu"},
    )  # fmt: skip
    filled = data.ReplayBuffer(box(OBS), box(ACT), 9)
    filled.insert({name: value[0] for name, value in ARRAYS.items()})
    yield "ReplayBuffer.sample", (filled.sample, {"batch_size": 2, "keys": None, "indx": None})
    yield "ReplayBuffer.split", (filled.split, {"ratio": 0.5})
    yield "ReplayBuffer.on_device", (filled.on_device, {"keys": None})
    saved = made_anew(filled.save, "path", "b.safetensors")
    yield "ReplayBuffer.save", (saved, {"path": Path("b")})
    yield "ReplayBuffer.load", (data.ReplayBuffer.load, {"path": "nothing"})
    for cls, valid in (
        (data.D4RLDataset, {"source": "nothing.hdf5"}),
        (data.BinaryDataset, {"source": "nothing.npy"}),
        (data.MinariDataset, {"source": "nothing"}),
    ):
        yield f"{cls.__name__}.made", (cls, settings_of(cls, **valid))
    yield (
        "prefetch",
        (
            lambda **given: next(data.prefetch(lambda: {"a": np.ones(2)}, **given)),
            {"queue_size": 2, "device": "cpu"},
        ),
    )
    yield "prefetch.draw", (lambda draw: next(data.prefetch(draw)), {"draw": lambda: dict(ARRAYS)})
    yield (
        "episodes_from_transitions",
        (
            data.episodes_from_transitions,
            {"dataset_dict": dict(ARRAYS)},
        ),
    )
    yield "write_minari_dataset", (
        made_anew(data.write_minari_dataset, "folder", "m"),
        {"folder": Path("m"), "episodes": data.episodes_from_transitions(dict(ARRAYS)),
         "observation_space": box(OBS), "action_space": box(ACT), "dataset_id": None,
         "attributes": None},
    )  # fmt: skip


def canvas() -> gym.Env:
    env = CanvasEnv()
    env.reset(seed=0)
    return env


def of_rendering() -> Calls:
    picture = dict(height=8, width=8, effects=True)
    yield (
        "FrameSource",
        (
            lambda **given: envs.FrameSource(canvas(), **given).rgb(),
            picture,
        ),
    )
    yield (
        "FrameSource.rgb",
        (lambda camera: envs.FrameSource(canvas(), 8, 8).rgb(camera), {"camera": 0}),
    )
    yield "FrameSource.env", (lambda env: envs.FrameSource(env, 8, 8), {"env": canvas()})
    yield "OffscreenView", (lambda **given: envs.OffscreenView(**given).close(), picture)
    yield "OffscreenRender", (envs.OffscreenRender, {"env": canvas()})
    nested = lambda: CanvasEnv(nested=True)
    yield (
        "FrameStack",
        (
            lambda num_stack, stacking_key: envs.FrameStack(nested(), num_stack, stacking_key),
            {"num_stack": 2, "stacking_key": "pixels"},
        ),
    )
    for cls in (envs.FrameStack, envs.SinglePrecision, envs.UniversalSeed, envs.BoundedActions):
        more = {"num_stack": 2} if cls is envs.FrameStack else {}
        env = nested() if more else gym.make("Pendulum-v1")
        yield (
            f"{cls.__name__}.env",
            (lambda env, cls=cls, more=more: cls(env, **more), {"env": env}),
        )
    bounded = envs.BoundedActions(gym.make("Pendulum-v1"))
    yield "BoundedActions.action", (bounded.action, {"action": np.zeros(1, np.float32)})
    yield (
        "UniversalSeed.reset",
        (
            lambda seed: envs.UniversalSeed(gym.make("Pendulum-v1")).reset(seed=seed),
            {"seed": 0},
        ),
    )
    pixels = settings_of(envs.PixelObservation, image_size=8)
    yield (
        "PixelObservation",
        (
            lambda **given: envs.PixelObservation(canvas(), **given).close(),
            {k: v for k, v in pixels.items() if k != "env"},
        ),
    )
    wrapped = {**settings_of(envs.wrap_pixels, image_size=8), "num_stack": 2}
    yield (
        "wrap_pixels",
        (
            lambda **given: envs.wrap_pixels(canvas(), **given)[0].close(),
            {k: v for k, v in wrapped.items() if k != "env"},
        ),
    )
    yield "VideoRecorder", (
        lambda **given: envs.VideoRecorder(canvas(), FOLDER / "v", **given),
        {"name": "episode", "size": None, "camera_id": 0, "every": 1, "max_videos": None,
         "fps": None, "suffix": ".gif"},
    )  # fmt: skip
    yield (
        "WANDBVideo",
        (
            lambda **given: envs.WANDBVideo(canvas(), **given),
            {"name": "video", "pixel_hw": 8, "render_kwargs": None, "max_videos": None},
        ),
    )
    yield (
        "write_video",
        (
            made_anew(envs.write_video, "path", "a.gif"),
            {"path": Path("a.gif"), "frames": np.zeros((2, 8, 8, 3), np.uint8), "fps": 10.0},
        ),
    )
    maze = {"goal": (-1.0, -1.0), "goal_radius": 0.6}
    yield (
        "make_pointmaze_env",
        (
            lambda **given: envs.make_pointmaze_env(**given).close(),
            {**maze, "episode_steps": 300, "render_mode": None},
        ),
    )
    yield (
        "FixedGoalPointMaze",
        (
            lambda **given: envs.FixedGoalPointMaze(canvas(), **given),
            maze,
        ),
    )
    yield (
        "wrap_gym.bounds",
        (
            lambda **given: envs.wrap_gym(gym.make("Pendulum-v1"), **given),
            {"rescale_actions": True, "assert_native_bounds": False},
        ),
    )

    def allowed(names: Any) -> None:
        with envs.allow_env_imports(names):
            pass

    yield "allow_env_imports", (allowed, {"names": None})


def of_evaluation() -> Calls:
    from public_calls import _short

    policy = idql_func.agents.BCLearner.create(0, box(3), box(1), hidden_dims=(4,))
    options: dict[str, Any] = {
        "method": "eval_actions", "record_trajectories": False, "score_name": None,
        "progress": False, "overlap": True,
    }  # fmt: skip
    yield (
        "evaluate.options",
        (
            lambda **given: evaluation.evaluate(policy, _short, 1, **given),
            {**options, "fold_seed": False, "save_video": False},
        ),
    )
    yield (
        "evaluate.source",
        (
            lambda source: evaluation.evaluate(policy, source, 1),
            {"source": _short},
        ),
    )
    yield (
        "implicit_evaluate",
        (
            lambda num_episodes: evaluation.implicit_evaluate(
                make_state_learner("bc"), _short, num_episodes
            ),
            {"num_episodes": 1},
        ),
    )
    yield (
        "evaluate_members",
        (
            lambda **given: evaluation.evaluate_members(policy, env_or_factory=_short, **given),
            {"members": 1, "num_episodes": 1, "seed": 0, "num_envs": None},
        ),
    )
    yield (
        "environments_at_once",
        (
            evaluation.environments_at_once,
            {"num_episodes": 3, "num_envs": None},
        ),
    )
    actor = Still()
    yield "record_video", (
        made_anew(
            lambda **given: evaluation.record_video(actor, canvas, **given), "path", "a.gif"
        ),
        {"path": Path("a.gif"), "seed": 0, "method": "eval_actions", "size": 8, "camera_id": 0,
         "fps": None, "max_steps": 2},
    )  # fmt: skip


class Still:
    """A learner that does not move."""

    def eval_actions(self, observations: Any) -> Any:
        return np.zeros((len(observations), 2), np.float32), self


def of_files() -> Calls:
    learner = make_state_learner("bc")
    policy = interop.policy_module(learner)
    yield (
        "save_policy",
        (
            made_anew(interop.save_policy, "path", "p.safetensors"),
            {"policy": policy, "path": Path("p")},
        ),
    )
    for name in ("Policy", "GreedyPolicy", "DiffusionPolicy"):
        yield name, (getattr(interop, name), {"config": policy.config})
    yield (
        "build_policy",
        (
            interop.build_policy,
            {"config": policy.config, "state_dict": policy.state_dict()},
        ),
    )
    yield (
        "DiffusionPolicy.forward",
        (
            interop.policy_module(pixel_free_idql()),
            {"observations": X, "key": 0},
        ),
    )
    yield (
        "save_checkpoint.flax",
        (
            made_anew(interop.save_checkpoint, "ckpt_dir", "c"),
            {
                "ckpt_dir": Path("c"),
                "target": learner,
                "step": 1,
                "prefix": "c_",
                "overwrite": False,
            },
        ),
    )
    yield (
        "restore_checkpoint.flax",
        (
            interop.restore_checkpoint,
            {"ckpt_dir": "nothing", "target": learner, "step": None, "prefix": "checkpoint_"},
        ),
    )
    yield (
        "save_orbax",
        (
            made_anew(interop.save_orbax, "path", "o"),
            {"path": Path("o"), "target": learner, "overwrite": False},
        ),
    )
    yield "restore_orbax", (interop.restore_orbax, {"path": "nothing", "target": learner})
    metadata = lambda **given: checkpoint.CheckpointMetadata(
        **{"updates": 1, "seed": 0, "create": {}, "observation_space": box(OBS),
           "action_space": box(ACT), **given}
    )  # fmt: skip
    save = made_anew(checkpoint.save_checkpoint, "directory", "s")
    yield (
        "save_checkpoint",
        (
            save,
            {"directory": Path("s"), "learner": learner, "metadata": metadata()},
        ),
    )
    yield "CheckpointMetadata", (
        lambda **given: save(directory=Path("s"), learner=learner, metadata=metadata(**given)),
        {"updates": 1, "seed": 0, "create": {}, "observation_space": box(OBS),
         "action_space": box(ACT), "extra": {}, "settings": {}},
    )  # fmt: skip
    folder = checkpoint.save_checkpoint(FOLDER / "kept", learner, metadata())
    yield (
        "load_checkpoint",
        (
            checkpoint.load_checkpoint,
            {"directory": folder, "learner_class": None, "device": "cpu"},
        ),
    )
    yield "read_metadata", (checkpoint.read_metadata, {"directory": folder})
    yield "find_checkpoint", (checkpoint.find_checkpoint, {"path": folder})
    yield (
        "restore_learner",
        (
            checkpoint.restore_learner,
            {"learner": learner, "directory": folder},
        ),
    )


def pixel_free_idql() -> Any:
    from tiny_learners import TINY

    from idql_func.agents import DDPMIQLLearner

    return DDPMIQLLearner.create(0, box(OBS), box(ACT), **TINY[DDPMIQLLearner])


def of_updates() -> Calls:
    arrays = make_batch()
    learner = make_state_learner("bc")
    yield "scan_updates", (
        updates.scan_updates,
        {"learner": learner, "arrays": arrays, "key": KEY, "steps": 1, "batch_size": 2,
         "metrics": "mean", "update": None, "donate": False},
    )  # fmt: skip
    yield (
        "draw_batch",
        (
            updates.draw_batch,
            {"arrays": arrays, "key": KEY, "batch_size": 2, "rows": None, "count": None},
        ),
    )


def of_pixels() -> Calls:
    for case in ("drq", "bc"):
        learner = pixel_learners.create(case)
        name = type(learner).__name__
        _, shapes, keywords, _ = pixel_learners.CASES[case]
        parameters = inspect.signature(type(learner).create).parameters.items()
        defaults = {k: p.default for k, p in parameters if p.kind == p.KEYWORD_ONLY}
        yield f"{name}.create", (
            type(learner).create,
            {"seed": 0, "observation_space": pixel_learners.space(shapes),
             "action_space": pixel_learners.ACTIONS, **defaults, **keywords},
        )  # fmt: skip
        batch = pixel_learners.batch_of(case)
        yield f"{name}.update", (learner.update, {"batch": batch})
        for field in batch:
            yield (
                f"{name}.update {field}",
                (
                    lambda value, learner=learner, field=field, batch=batch: learner.update(
                        {**batch, field: value}
                    ),
                    {"value": batch[field]},
                ),
            )
        for method in ("eval_actions", "sample_actions"):
            yield (
                f"{name}.{method}",
                (
                    getattr(learner, method),
                    {"observations": batch["observations"]},
                ),
            )
        yield (
            f"{name}.pixels",
            (
                lambda value, learner=learner: learner.eval_actions({"pixels": value}),
                {"value": batch["observations"]["pixels"]},
            ),
        )


GROUPS: dict[str, Callable[[], Calls]] = {
    "layers": of_layers,
    "initializers": of_initializers,
    "storage": of_storage,
    "rendering": of_rendering,
    "evaluation": of_evaluation,
    "files": of_files,
    "updates": of_updates,
    "pixels": of_pixels,
}
