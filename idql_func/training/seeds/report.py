"""The results of several members, each and on average: table, CSV file, picture, summary."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from idql_func.files import write_bytes
from idql_func.training.configs.settings import flat_settings
from idql_func.training.configs.sweeps import MeanOverSeeds, means_over_seeds
from idql_func.training.offline import ACTOR_LOSS_LABELS
from idql_func.training.offline_loop import IDQL
from idql_func.training.runs.console import make_table, policy_name
from idql_func.training.runs.directory import write_json
from idql_func.training.runs.members import Position
from idql_func.training.runs.plots import save_figure
from idql_func.training.runs.results import Results, plain_results
from idql_func.training.runs.run import Run
from idql_func.training.seeds.config import varied_settings
from idql_func.training.seeds.plots import members_curve

__all__ = ["final_values", "finish_group", "members_table", "write_members_csv"]

_LOSSES = ("val/", "train/")


def finish_group(
    run: Run, at: Position, env_name: str | None, evaluations: Sequence[Results]
) -> dict[str, Any]:
    """Write the table, the picture and the summary of all members, and print the table.

    ``evaluations`` are the last ones of each member, and the result is the summary.
    """
    directory, config = run.directory, run.config
    found = {m.name: own for m, own in zip(run.members, evaluations, strict=True)}
    varied = ["seed", *varied_settings([member.config for member in run.members])]
    settings = {m.name: {v: flat_settings(m.config)[v] for v in varied} for m in run.members}
    labels = {name: name.rpartition("-seed")[0] for name in found}
    records = {m.name: m.metrics.records for m in run.members}
    values = {name: final_values(own, records[name]) for name, own in found.items()}
    means = means_over_seeds(values, labels)
    table = directory.path / "members.csv"
    write_members_csv(table, settings, values)
    curve = members_curve(
        records,
        labels,
        behaviour_return=run.behaviour_return,
        title=f"{config.learner.class_name} on {config.dataset.source}, "
        f"{len(run.members)} members of one program",
        titles=ACTOR_LOSS_LABELS if isinstance(config.learner, IDQL) else {},
    )
    run.save_picture(lambda: save_figure(curve, directory.learning_curve))
    summary = {
        **run.common_summary(at),
        "members": {
            name: {"settings": settings[name], "evaluation": plain_results(own)}
            for name, own in found.items()
        },
        "means": [dataclasses.asdict(row) for row in means],
    }
    write_json(directory.summary, summary)
    files = {
        "a run for each member": directory.path / run.members[0].name / "…",
        "learning curves": directory.learning_curve,
        "members": table,
        "summary": directory.summary,
    }
    title = f"{env_name or 'losses'} after {at.updates:,} updates"
    run.report_end(files, members_table(values, means, title))
    return summary


def final_values(evaluations: Results, records: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The results of a member: its returns, or its last losses if nothing was evaluated.

    ``records`` are the rows of its ``metrics.jsonl``.

    Example:
        >>> final_values({1: {"return": 3.0}, 64: {"return": 9.0}}, [])
        {'N = 1': 3.0, 'N = 64': 9.0}
        >>> final_values({}, [{"step": 0, "val/nll": 2.0, "train/nll": 1.0}])
        {'val/nll': 2.0}
    """
    if evaluations:
        return {policy_name(n): float(result["return"]) for n, result in evaluations.items()}
    for prefix in _LOSSES:
        for record in reversed(records):
            found = {k: v for k, v in record.items() if k.startswith(prefix) and v is not None}
            if found:
                return found
    return {}


def members_table(
    values: Mapping[str, Mapping[str, float]], means: Sequence[MeanOverSeeds], title: str
) -> Table:
    """A row for each member, and below it one with mean and standard error for each setting.

    Example:
        >>> values = {"seed0": {"N = 1": 1.0}, "seed1": {"N = 1": 3.0}}
        >>> means = means_over_seeds(values, {"seed0": "", "seed1": ""})
        >>> [list(column.cells) for column in members_table(values, means, "").columns]
        [['seed0', 'seed1', 'mean of 2'], ['1.00', '3.00', '2.00 ± 1.00']]
    """
    quantities = list(dict.fromkeys(q for own in values.values() for q in own))
    rows = [
        (member, *(_number(own[q]) if q in own else "" for q in quantities))
        for member, own in values.items()
    ]
    table = make_table(("member", *quantities), rows, title, numbers=True)
    table.add_section()
    for label in dict.fromkeys(row.members for row in means):
        own = {row.quantity: row for row in means if row.members == label}
        count = max(row.count for row in own.values())
        cells = [_with_error(own[q]) if q in own else "" for q in quantities]
        table.add_row(f"{label}{': ' if label else ''}mean of {count}", *cells, style="bold")
    return table


def write_members_csv(
    path: Path,
    settings: Mapping[str, Mapping[str, Any]],
    values: Mapping[str, Mapping[str, float]],
) -> None:
    """Write atomically a row for each member: its name, its own settings, and its results."""
    rows = [{"member": name, **settings[name], **values[name]} for name in settings]
    columns = list(dict.fromkeys(column for row in rows for column in row))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows(rows)
    write_bytes(path, text.getvalue().encode())


def _number(value: float) -> str:
    return f"{value:{'.1f' if abs(value) >= 10 else '.2f' if abs(value) >= 1 else '.3g'}}"


def _with_error(row: MeanOverSeeds) -> str:
    return _number(row.mean) + (
        "" if row.standard_error is None else f" ± {_number(row.standard_error)}"
    )
