"""The batches of several members from one dataset that is on the device once.

Each member has the split and the key of a run alone, by its seed. A split is a list of row numbers,
so ten members need ten lists and one dataset.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from idql_func import random
from idql_func.agents.agent import TRANSITION_FIELDS
from idql_func.data import Dataset
from idql_func.transforms import vmap
from idql_func.types import PRNGKey

__all__ = ["MemberData", "member_data"]


@dataclass(frozen=True)
class MemberData:
    """The source of the members' batches.

    ``arrays`` maps a field to ``[N, ...]``, the same for all; ``rows [n, K]`` are those that each
    member trains on (None: all) and ``held_out [m, K]`` those that are only measured (None: none);
    ``keys [K, 2]`` draw the first batches; ``seeds`` are those of the runs.
    """

    arrays: Mapping[str, Tensor]
    rows: Tensor | None
    held_out: Tensor | None
    keys: PRNGKey
    seeds: tuple[int, ...]

    @property
    def counts(self) -> tuple[int, int]:
        """The numbers of transitions that a member trains on, and that it holds out."""
        total = next(iter(self.arrays.values())).shape[0]
        train = total if self.rows is None else self.rows.shape[0]
        return train, 0 if self.held_out is None else self.held_out.shape[0]

    def held_out_keys(self, step: int) -> PRNGKey:
        """The keys ``[K, 2]`` of the held-out batches at a step, as in the runs alone."""
        keys = torch.stack([random.PRNGKey(seed) for seed in self.seeds])
        return vmap(lambda key: random.fold_in(key, step))(keys).to(self.keys.device)


def member_data(
    dataset: Dataset,
    seeds: Sequence[int],
    train_fraction: float,
    fields: Sequence[str] | None,
    device: torch.device,
) -> MemberData:
    """The data of the members with these seeds. The dataset's own keys are reset.

    Args:
        dataset: all transitions, after filters and changes of the rewards.
        seeds: one for each member.
        train_fraction: share of the transitions that each member trains on, by its own shuffle.
        fields: the fields of a batch that the learners read; None: all that a critic needs.
        device: where the arrays are put.

    Raises:
        InputError: a part of the split is empty.

    >>> import numpy as np
    >>> dataset = Dataset({name: np.zeros(10) for name in TRANSITION_FIELDS})
    >>> data = member_data(dataset, (3, 4), 0.8, None, torch.device("cpu"))
    >>> data.rows.shape, data.held_out.shape, data.counts
    (torch.Size([8, 2]), torch.Size([2, 2]), (8, 2))
    """
    rows, held_out, keys = [], [], []
    for seed in seeds:
        dataset.seed(seed)
        if train_fraction == 1:
            keys.append(dataset.rng)
            continue
        (train, own_seed), (rest, _) = dataset.split_rows(train_fraction)
        rows.append(torch.from_numpy(train))
        held_out.append(torch.from_numpy(rest))
        keys.append(random.PRNGKey(own_seed))
    arrays: dict[str, Any] = dataset.to(device).on_device(fields or TRANSITION_FIELDS)
    return MemberData(
        arrays,
        # the members last: in a compiled program the first axis of an argument may be dynamic
        torch.stack(rows, dim=1).to(device) if rows else None,
        torch.stack(held_out, dim=1).to(device) if held_out else None,
        torch.stack(keys).to(device),
        tuple(seeds),
    )
