"""A learner on disk: one safetensors file for its tensors, one JSON file for everything else.

A checkpoint is a folder with ``learner.safetensors`` and ``checkpoint.json``. It is written to a
temporary folder, flushed to disk and renamed, so a folder of that name is always complete. Tensors
have the names of ``idql_func.transforms.tree_paths``; leaves that are Python numbers stay exact.
Nothing is pickled: a checkpoint contains no code.

The JSON file has a digest of the other one and one of its own values, so that a changed bit is
found before anything is used. Checkpoints of version 1 have no digest of their values; they are
read, and a warning says so.
"""

from __future__ import annotations

import dataclasses
import json
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata as package_metadata
from itertools import pairwise
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import safetensors
import safetensors.torch
import torch

from idql_func.boundary import describe, explain_module
from idql_func.files import (
    OutputFile,
    add_digest,
    atomic_folder,
    check_digest,
    digest,
    read_bytes,
    read_json,
    require_space,
)
from idql_func.schedules import (
    ConstantSchedule,
    CosineDecaySchedule,
    JoinedSchedules,
    LinearSchedule,
)
from idql_func.training.runs.directory import is_checkpoint
from idql_func.transforms import tree_flatten, tree_paths, tree_unflatten
from idql_func.types import InputError

__all__ = [
    "CheckpointMetadata",
    "find_checkpoint",
    "load_checkpoint",
    "read_metadata",
    "restore_learner",
    "save_checkpoint",
]

TENSORS = "learner.safetensors"
METADATA = "checkpoint.json"
_FORMAT = "idql_func checkpoint"
_FORMAT_VERSION = 2
_VERSION_WITHOUT_DIGEST = 1
_SCHEDULE = "schedule"
_SCHEDULES: dict[str, type] = {
    "constant_schedule": ConstantSchedule,
    "cosine_decay_schedule": CosineDecaySchedule,
    "linear_schedule": LinearSchedule,
    "join_schedules": JoinedSchedules,
}
_LARGEST_SPACE = 1 << 25
"""Bytes of one observation; stacked images of 1,000 x 1,000 pixels have half as many."""
_VERSIONS_OF = ("idql_func", "torch", "numpy", "optree", "safetensors", "gymnasium")


@dataclass(frozen=True)
class CheckpointMetadata:
    """What is needed to create a learner again besides its leaves.

    Args:
        updates: number of updates of the learner.
        seed: the seed given to ``create``.
        create: the keyword arguments given to ``create``: JSON-able values, tuples of them, or a
            cosine schedule instead of a learning rate. Tuples are restored as tuples.
        observation_space: the space given to ``create``: a ``Box``, or a ``Dict`` of such spaces
            (the learners from pixels).
        action_space: the space given to ``create``.
        extra: any further JSON-able values.
        settings: those of the run that writes the checkpoint, as in its ``config.json``.
        versions: versions of the packages that wrote the checkpoint (filled in when loading).
    """

    updates: int
    seed: int
    create: Mapping[str, Any]
    observation_space: gym.spaces.Space
    action_space: gym.spaces.Box
    extra: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)


def save_checkpoint(directory: str | Path, learner: Any, metadata: CheckpointMetadata) -> Path:
    """Write a checkpoint folder atomically and return it; one of that name is replaced.

    The learner is one of ``idql_func.agents`` (or a pytree with a ``create`` like theirs).

    Raises:
        FileWriteError: the disk is full or the path cannot be written; no partial checkpoint
            remains.
    """
    directory = Path(directory)
    tensors: dict[str, torch.Tensor] = {}
    scalars: dict[str, Any] = {}
    for name, leaf in _named_leaves(learner):
        if isinstance(leaf, torch.Tensor):
            # Copied: networks and their targets may share memory, which the format forbids.
            tensors[name] = leaf.detach().to("cpu", copy=True).contiguous()
        else:
            scalars[name] = _number_to_json(leaf)
    payload = safetensors.torch.save(tensors)
    description = {
        "format": _FORMAT,
        "format_version": _FORMAT_VERSION,
        "learner": type(learner).__name__,
        "updates": metadata.updates,
        "create": {
            "seed": metadata.seed,
            "observation_space": _space_to_json(metadata.observation_space),
            "action_space": _space_to_json(metadata.action_space),
            "keywords": {k: _keyword_to_json(v) for k, v in metadata.create.items()},
        },
        "static": _static_fields(learner),
        "scalars": scalars,
        "sha256": digest(payload),
        "versions": _versions(),
        "settings": dict(metadata.settings),
        "extra": dict(metadata.extra),
    }
    text = json.dumps(add_digest(description), indent=2, allow_nan=False) + "\n"
    content = {TENSORS: payload, METADATA: text.encode()}
    with atomic_folder(directory) as temporary:
        require_space(directory, sum(map(len, content.values())))
        temporary.mkdir()
        for name, data in content.items():
            with OutputFile(temporary / name, "x") as file:
                file.write(data)
    return directory


