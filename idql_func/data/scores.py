"""Normalised scores: 0 is a random policy, 100 an expert (D4RL, arXiv 2004.07219, section 5)."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from idql_func.boundary import explain_module
from idql_func.data.d4rl_names import D4RL_NAMES, similar_names
from idql_func.data.hdf5 import read_d4rl_hdf5
from idql_func.data.minari_format import METADATA_FILE, find_recording, read_metadata
from idql_func.types import InputError

__all__ = ["ReferenceScores", "attribute_scores", "normalized_score", "reference_scores"]

Returns = TypeVar("Returns", float, np.ndarray)


class ReferenceScores(NamedTuple):
    """The returns at which D4RL's normalised score is 0 and 100.

    Attributes:
        min_score: undiscounted episode return of the random reference policy, score 0.
        max_score: undiscounted episode return of the expert reference policy, score 100.
    """

    min_score: float
    max_score: float


def reference_scores(name: str | os.PathLike[str] | ReferenceScores) -> ReferenceScores | None:
    """Look up the two reference returns of a dataset.

    Args:
        name: a D4RL name; an HDF5 file with the root attributes ``ref_min_score`` and
            ``ref_max_score``; the folder of a Minari recording with them in its metadata; or
            reference scores, which are returned unchanged.

    Returns:
        The scores, or None if the name is unknown or the file has none.

    Raises:
        InputError: if the file or folder is not a dataset, or its two attributes are not ascending
            finite numbers.

    Example:
        >>> reference_scores("hopper-medium-v2")
        ReferenceScores(min_score=-20.272305, max_score=3234.3)
        >>> reference_scores("no-such-dataset") is None
        True
    """
    if isinstance(name, ReferenceScores):
        return name
    known = D4RL_NAMES.get(os.fspath(name))
    if known is not None:
        return ReferenceScores(known.ref_min_score, known.ref_max_score)
    if Path(name).is_file():
        return attribute_scores(read_d4rl_hdf5(name, keys=())[1], str(name))
    if Path(name).is_dir():
        metadata = find_recording(name).with_name(METADATA_FILE)
        return attribute_scores(read_metadata(metadata), str(metadata))
    return None


def normalized_score(name: str | os.PathLike[str] | ReferenceScores, ret: Returns) -> Returns:
    """Normalise returns to D4RL's scale, ``100 * (ret - min) / (max - min)``.

    Args:
        name: as for :func:`reference_scores`.
        ret: undiscounted return of an episode, or an array of returns of any shape.

    Returns:
        The score, 0 for the random and 100 for the expert reference; an array for an array.

    Raises:
        InputError: if no reference scores are known for ``name``.

    Example:
        >>> normalized_score("antmaze-umaze-v2", 0.5)
        50.0
        >>> normalized_score(ReferenceScores(0.0, 4.0), np.array([0.0, 1.0]))
        array([ 0., 25.])
    """
    scores = reference_scores(name)
    if scores is None:
        close = similar_names(str(name))
        hint = f"; close names: {', '.join(close)}" if close else ""
        raise InputError(
            f"No reference scores are known for {str(name)!r}; give a D4RL name, or an HDF5 file "
            f"with the attributes ref_min_score and ref_max_score{hint}."
        )
    returns = np.asarray(ret)
    if returns.dtype.kind not in "iuf":
        raise InputError(f"normalized_score: ret must be a number or an array, got {ret!r}.")
    result: Any = 100.0 * (returns.astype(np.float64) - scores.min_score)
    result /= scores.max_score - scores.min_score
    return result if isinstance(ret, np.ndarray) else result.item()


def attribute_scores(attributes: Mapping[str, Any], where: str) -> ReferenceScores | None:
    """Read the reference scores from a dataset's attributes; None if there are none.

    Args:
        attributes: root attributes of an HDF5 file, or metadata.
        where: the file, for the error message.

    Raises:
        InputError: if only one of the two is present, or they are not finite ascending numbers.

    Example:
        >>> attribute_scores({"ref_min_score": 1, "ref_max_score": 3.0}, "a.hdf5")
        ReferenceScores(min_score=1.0, max_score=3.0)
        >>> attribute_scores({}, "a.hdf5") is None
        True
    """
    low, high = attributes.get("ref_min_score"), attributes.get("ref_max_score")
    if low is None and high is None:
        return None
    scores = None
    if low is not None and high is not None:
        with contextlib.suppress(TypeError, ValueError):
            scores = ReferenceScores(float(low), float(high))
    if scores is None or not -math.inf < scores.min_score < scores.max_score < math.inf:
        raise InputError(
            f"{where} has ref_min_score={low!r} and ref_max_score={high!r}; give both attributes "
            "as finite numbers, the smaller one first."
        )
    return scores


explain_module(__name__)
