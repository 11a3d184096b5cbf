"""The settings of ``idql collect`` as a frozen dataclass."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from idql_func.errors import InputError
from idql_func.training.configs.offline import MINARI
from idql_func.training.configs.options import Device, check_at_least, check_finite

__all__ = ["CollectConfig"]


@dataclass(frozen=True)
class CollectConfig:
    """Make a dataset: roll policies out, take replay buffers, or mix what is there already.

    Example:
        >>> CollectConfig((Path("runs/sac-seed0"),), Path("medium.hdf5")).actions
        'sampled'

    Attributes:
        sources: Runs or checkpoints to roll out, and recordings (HDF5 in D4RL's format) to mix in,
            one after the other: 'medium.hdf5 runs/sac-seed0' makes a medium-expert set.
        output: The file: .hdf5 in D4RL's format, or .safetensors for a replay buffer (which is what
            learners from images need). 'minari:FOLDER' makes a Minari dataset there.
        steps: Steps that each source gives. None: 20,000 of a policy, all of a buffer or a
            recording.
        buffer: Take the replay buffer of a run, not its policy: with --steps the first so many
            transitions that it holds, which is how a medium-replay set is made.
        actions: Actions as the policy explores, the best it knows, or evenly random ones.
        noise: Standard deviation of Gaussian noise on the actions, which are then clipped.
        random_share: Share of the actions that are evenly random instead.
        N: Candidates for each action, for learners that choose among some. None: the learner's own.
        seed: Seed of the environments, of the policy's key and of the noise.
        env: Environment. None: the one that the policy was trained in.
        num_envs: Environments that run side by side; None: as many as is sensible.
        video: Also record one episode of the first policy to this file (.mp4 or .gif).
        camera_id: Camera of the video.
        overwrite: Replace the file if it exists.
    """

    sources: tyro.conf.Positional[tuple[Path, ...]]
    output: Path
    steps: int | None = None
    buffer: bool = False
    actions: Literal["sampled", "greedy", "random"] = "sampled"
    noise: float = 0.0
    random_share: float = 0.0
    N: int | None = None
    seed: int = 0
    env: str | None = None
    num_envs: int | None = None
    video: Path | None = None
    camera_id: int = 0
    overwrite: tyro.conf.FlagCreatePairsOff[bool] = False
    device: Device = "cpu"

    @property
    def kind(self) -> Literal["hdf5", "buffer", "minari"]:
        """What is written, by the name of the output.

        Raises:
            InputError: the name tells of none of the three.
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
            InputError: a number is out of range, or the output is of no kind that is known.
        """
        check_finite(self)
        check_at_least(1, steps=self.steps, N=self.N, num_envs=self.num_envs)
        check_at_least(0, seed=self.seed)
        if not self.sources:
            raise InputError("there is no source: give a run, a checkpoint or a recording")
        if not self.noise >= 0:
            raise InputError(f"noise is {self.noise}, but must be 0 or more")
        if not 0 <= self.random_share <= 1:
            raise InputError(f"random_share is {self.random_share}, but must lie between 0 and 1")
        # To ask for its kind refuses an output that is of none.
        if self.kind and self.path.exists() and not self.overwrite:
            raise InputError(f"{self.path} exists; replace it with --overwrite")
