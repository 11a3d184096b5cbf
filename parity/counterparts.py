"""The port's counterpart of each public name of the original, and names without a case."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

# The first pattern that matches a whole name applies.
_PLACES: Mapping[str, str] = {
    r"jaxrl5\.agents\.agent\.Agent(.*)": r"idql_func.agents.policy_agent.PolicyAgent\1",
    r"jaxrl5\.agents\.bc\.bc_learner\.get_weight_decay_mask": "idql_func.agents.bc.decay_mask",
    r"jaxrl5\.agents\.ddpm_iql\.ddpm_iql_learner\.DDPMIQLLearner\.actor_loss_no_grad": (
        "idql_func.agents.ddpm_iql_learners.GeneralDDPMIQLLearner.eval_loss"
    ),
    r"jaxrl5\.agents\.ddpm_iql\.ddpm_iql_learner\.DDPMIQLLearner(.*)": (
        r"idql_func.agents.GeneralDDPMIQLLearner\1"
    ),
    r"jaxrl5\.agents\.ddpm_iql_simple\.ddpm_iql_learner\.DDPMIQLLearner(.*)": (
        r"idql_func.agents.DDPMIQLLearner\1"
    ),
    r"jaxrl5\.agents\..*\.compute_q": "idql_func.agents.critics.min_q",
    r"jaxrl5\.agents\..*\.compute_v": "idql_func.networks.StateValue.forward",
    r"jaxrl5\.agents\..*\.mish": "idql_func.networks.mish",
    r"jaxrl5\.agents\.iql\.iql_learner\.loss": "idql_func.losses.expectile_loss",
    r"jaxrl5\.agents\.ddpm_iql.*\.(\w*loss|exp_w_clip)": r"idql_func.losses.\1",
    r"jaxrl5\.agents\.drq\.augmentations\.(.*)": r"idql_func.agents.augmentations.\1",
    r"jaxrl5\.agents\.sac\.temperature\.Temperature(.*)": r"idql_func.agents.sac.Temperature\1",
    r"jaxrl5\.agents\.\w+\.\w+\.(\w+Learner.*)": r"idql_func.agents.\1",
    r"jaxrl5\.data\.binary_datasets\.process_(expert|bc)_dataset": (
        r"idql_func.data.binary._\1_arrays"
    ),
    r"jaxrl5\.data\.dataset\.Dataset\.sample_jax": "idql_func.data.Dataset.sample_torch",
    r"jaxrl5\.data\.dataset\.DatasetDict": "idql_func.types.DatasetDict",
    r"jaxrl5\.data\.\w+\.(\w+(Dataset|Buffer|Dataset\.\w+|Buffer\.\w+))": r"idql_func.data.\1",
    r"jaxrl5\.data\.dataset\.(Dataset.*)": r"idql_func.data.\1",
    r"jaxrl5\.distributions\.tanh_transformed\.TanhTransformedDistribution(.*)": (
        r"idql_func.distributions.Diagonal\1"
    ),
    r"jaxrl5\.distributions\.\w+\.(.*)": r"idql_func.distributions.\1",
    r"jaxrl5\.evaluation\.(.*)": r"idql_func.evaluation.\1",
    r"jaxrl5\.networks\.encoders\.ln_resnet_encoder\.MyGroupNorm(.*)": (
        r"idql_func.networks.encoders.MyGroupNorm\1"
    ),
    r"jaxrl5\.networks\.(?:encoders\.)?\w+\.(.*)": r"idql_func.networks.\1",
    r"jaxrl5\.normalization\.(Gaussian|Dataset)?Normalizer\.unnormalize": (
        "idql_func.data.Normalizer.denormalize"
    ),
    r"jaxrl5\.normalization\.(Gaussian|Dataset)?Normalizer\.__init__": (
        "idql_func.data.fit_mean_std"
    ),
    r"jaxrl5\.normalization\.(Gaussian|Dataset)?Normalizer(\.\w+)?": (
        "idql_func.data.Normalizer.normalize"
    ),
    r"jaxrl5\.types\.(.*)": r"idql_func.types.\1",
    r"jaxrl5\.wrappers\.(?:[a-z_]+\.)?(\w+)(?:\..*)?": r"idql_func.envs.\1",
    r"flax\.training\.train_state\.(.*)": r"idql_func.struct.\1",
    r"flax\.training\.checkpoints": "idql_func.interop",
    r"flax\.training\.checkpoints\.(\w+)_checkpoint": "idql_func.interop.files",
    r"jax\.random\.(.*)": r"idql_func.random.\1",
    r"optax\.(.*)": r"idql_func.optim.\1",
}


def counterpart(name: str) -> str | None:
    """The port's dotted name for one of the original; None if it has none.

    A network's ``__call__`` is its ``forward``.

    >>> counterpart("jaxrl5.networks.mlp.MLP.__call__")
    'idql_func.networks.MLP.forward'
    >>> counterpart("jaxrl5.agents.ddpm_iql.ddpm_iql_learner.DDPMIQLLearner.create")
    'idql_func.agents.GeneralDDPMIQLLearner.create'
    """
    for pattern, place in _PLACES.items():
        if match := re.fullmatch(pattern, name):
            return re.sub(r"\.__call__$", ".forward", match.expand(place))
    return None


@dataclass(frozen=True)
class Exemption:
    """Why no case can test a name, and the test of its counterpart."""

    reason: str
    test: str
    """``file::function``, relative to the project's root."""