def load_checkpoint(
    directory: str | Path, *, learner_class: type | None = None, device: str | torch.device = "cpu"
) -> tuple[Any, CheckpointMetadata]:
    """Create the learner of a checkpoint and restore all its leaves.

    Args:
        directory: a checkpoint folder (see ``find_checkpoint`` for the newest one of a run).
        learner_class: the class that the checkpoint must have; None: the class of that name in
            ``idql_func.agents``.
        device: where the learner's tensors are put.

    Returns:
        ``(learner, metadata)``; the learner's leaves are those that were saved, bit for bit.

    Raises:
        InputError: a file is damaged or truncated, or the checkpoint has another learner or size.
        FileNotFoundError: the folder, or one of the two files in it, is missing.
    """
    directory = Path(directory)
    description = _read_description(directory)
    metadata = _metadata_of(description, directory)
    name = description["learner"]
    if learner_class is None:
        from idql_func import agents

        learner_class = getattr(agents, str(name), None)
        if learner_class is None:
            raise InputError(
                f"{directory} holds a {name!r}, which is not a learner of this version"
            )
    elif learner_class.__name__ != name:
        raise InputError(f"{directory} holds a {name}, not a {learner_class.__name__}")
    tensors = _read_tensors(directory, description)
    _check_sizes(directory, metadata, tensors)
    try:
        template = learner_class.create(  # type: ignore[attr-defined]
            metadata.seed, metadata.observation_space, metadata.action_space, **metadata.create
        )
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"{directory / METADATA} does not describe a {name} of this version: {error}"
        ) from None
    learner = _restore(template, directory, description, tensors)
    return learner if torch.device(device).type == "cpu" else learner.to(device), metadata


def restore_learner(learner: Any, directory: str | Path) -> Any:
    """A learner with the leaves of a checkpoint of the same class and size.

    Raises:
        InputError: the checkpoint has another learner or size, or is damaged.
        FileNotFoundError: the folder, or one of the two files in it, is missing.
    """
    directory = Path(directory)
    description = _read_description(directory)
    if description["learner"] != type(learner).__name__:
        raise InputError(
            f"{directory} holds a {description['learner']}, not a {type(learner).__name__}"
        )
    return _restore(learner, directory, description, _read_tensors(directory, description))


def read_metadata(directory: str | Path) -> CheckpointMetadata:
    """The metadata of a checkpoint, without its tensors.

    Raises:
        InputError: the JSON file is damaged.
        FileNotFoundError: the folder, or one of the two files in it, is missing.
    """
    directory = Path(directory)
    return _metadata_of(_read_description(directory), directory)


def find_checkpoint(path: str | Path) -> Path:
    """The checkpoint at a path: the path itself, or the newest one in a run's folder.

    Raises:
        FileNotFoundError: there is none.

    Example:
        >>> find_checkpoint("/no/such/run")
        Traceback (most recent call last):
        FileNotFoundError: there is no run or checkpoint at /no/such/run
    """
    path = Path(path)
    path = path.parent if path.name in (TENSORS, METADATA) else path
    if not path.exists():
        raise FileNotFoundError(f"there is no run or checkpoint at {path}")
    if (path / METADATA).exists() or (path / TENSORS).exists():
        return path
    folders = [p for p in (path / "checkpoints", path) if p.is_dir()]
    found = [p for folder in folders for p in folder.glob("step_*") if is_checkpoint(p)]
    if not found:
        raise FileNotFoundError(f"{path} holds no checkpoint (a folder with a {METADATA})")
    return max(found, key=lambda p: p.name)


