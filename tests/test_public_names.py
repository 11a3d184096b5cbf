"""The public contract: its names, their examples, and no effect on import."""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import subprocess
import sys
from types import FunctionType, ModuleType

import pytest

import idql_func

NAMES = {
    "idql_func": (
        "disable_jit enable_x64 grad jit random scan struct tree_flatten tree_leaves tree_map "
        "tree_stack tree_unflatten tree_unstack value_and_grad vmap dynamic_slice "
        "dynamic_slice_in_dim dynamic_index_in_dim dynamic_update_slice stop_gradient logsumexp "
        "eval_shape ShapeDtypeStruct debug"
    ),
    "idql_func.debug": "print",
    "idql_func.random": (
        "PRNGKey split fold_in bits uniform normal truncated_normal randint bernoulli "
        "permutation choice categorical threefry_partitionable"
    ),
    "idql_func.transforms": "jit vmap grad value_and_grad scan tree_paths compiler_problem",
    "idql_func.struct": "PyTreeNode TrainState field FrozenDict freeze unfreeze",
    "idql_func.optim": (
        "adam adamw chain clip clip_by_global_norm constant_schedule cosine_decay_schedule "
        "incremental_update apply_updates join_schedules linear_schedule scale_by_adam "
        "scale_by_schedule sgd"
    ),
    "idql_func.types": "PRNGKey Params DataType DatasetDict Batch InfoDict PyTree InputError",
    "idql_func.losses": (
        "expectile_loss quantile_loss exponential_loss exp_w_clip critic_objective_loss "
        "advantage_weights implicit_policy_weights l2_loss huber_loss sigmoid_binary_cross_entropy"
    ),
    "idql_func.networks": (
        "MLP MLPResNet MLPResNetBlock Ensemble subsample_ensemble StateValue StateActionValue "
        "FourierFeatures DDPM ddpm_sampler cosine_beta_schedule linear_beta_schedule "
        "vp_beta_schedule default_init get_weight_decay_mask init apply "
        "Sequential GroupNorm max_pool gelu ImpalaEncoder encoder_modules initializers"
    ),
    "idql_func.networks.initializers": (
        "constant zeros ones uniform normal truncated_normal variance_scaling orthogonal "
        "delta_orthogonal xavier_uniform xavier_normal glorot_uniform glorot_normal lecun_uniform "
        "lecun_normal he_uniform he_normal kaiming_uniform kaiming_normal zeros_init ones_init"
    ),
    "idql_func.networks.encoders": "D4PGEncoder ResNetV2Encoder",
    "idql_func.networks.pixel_multiplexer": "PixelMultiplexer",
    "idql_func.distributions": (
        "Normal TanhNormal TanhDeterministic Diagonal Categorical Deterministic Independent "
        "MultivariateNormalDiag TanhTransformed UnivariateNormal Distribution"
    ),
    "idql_func.agents": (
        "BCLearner IQLLearner DDPMIQLLearner GeneralDDPMIQLLearner SACLearner TD3Learner "
        "DrQLearner PixelBCLearner"
    ),
    "idql_func.agents.ddpm_iql": (
        "value_loss critic_loss score_loss diffuse sample_candidates min_q"
    ),
    "idql_func.agents.critics": (
        "min_q value_loss critic_loss batch_min_q bellman_target step_value step_critic soft_update"
    ),
    "idql_func.agents.iql": "weighted_actor_loss summed_critic_loss value_loss",
    "idql_func.agents.bc": "bc_loss",
    "idql_func.agents.sac": "soft_actor_loss temperature_loss Temperature mini_batches",
    "idql_func.agents.td3": "deterministic_actor_loss",
    "idql_func.agents.augmentations": "random_crop batched_random_crop",
    "idql_func.data": (
        "Dataset D4RLDataset ReplayBuffer MemoryEfficientReplayBuffer BinaryDataset MinariDataset"
    ),
    "idql_func.envs": (
        "make_env wrap_gym wrap_pixels SinglePrecision UniversalSeed RepeatAction FrameStack "
        "WANDBVideo"
    ),
    "idql_func.evaluation": "evaluate implicit_evaluate",
    "idql_func.interop": (
        "msgpack_restore msgpack_serialize to_bytes from_bytes to_state_dict from_state_dict "
        "save_checkpoint restore_checkpoint latest_checkpoint save_orbax restore_orbax "
        "policy_module save_policy load_policy"
    ),
}

