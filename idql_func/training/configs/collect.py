"""The settings of ``idql collect`` as a frozen dataclass."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from idql_func.errors import InputError
from idql_func.training.configs.offline import MINARI
from idql_func.training.configs.options import Device, NotNegative, Positive, check_numbers
from idql_func.training.configs.sizes import check_sizes

__all__ = ["CollectConfig"]


@dataclass(frozen=True)
class CollectConfig:
    """Make a dataset from roll-outs of policies, replay buffers and existing datasets.

    Example:
        >>> CollectConfig((Path("runs/sac-seed0"),), Path("medium.hdf5")).actions
        'sampled'

    Attributes:
        sources: Runs or checkpoints to roll out, and recordings (HDF5 in D4RL's format) to mix in,
            one after the other: 'medium.hdf5 runs/sac-seed0' makes a medium-expert set.
        output: The file: .hdf5 in D4RL's format, or .safetensors for a replay buffer (which is what
            learners from images need). 'minari:FOLDER' makes a Minari dataset there.
        steps: Steps from each source. None: 20,000 of a policy, all of a buffer or a recording.
        buffer: Use the replay buffer of a run instead of its policy. With --steps only its first
            transitions are used, which makes a medium-replay set.
        actions: Sampled by the policy, the policy's best, or uniformly random.
        noise: Standard deviation of Gaussian noise on the actions, which are then clipped.
        random_share: Fraction of the actions that are uniformly random instead.
        N: Candidates for each action, for learners with candidates. None: the learner's own.
        seed: Seed of the environments, of the policy's key and of the noise.
        env: Environment. None: the one that the policy was trained in.
        num_envs: Environments that run side by side. None: chosen from the number of steps.
        video: Also record one episode of the first policy to this file (.mp4 or .gif).
        camera_id: Camera of the video.
        overwrite: Replace the file if it exists.
    """

    sources: tyro.conf.Positional[tuple[Path, ...]]
    output: Path
    steps: Positive | None = None
    buffer: bool = False
    actions: Literal["sampled", "greedy", "random"] = "sampled"
    noise: float = 0.0
    random_share: float = 0.0
    N: Positive | None = None
    seed: NotNegative = 0
    env: str | None = None
    num_envs: Positive | None = None
    video: Path | None = None
    camera_id: int = 0
    overwrite: tyro.conf.FlagCreatePairsOff[bool] = False
    device: Device = "cpu"

    @property
    def kind(self) -> Literal["hdf5", "buffer", "minari"]:
        """The kind of file to write, by the name of the output.

        Raises:
            InputError: if the name has none of the three forms.
        """
        if str(self.output).startswith(MINARI):
            return "minari"
        if self.output.suffix in (".hdf5", ".h5"):
            return "hdf5"
        if self.output.suffix == ".safetensors":
            return "buffer"
        raise InputError(
            f"the output is {str(self.output)!r}, but must end in .hdf5 or .safetensors, or be "
            "minari:FOLDER"
        )

    @property
    def path(self) -> Path:
        """The file or folder that is written."""
        return Path(str(self.output).removeprefix(MINARI))

    def validate(self) -> None:
        """Check the numbers and the name of the output.

        Raises:
            InputError: if a number is out of range, or the output has an unknown kind.
        """
        check_numbers(self)
        check_sizes(self)
        if not self.sources:
            raise InputError("there is no source: give a run, a checkpoint or a recording")
        if not self.noise >= 0:
            raise InputError(f"noise is {self.noise}, but must be 0 or more")
        if not 0 <= self.random_share <= 1:
            raise InputError(f"random_share is {self.random_share}, but must lie between 0 and 1")
        # `self.kind` raises for an output of unknown kind.
        if self.kind and self.path.exists() and not self.overwrite:
            raise InputError(f"{self.path} exists; replace it with --overwrite")
