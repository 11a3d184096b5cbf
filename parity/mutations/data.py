"""Bugs of data sets and buffers."""

from __future__ import annotations

from parity.mutations.mutation import Mutation

DATA = (
    Mutation(
        "sample-without-replacement",
        "a batch holds no row twice",
        "data/dataset.py",
        "return self.np_random.integers(len(self), size=batch_size)",
        "return self.np_random.choice(len(self), batch_size, replace=False)",
    ),
    Mutation(
        "sample-key-order",
        "the halves of a dataset's key the other way round (quirk N15)",
        "data/dataset.py",
        "draw, state = random.split(",
        "state, draw = random.split(",
    ),
    Mutation(
        "split-rounds",
        "a split rounds its size instead of cutting it off",
        "data/dataset.py",
        "cut = int(len(index) * ratio)",
        "cut = round(len(index) * ratio)",
    ),
    Mutation(
        "filter-strict",
        "a filter drops the episodes that lie on its threshold",
        "data/dataset.py",
        "kept = returns >= threshold",
        "kept = returns > threshold",
    ),
    Mutation(
        "returns-by-maximum",
        "rewards scaled by the best return, not by the range of returns",
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
        "stacked frames of the observation are those of the next one",
        "data/memory_efficient_replay_buffer.py",
        "stack = window if pack else window[..., :-1]",
        "stack = window if pack else window[..., 1:]",
    ),
    Mutation(
        "overwritten-frames-drawn",
        "rows are drawn whose frames have been written over",
        "data/memory_efficient_replay_buffer.py",
        "        self._is_transition[outdated] = False\n",
        "        self._is_transition[outdated] = self._is_transition[outdated]\n",
    ),
    Mutation(
        "prefetch-one-more",
        "a queue of prefetched batches holds one more than asked for (quirk D21)",
        "data/prefetch.py",
        "for _ in range(queue_size))",
        "for _ in range(queue_size + 1))",
    ),
    Mutation(
        "timeouts-kept",
        "transitions across a cut by time are kept: they lead into another episode",
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
        "recorded actions clipped to the bounds themselves, not just inside (quirk D12)",
        "data/validation.py",
        "bound = 1 - eps if clip_to_eps else 1.0",
        "bound = 1.0",
    ),
    Mutation(
        "episodes-by-terminals",
        "episodes end at terminal steps alone, not where the observations jump (quirk D11)",
        "data/d4rl.py",
        "        dones[rows] |= jumped\n",
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
