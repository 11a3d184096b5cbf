"""Datasets, replay buffers, their loaders and D4RL's reference scores."""

from idql_func.boundary import explain_classes
from idql_func.data.binary import BinaryDataset
from idql_func.data.d4rl import D4RLDataset
from idql_func.data.dataset import Dataset
from idql_func.data.memory_efficient_replay_buffer import MemoryEfficientReplayBuffer
from idql_func.data.minari import MinariDataset
from idql_func.data.minari_writer import episodes_from_transitions, write_minari_dataset
from idql_func.data.normalizers import Normalizer, fit_mean_std, fit_min_max
from idql_func.data.prefetch import prefetch
from idql_func.data.replay_buffer import ReplayBuffer
from idql_func.data.scores import ReferenceScores, normalized_score, reference_scores
from idql_func.data.validation import validate_transitions

__all__ = [
    "BinaryDataset",
    "D4RLDataset",
    "Dataset",
    "MemoryEfficientReplayBuffer",
    "MinariDataset",
    "Normalizer",
    "ReferenceScores",
    "ReplayBuffer",
    "episodes_from_transitions",
    "fit_mean_std",
    "fit_min_max",
    "normalized_score",
    "prefetch",
    "reference_scores",
    "validate_transitions",
    "write_minari_dataset",
]

explain_classes(Dataset, ReplayBuffer, MemoryEfficientReplayBuffer, Normalizer, strict=False)