def _restore(
    template: Any,
    directory: Path,
    description: Mapping[str, Any],
    tensors: Mapping[str, torch.Tensor],
) -> Any:
    scalars = description["scalars"]
    leaves = []
    named = dict(_named_leaves(template))
    for name, leaf in named.items():
        shape = tuple(leaf.shape) if isinstance(leaf, torch.Tensor) else ()
        if name in tensors:
            saved = tensors[name]
            if tuple(saved.shape) != shape:
                raise InputError(
                    f"{directory} has another size: {name} has the shape {tuple(saved.shape)}, "
                    f"but this learner's has {shape}"
                )
            if isinstance(leaf, torch.Tensor) and leaf.dtype != saved.dtype:
                raise InputError(
                    f"{directory} has another precision: {name} is {saved.dtype}, "
                    f"but this learner's is {leaf.dtype}"
                )
            leaves.append(saved)
        elif name in scalars and shape == ():
            leaves.append(_number_from_json(scalars[name]))
        else:
            raise InputError(f"{directory} has another learner or size: it has no {name}")
    unknown = sorted((tensors.keys() | scalars.keys()) - named.keys())
    if unknown:
        raise InputError(
            f"{directory} has another learner or size: this learner has no {unknown[0]}"
            + (f" (nor {len(unknown) - 1} more)" if len(unknown) > 1 else "")
        )
    _, spec = tree_flatten(template)
    learner = tree_unflatten(spec, leaves)
    static = description.get("static", {}).items()
    changed = {name: value for name, value in static if getattr(learner, name, value) != value}
    return learner.replace(**changed) if changed else learner


def _named_leaves(learner: Any) -> list[tuple[str, Any]]:
    leaves, _ = tree_flatten(learner)
    return list(zip(tree_paths(learner), leaves, strict=True))


def _static_fields(learner: Any) -> dict[str, Any]:
    """Static fields with plain values, such as ``T``, ``M`` and the objectives."""
    return {
        f.name: getattr(learner, f.name)
        for f in dataclasses.fields(learner)
        if not f.metadata.get("pytree_node", True)
        and isinstance(getattr(learner, f.name), bool | int | float | str)
    }


def _number_to_json(leaf: Any) -> Any:
    if isinstance(leaf, bool | int):
        return leaf
    if isinstance(leaf, float):
        return leaf if math.isfinite(leaf) else repr(leaf)
    raise TypeError(f"a checkpoint holds tensors and numbers, not a {type(leaf).__name__}")


def _number_from_json(value: Any) -> Any:
    return float(value) if isinstance(value, str) else value


def _keyword_to_json(value: Any) -> Any:
    kind = next((name for name, cls in _SCHEDULES.items() if type(value) is cls), None)
    if kind is not None:
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        return {_SCHEDULE: kind, **{name: _keyword_to_json(v) for name, v in fields.items()}}
    return [_keyword_to_json(part) for part in value] if isinstance(value, tuple) else value


def _keyword_from_json(value: Any) -> Any:
    if isinstance(value, dict) and value.get(_SCHEDULE) in _SCHEDULES:
        fields = {k: _keyword_from_json(v) for k, v in value.items() if k != _SCHEDULE}
        return _SCHEDULES[value[_SCHEDULE]](**fields)
    # As tuples: learners have some of them as static fields, which must be hashable.
    return tuple(map(_keyword_from_json, value)) if isinstance(value, list) else value


def _space_to_json(space: gym.spaces.Space) -> dict[str, Any]:
    if isinstance(space, gym.spaces.Dict):
        return {"dict": {name: _space_to_json(part) for name, part in space.spaces.items()}}
    if not isinstance(space, gym.spaces.Box):
        raise TypeError(f"a checkpoint holds Box spaces and Dicts of them, not {describe(space)}")

    def bound(values: np.ndarray) -> Any:
        # Images have tens of thousands of equal bounds.
        if values.ndim > 1 and (values == values.flat[0]).all():
            return _number_to_json(float(values.flat[0]))
        return [_number_to_json(float(v)) for v in values.ravel()]

    return {
        "shape": list(space.shape),
        "dtype": str(space.dtype),
        "low": bound(space.low),
        "high": bound(space.high),
    }


def _space_from_json(data: Mapping[str, Any]) -> Any:
    if "dict" in data:
        parts = {name: _space_from_json(part) for name, part in data["dict"].items()}
        return gym.spaces.Dict(parts)
    shape, dtype = tuple(data["shape"]), np.dtype(data["dtype"])
    if math.prod(shape) * dtype.itemsize > _LARGEST_SPACE or dtype.kind not in "fiub":
        raise ValueError(f"a space of the shape {shape} and the type {dtype}")

    def bound(key: str) -> np.ndarray:
        values = data[key]
        if not isinstance(values, list):
            return np.full(shape, _number_from_json(values), dtype)
        return np.array([_number_from_json(v) for v in values], dtype).reshape(shape)

    return gym.spaces.Box(bound("low"), bound("high"), shape, dtype.type)  # type: ignore[arg-type]


