"""``idql finetune``: from offline to online, from a trained policy or from the start."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from idql_func.cli.train import peek
from idql_func.errors import InputError
from idql_func.training.configs.finetune import FinetuneConfig
from idql_func.training.configs.online_presets import FINETUNE_DESCRIPTIONS, FINETUNE_PRESETS

__all__ = ["main", "parse"]

DESCRIPTION = (
    "Go on with an offline policy in its environment. Give a run of `idql train` (or a checkpoint "
    "in one) to start from it, or a preset to train its policy first, or a preset and --start RUN. "
    "The defaults below are those of the preset. Presets: "
    + "; ".join(f"{name} = {text}" for name, text in FINETUNE_DESCRIPTIONS.items())
    + "."
)


def parse(arguments: Sequence[str]) -> tuple[FinetuneConfig, Path | None, bool]:
    """Options to settings; the preset, the run to start from or to resume decides their defaults.

    Returns:
        ``(config, resume, overwrite)``.

    Raises:
        InputError: neither a preset nor a run, or one of them together with ``--resume``.
        FileNotFoundError: the run to resume or to start from does not exist.
        SystemExit: help was asked for (0), or an option is unknown or has no valid value (2).

    Example:
        >>> config, _, _ = parse(["antmaze-actor", "--seed", "3"])
        >>> config.train_actor, config.offline.learner.decay_steps
        (True, 4000000)
    """
    arguments = list(arguments)
    given = arguments.pop(0) if arguments and not arguments[0].startswith("-") else None
    resume_from = peek(arguments, "--resume")
    if resume_from is None:
        default = _default(given, peek(arguments, "--start"))
    elif given is not None or peek(arguments, "--start") is not None:
        raise InputError("--resume takes its settings from the run: give no preset and no start")
    else:
        from idql_func.training.runs.directory import open_run_directory

        default = open_run_directory(resume_from).read_config(FinetuneConfig)

    def options(
        config: Annotated[FinetuneConfig, tyro.conf.arg(name="")] = default,
        start: Path | None = default.start,
        resume: Path | None = None,
        overwrite: tyro.conf.FlagCreatePairsOff[bool] = False,
    ) -> tuple[FinetuneConfig, Path | None, bool]:
        """Fine-tune.

        Args:
            config: The settings.
            start: Run of `idql train`, or a checkpoint in one, whose policy is fine-tuned. None:
                one is trained first.
            resume: A run's folder to continue from.
            overwrite: Replace a run of the same name.
        """
        del start  # it has chosen the default above
        return config, resume, overwrite

    return tyro.cli(
        options,
        prog="idql finetune [PRESET|RUN]",
        description=DESCRIPTION,
        args=arguments,
        config=(tyro.conf.AvoidSubcommands, tyro.conf.SuppressFixed),
    )


def main(arguments: Sequence[str]) -> int:
    """Run the command; the exit status."""
    config, resume, overwrite = parse(arguments)
    from idql_func.training.finetune import finetune

    finetune(config, resume=resume, overwrite=overwrite)
    return 0


def _default(given: str | None, start: str | None) -> FinetuneConfig:
    """The preset's settings, those of the offline run put in where there is one."""
    preset = FINETUNE_PRESETS.get(given or next(iter(FINETUNE_PRESETS)))
    if preset is None:
        if not Path(str(given)).exists():
            raise InputError(
                f"{given} is neither a preset nor a run; presets are {', '.join(FINETUNE_PRESETS)}"
            )
        if start is not None:
            raise InputError(f"{given} and --start {start} are both runs to start from; give one")
        start = given
    if start is None:
        assert preset is not None
        return preset
    from idql_func.training.finetune import settings_for_start

    if preset is None:
        config = settings_for_start(FINETUNE_PRESETS["pointmaze"], start)
        maze = config.offline.dataset.source == FINETUNE_PRESETS["pointmaze"].offline.dataset.source
        preset = FINETUNE_PRESETS["pointmaze" if maze else "antmaze"]
    return settings_for_start(preset, start)
