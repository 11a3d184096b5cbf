"""Bugs of data sets and buffers."""

from __future__ import annotations

from parity.mutations.mutation import Mutation

DATA = (
    Mutation(
        "sample-without-replacement",
        "a batch is drawn without replacement",
        "data/dataset.py",
        "return self.np_random.integers(len(self), size=batch_size)",
        "return self.np_random.choice(len(self), batch_size, replace=False)",
    ),
    Mutation(
        "sample-key-order",
        "the two halves of a dataset's split key are swapped (quirk N15)",
        "data/dataset.py",
        "draw, state = random.split(",
        "state, draw = random.split(",
    ),
    Mutation(
        "split-rounds",
        "the size of a split is rounded instead of truncated",
        "data/dataset.py",
        "cut = int(len(index) * ratio)",
        "cut = round(len(index) * ratio)",
    ),
    Mutation(
        "filter-strict",
        "a filter drops episodes whose return equals its threshold",
        "data/dataset.py",
        "kept = returns >= threshold",
        "kept = returns > threshold",
    ),
    Mutation(
        "returns-by-maximum",
        "rewards are scaled by the best return, not by the range of returns",
        "data/dataset.py",
        "span = np.ptp(returns) if len(returns) else 0.0",
        "span = np.max(returns) if len(returns) else 0.0",
    ),
    Mutation(
        "buffer-wraps-early",
        "a replay buffer never writes to its last row",
        "data/replay_buffer.py",
        "self._insert_index = (self._insert_index + 1) % self.capacity",
        "self._insert_index = (self._insert_index + 1) % (self.capacity - 1)",
    ),
    Mutation(
        "stack-one-late",
        "an observation has the stacked frames of the next observation",
        "data/memory_efficient_replay_buffer.py",
        "stack = window if pack else window[..., :-1]",
        "stack = window if pack else window[..., 1:]",
    ),
    Mutation(
        "overwritten-frames-drawn",
        "rows whose frames were overwritten are drawn",
        "data/memory_efficient_replay_buffer.py",
        "        self._is_transition[outdated] = False\n",
        "        self._is_transition[outdated] = self._is_transition[outdated]\n",
    ),
    Mutation(
        "prefetch-one-more",
        "the prefetch queue holds one batch more than requested (quirk D21)",
        "data/prefetch.py",
        "for _ in range(queue_size))",
        "for _ in range(queue_size + 1))",
    ),
    Mutation(
        "timeouts-kept",
        "transitions across a timeout are kept, although they lead into another episode",
        "data/d4rl.py",
        "kept = np.flatnonzero(~cut)",
        "kept = np.arange(len(cut))",
    ),
    Mutation(
        "timeouts-counted-anew",
        "steps are counted from 0 after a terminal step too; d4rl counts from 1 there",
        "data/d4rl.py",
        "start, counter = end + 1, 0 if cut[end] else 1",
        "start, counter = end + 1, 0",
    ),
    Mutation(
        "actions-at-bounds",
        "recorded actions are clipped to the bounds, not to just inside them (quirk D12)",
        "data/validation.py",
        "bound = 1 - eps if clip_to_eps else 1.0",
        "bound = 1.0",
    ),
    Mutation(
        "episodes-by-terminals",
        "episodes end only at terminal steps, not where the observations jump (quirk D11)",
        "data/d4rl.py",
        "        dones[start + rows] |= jumped\n",
        "",
    ),
    Mutation(
        "demonstrations-all",
        "the last tenth of the demonstrations is used too",
        "data/binary.py",
        "kept = loaded[: int(_TRAIN_SHARE * len(loaded))]",
        "kept = loaded",
    ),
)