def _versions() -> dict[str, str]:
    found = {}
    for name in _VERSIONS_OF:
        try:
            found[name] = package_metadata.version(name)
        except package_metadata.PackageNotFoundError:
            # From a source tree that is not installed.
            found[name] = "not installed"
    return found


def _read_description(directory: Path) -> dict[str, Any]:
    path = directory / METADATA
    if not path.exists():
        raise FileNotFoundError(f"{directory} is not a checkpoint: there is no {METADATA} in it")
    description = read_json(path, "the description of a checkpoint")
    if not isinstance(description, dict) or description.get("format") != _FORMAT:
        raise InputError(f"{path} does not describe a checkpoint of idql_func")
    version = description.get("format_version")
    if version not in (_VERSION_WITHOUT_DIGEST, _FORMAT_VERSION):
        raise InputError(
            f"{path} has format version {version}, "
            f"but this version of idql_func reads version {_FORMAT_VERSION}"
        )
    if not check_digest(description, str(path)):
        if version != _VERSION_WITHOUT_DIGEST:
            raise InputError(f"{path} is damaged: it has no 'digest'")
        warnings.warn(
            f"{path} is of an earlier version, whose values have no digest: damage to them would "
            "not be found",
            stacklevel=3,
        )
    for key, kind in _KEYS.items():
        if key not in description:
            raise InputError(f"{path} is damaged: it has no {key!r}")
        if not isinstance(description[key], kind):
            raise InputError(f"{path} is damaged: its {key!r} is no {kind.__name__}")
    return description


_KEYS = {"learner": str, "updates": int, "create": dict, "scalars": dict, "sha256": str}


def _metadata_of(description: Mapping[str, Any], directory: Path) -> CheckpointMetadata:
    create = description["create"]
    try:
        return CheckpointMetadata(
            updates=int(description["updates"]),
            seed=int(create["seed"]),
            create={k: _keyword_from_json(v) for k, v in create["keywords"].items()},
            observation_space=_space_from_json(create["observation_space"]),
            action_space=_space_from_json(create["action_space"]),
            extra=dict(description.get("extra", {})),
            settings=dict(description.get("settings", {})),
            versions=dict(description.get("versions", {})),
        )
    except (KeyError, TypeError, ValueError, AttributeError, AssertionError) as error:
        raise InputError(f"{directory / METADATA} is damaged: {error!r} in its values") from None


def _read_tensors(directory: Path, description: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    path = directory / TENSORS
    if not path.exists():
        raise FileNotFoundError(f"{directory} is not a checkpoint: there is no {TENSORS} in it")
    payload = read_bytes(path, "the tensors of a checkpoint")
    if digest(payload) != description["sha256"]:
        raise InputError(
            f"{path} is damaged or truncated: its hash differs from that in {METADATA}"
        )
    try:
        return safetensors.torch.load(payload)
    except (safetensors.SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise InputError(f"{path} is damaged or truncated: {error}") from None


def _check_sizes(
    directory: Path, metadata: CheckpointMetadata, tensors: Mapping[str, torch.Tensor]
) -> None:
    """Refuse sizes of networks that the tensors cannot have, before memory is asked for."""
    saved = sum(tensor.nbytes for tensor in tensors.values())
    inputs = math.prod(metadata.observation_space.shape or ())
    inputs = inputs if len(metadata.observation_space.shape or ()) == 1 else 1
    for name, value in metadata.create.items():
        if name.endswith(("_keys", "_lr")):
            continue
        numbers = value if isinstance(value, tuple) else (value,)
        sizes = [n for n in numbers if isinstance(n, int) and not isinstance(n, bool)]
        sizes = [inputs, *sizes] if name.endswith("hidden_dims") else sizes
        is_size = isinstance(value, tuple) or name.startswith("num_") or name.endswith(_SIZES)
        if is_size and max([*sizes, *(a * b for a, b in pairwise(sizes))], default=0) > saved:
            raise InputError(
                f"{directory / METADATA} is damaged: {name} is {value!r}, but {TENSORS} has only "
                f"{saved} bytes of parameters"
            )


_SIZES = ("_dim", "_blocks", "_dims", "T")


explain_module(__name__)