# found by search, so that new modules are tested too
PACKAGES = ("idql_func.networks", "idql_func.agents", "idql_func.distributions")
FLOOR = (
    *("random", "tree", "transforms", "struct", "optim", "losses", "prediction_losses"),
    *("debug", "frozen_dict", "shapes", "slices"),
)
MODULES = [f"idql_func.{name}" for name in FLOOR] + [
    f"{package}.{info.name}"
    for package in PACKAGES
    for info in pkgutil.iter_modules(importlib.import_module(package).__path__)
    if not info.name.startswith("_")
]


@pytest.mark.parametrize("module", NAMES)
def test_names_of_the_contract_exist(module: str) -> None:
    loaded = importlib.import_module(module)
    missing = [name for name in NAMES[module].split() if not hasattr(loaded, name)]
    assert missing == []


@pytest.mark.parametrize("module", ["idql_func", "idql_func.networks", "idql_func.random"])
def test_all_lists_existing_names(module: str) -> None:
    loaded = importlib.import_module(module)
    assert all(hasattr(loaded, name) for name in loaded.__all__)
    assert len(set(loaded.__all__)) == len(loaded.__all__)


METHODS = [
    "create",
    "update",
    "actor_update",
    "critic_update",
    "eval_loss",
    "eval_actions",
    "sample_actions",
    "sample_implicit_policy",
    "replace",
    "to",
]


LEARNERS = {
    "BCLearner": "rng actor entropy_bonus",
    "PixelBCLearner": "rng actor entropy_bonus",
    "IQLLearner": ("rng actor critic target_critic value discount tau expectile temperature"),
    "SACLearner": (
        "rng actor critic target_critic temp tau discount target_entropy num_qs num_min_qs "
        "backup_entropy"
    ),
    "DrQLearner": (
        "rng actor critic target_critic temp tau discount target_entropy num_qs num_min_qs "
        "backup_entropy"
    ),
    "TD3Learner": (
        "rng actor target_actor critic target_critic tau discount num_qs num_min_qs "
        "exploration_noise target_policy_noise target_policy_noise_clip actor_delay"
    ),
}


@pytest.mark.parametrize("name", LEARNERS)
def test_other_learners_have_the_methods_and_fields_of_upstream(name: str) -> None:
    cls = getattr(idql_func_agents(), name)
    for method in ("create", "update", "eval_actions", "sample_actions", "replace", "to"):
        assert inspect.getdoc(getattr(cls, method)), method
    assert set(inspect.signature(cls).parameters) >= set(LEARNERS[name].split())


def test_learners_have_the_methods_and_fields_of_upstream() -> None:
    for cls in (idql_func_agents().DDPMIQLLearner, idql_func_agents().GeneralDDPMIQLLearner):
        for method in METHODS:
            assert inspect.getdoc(getattr(cls, method)), method
        fields = set(inspect.signature(cls).parameters)
        assert fields >= {
            "rng", "score_model", "target_score_model", "critic", "target_critic", "value",
            "discount", "tau", "actor_tau", "critic_hyperparam", "act_dim", "T", "N", "M",
            "clip_sampler", "ddpm_temperature", "policy_temperature", "betas", "alphas",
            "alpha_hats",
        }  # fmt: skip


def idql_func_agents() -> ModuleType:
    return importlib.import_module("idql_func.agents")


# shown in the examples of the learners that call them
WITHOUT_EXAMPLE = {"sample_candidates", "build"}