_ALIAS = Exemption(
    "a type alias; it computes nothing",
    "tests/test_public_names.py::test_names_of_the_contract_exist",
)
_WRAPPER = "steps an environment: a test compares with episodes recorded from the original"
_ENVS = "tests/envs/test_upstream_wrappers.py::test_{}_equals_upstream"

EXEMPT: Mapping[str, Exemption] = {
    r"jaxrl5\.types\.\w+|jaxrl5\.data\.dataset\.DatasetDict|optax\.Schedule": _ALIAS,
    r"jaxrl5\.distributions\.\w+\.tf[pdb]": Exemption(
        "an alias of a module of TensorFlow Probability; the names used from it have cases",
        "tests/test_distributions.py::test_densities_equal_those_of_torch",
    ),
    r"jaxrl5\.data\.binary_datasets\.AWAC_DATA_DIR": Exemption(
        "a folder on its authors' cluster (quirk D19); here an argument or a variable",
        "tests/data/test_binary.py::test_files_are_found_by_environment_and_name",
    ),
    r"jaxrl5\.normalization\.flatten": Exemption(
        "returns None and has no caller (quirk D26): not ported",
        "tests/data/test_normalizers.py::test_images_and_float16_are_accepted",
    ),
    r"jaxrl5\.normalization\.Normalizer\.(un)?normalize": Exemption(
        "raises NotImplementedError; the Gaussian subclass, which overrides it, has cases",
        "tests/data/test_normalizers.py::test_fit_mean_std_gives_mean_0_and_deviation_1",
    ),
    r"jaxrl5\.wrappers\.wrap_gym": Exemption(_WRAPPER, _ENVS.format("wrap_gym")),
    r"jaxrl5\.wrappers\.pixels\.wrap_pixels": Exemption(_WRAPPER, _ENVS.format("wrap_pixels")),
    r"jaxrl5\.wrappers\.frame_stack\..*": Exemption(_WRAPPER, _ENVS.format("frame_stack")),
    r"jaxrl5\.wrappers\.repeat_action\..*": Exemption(_WRAPPER, _ENVS.format("repeat_action")),
    r"jaxrl5\.wrappers\.single_precision\..*": Exemption(
        _WRAPPER, _ENVS.format("single_precision")
    ),
    r"jaxrl5\.wrappers\.universal_seed\..*": Exemption(
        "seeds an environment by Gym's old method, which Gymnasium does not have",
        "tests/envs/test_wrappers.py::test_universal_seed_reaches_environment_and_spaces",
    ),
    r"jaxrl5\.wrappers\.wandb_video\..*": Exemption(
        "logs a video to Weights & Biases",
        "tests/envs/test_video.py::test_wandb_logs_each_episode_without_commit",
    ),
    r"flax\.training\.checkpoints(\.(restore|save)_checkpoint)?": Exemption(
        "writes and reads files: a test compares with checkpoints that Flax wrote",
        "tests/interop/test_interop.py::test_upstream_checkpoint_continues_equally",
    ),
    r"flax\.training\.checkpoints\.latest_checkpoint": Exemption(
        "finds a file in a folder",
        "tests/interop/test_interop_files.py::test_latest_step_and_file_are_found",
    ),
}
"""Exemptions by a pattern that matches the whole name."""


SCRIPTS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "examples": (("idql_func.training", "idql_func.cli"), ("tests/training", "tests/cli")),
    "launcher": (
        ("idql_func.training.configs",),
        ("tests/training/test_presets.py", "tests/training/test_sweeps.py"),
    ),
}
"""For each folder of the original's scripts, which have no public names: modules and tests here."""


def exemption(name: str) -> Exemption | None:
    """The exemption of a name, if it has one."""
    return next((e for pattern, e in EXEMPT.items() if re.fullmatch(pattern, name)), None)