@pytest.mark.parametrize("module", MODULES)
def test_everything_public_is_documented_and_functions_have_an_example(module: str) -> None:
    loaded = importlib.import_module(module)
    assert inspect.getdoc(loaded)
    undocumented, without_example = [], []
    for name, value in vars(loaded).items():
        if name.startswith("_") or getattr(value, "__module__", None) != module:
            continue
        if isinstance(value, FunctionType | type) and not value.__doc__:
            undocumented.append(name)
        elif isinstance(value, FunctionType) and ">>>" not in str(value.__doc__):
            without_example.append(name)
    assert undocumented == []
    assert set(without_example) <= WITHOUT_EXAMPLE


PROBE = """
import json, os, sys
import torch, numpy, gymnasium, optree

def state():
    return {
        "threads": torch.get_num_threads(),
        "interop": torch.get_num_interop_threads(),
        "dtype": str(torch.get_default_dtype()),
        "device": str(torch.get_default_device()),
        "matmul": torch.get_float32_matmul_precision(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "grad": torch.is_grad_enabled(),
        "torch key": torch.random.get_rng_state().sum().item(),
        "numpy key": int(numpy.random.get_state()[1].sum()),
        "numpy errors": numpy.geterr(),
        "environment": dict(os.environ),
        "cuda": torch.cuda.is_initialized(),
    }

before = state()
import idql_func, idql_func.transforms, idql_func.optim, idql_func.losses
import idql_func.networks, idql_func.agents
heavy = [n for n in ("tensordict", "matplotlib", "h5py", "jax", "tyro") if n in sys.modules]
compiled = "torch._inductor.compile_fx" in sys.modules
print(json.dumps({"same": before == state(), "heavy": heavy, "compiled": compiled}))
"""


def test_importing_has_no_effect() -> None:
    result = subprocess.run(
        [sys.executable, "-c", PROBE], capture_output=True, text=True, check=False, timeout=120
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("\n") == 1, "importing prints nothing"
    assert json.loads(result.stdout) == {"same": True, "heavy": [], "compiled": False}


def test_base_modules_import_no_higher_layer() -> None:
    """``transforms``, ``optim``, ``struct`` and ``random`` need no networks and no learners."""
    code = (
        "import sys, idql_func.transforms, idql_func.optim, idql_func.struct, idql_func.random\n"
        "print([n for n in sys.modules if n.startswith(('idql_func.networks', "
        "'idql_func.agents', 'idql_func.data', 'idql_func.training', 'gymnasium'))])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


OLD_NAMES = {
    "idql_func.agents.agent": {"PolicyAgent": "policy_agent", "box_size": "checks"},
    "idql_func.agents.build": {
        "check_rate": "checks", "critic_network": "factories", "trained": "train_state",
        "target_of": "target_state",
    },
    "idql_func.agents.critics": {"follow": "soft_update", "summed_critic_loss": "iql"},
    "idql_func.agents.ddpm_iql": {"DDPMIQLLearner": "ddpm_iql_learners"},
    "idql_func.agents.sac": {"all_but_last": "step_on_all_but_last"},
    "idql_func.agents.pixels": {"Eyes": "VisionConfig"},
    "idql_func.data.arrays": {"placer": "make_transfer"},
    "idql_func.networks.layers": {"Looked": "IndexedRows", "Dropout": "dropout"},
    "idql_func.networks.products": {"matmul": "layers"},
    "idql_func.networks.resnet": {"MLPResNet": "mlp"},
    "idql_func.networks.values": {"StateValue": "mlp"},
}  # fmt: skip
"""The old names of each module, and a part of the new module or name."""


@pytest.mark.parametrize("module", OLD_NAMES)
def test_old_names_resolve_with_a_deprecation_warning(module: str) -> None:
    loaded = importlib.import_module(module)
    for old, new in OLD_NAMES[module].items():
        with pytest.warns(DeprecationWarning, match=rf"{old} is now .*\b{new}\b"):
            assert callable(getattr(loaded, old))


def test_subpackages_are_imported_on_attribute_access() -> None:
    """Unknown names raise AttributeError."""
    code = "import idql_func; idql_func.agents.IQLLearner; idql_func.evaluation.evaluate"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
    for name in ("nothing", "_nothing"):
        assert not hasattr(idql_func, name)
