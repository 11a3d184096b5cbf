"""What the user sees of a run: stages, a progress bar, and the tables at its end.

On a terminal the bar is redrawn; anywhere else (a log file, a CI job) plain lines are printed
instead, a few a minute.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn
from rich.table import Table

__all__ = [
    "RateMeter",
    "Reporter",
    "TrainingBar",
    "duration",
    "files_table",
    "make_table",
    "policy_name",
    "returns_table",
]

_REDRAW_SECONDS = 0.2
_PLAIN_LINE_SECONDS = 15.0
_SHOWN = (("actor_loss", "actor"), ("critic_loss", "Q"), ("value_loss", "V"), ("nll", "actor"))


def duration(seconds: float) -> str:
    """A length of time as text.

    Example:
        >>> duration(4.26), duration(75), duration(3 * 3600 + 61)
        ('4.3 s', '1:15', '3:01:01')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def policy_name(n: int | str | None) -> str:
    """The name in tables of a policy that chooses among ``n`` candidates; None: it does not choose.

    A name is returned unchanged.

    Example:
        >>> policy_name(64), policy_name(None), policy_name("expert")
        ('N = 64', 'policy', 'expert')
    """
    if isinstance(n, str):
        return n
    return "policy" if n is None else f"N = {n}"


@dataclass
class RateMeter:
    """Updates per second over the last seconds of training, without pauses.

    Example:
        >>> meter = RateMeter(window=10.0)
        >>> for now in range(6):
        ...     meter.tick(updates=100 * now, now=float(now))
        >>> meter.rate
        100.0
    """

    window: float = 20.0
    paused: float = 0.0
    _points: list[tuple[float, int]] = field(default_factory=list)

    def tick(self, updates: int, now: float) -> None:
        """Record how many updates are done at the time ``now``, seconds."""
        now -= self.paused
        self._points.append((now, updates))
        while len(self._points) > 2 and now - self._points[0][0] > self.window:
            self._points.pop(0)

    def pause(self, seconds: float) -> None:
        """Leave out time that was spent on something other than updates."""
        self.paused += seconds

    @property
    def rate(self) -> float:
        """Updates per second; 0 before the second update is recorded."""
        if len(self._points) < 2:
            return 0.0
        (t0, n0), (t1, n1) = self._points[0], self._points[-1]
        return (n1 - n0) / (t1 - t0) if t1 > t0 else 0.0


class Reporter:
    """Prints to a console; ``quiet`` prints nothing (for use from programs)."""

    def __init__(self, console: Console | None = None, quiet: bool = False) -> None:
        self.console = console if console is not None else Console(quiet=quiet, highlight=False)

    def stage(self, text: str) -> None:
        """Print one line about what happens next."""
        self.console.print(f"[bold cyan]›[/] {text}")

    def detail(self, text: str) -> None:
        """Print one line that belongs to the stage before it."""
        self.console.print(f"  {text}", style="dim")

    def warn(self, text: str) -> None:
        """Print one line that the user should not miss."""
        self.console.print(f"[bold yellow]![/] {text}")

    def table(self, table: Table) -> None:
        """Print a table."""
        self.console.print(table)

    def bar(self, total: int, done: int, unit: str = "updates") -> TrainingBar:
        """A progress bar over updates (or other units), as a context manager."""
        return TrainingBar(self, total, done, unit)


class TrainingBar:
    """Progress of the updates: number, speed, losses, and the time left."""

    def __init__(self, reporter: Reporter, total: int, done: int, unit: str = "updates") -> None:
        self._reporter = reporter
        self._unit = unit
        self._total = total
        self.done = done
        self._start = time.monotonic()
        self._last_drawn = 0.0
        self._last_line = self._start
        self._text = ""
        self.meter = RateMeter()
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.fields[activity]}"),
            BarColumn(bar_width=None),
            TextColumn("{task.completed:,.0f}/{task.total:,.0f}"),
            TextColumn("[cyan]{task.fields[rate]}[/]"),
            TextColumn("{task.fields[text]}"),
            TextColumn("[green]{task.fields[left]}[/]"),
            console=reporter.console,
            disable=not reporter.console.is_terminal,
            transient=False,
        )
        self._task: TaskID = self._progress.add_task(
            "", total=total, completed=done, activity="training", rate="", text="", left=""
        )

    def __enter__(self) -> TrainingBar:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    @property
    def seconds_left(self) -> float | None:
        """Seconds that the remaining updates take at the present rate; None if unknown."""
        rate = self.meter.rate
        return (self._total - self.done) / rate if rate > 0 else None

    def advance(self, done: int) -> None:
        """Show that ``done`` updates have been made; draws a few times a second at most."""
        self.done = done
        now = time.monotonic()
        if now - self._last_drawn < _REDRAW_SECONDS and done < self._total:
            return
        self._last_drawn = now
        self.meter.tick(done, now)
        rate, left = self._speed()
        self._progress.update(self._task, completed=done, rate=rate, text=self._text, left=left)

    def losses(self, record: Mapping[str, Any]) -> None:
        """Show the losses of a log record; without a terminal as a line, a few times a minute."""
        shown = [
            f"{label} {record[f'train/{name}']:.3g}"
            for name, label in _SHOWN
            if record.get(f"train/{name}") is not None
        ]
        self.show("loss: " + ", ".join(shown) if shown else "")

    def show(self, text: str) -> None:
        """Show text beside the rate; without a terminal as a line, a few times a minute."""
        self._text = text
        now = time.monotonic()
        if self._reporter.console.is_terminal or now - self._last_line < _PLAIN_LINE_SECONDS:
            return
        self._last_line = now
        rate, left = self._speed()
        parts = (f"{self.done:,}/{self._total:,} {self._unit}", rate, self._text, left)
        self._reporter.detail(" · ".join(part for part in parts if part))

    def _speed(self) -> tuple[str, str]:
        """The rate and the time left as texts, empty if they are not known yet."""
        left = self.seconds_left
        rate = f"{self.meter.rate:.1f} {self._unit}/s" if self.meter.rate else ""
        return rate, "" if left is None else f"{duration(left)} left"

    @contextmanager
    def busy(self, activity: str) -> Iterator[None]:
        """Within the block the bar shows another activity; its time does not count as training."""
        began = time.monotonic()
        self._progress.update(self._task, activity=activity)
        try:
            yield
        finally:
            self.meter.pause(time.monotonic() - began)
            self._progress.update(self._task, activity="training")


def make_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    title: str | None = None,
    *,
    numbers: bool = False,
) -> Table:
    """A table whose first column names the rows.

    Args:
        columns: the headings; without any text there is no line of headings.
        rows: a text for each column.
        title: heading of the table.
        numbers: the other columns hold numbers, on the right; else text, folded where it is long.

    Example:
        >>> make_table(("setting", "value"), [("seed", "0")]).row_count
        1
    """
    table = Table(
        title=title,
        title_justify="left",
        header_style="bold",
        box=box.SIMPLE_HEAD,
        show_header=any(columns),
        pad_edge=numbers,
    )
    table.add_column(columns[0], no_wrap=not numbers)
    for column in columns[1:]:
        table.add_column(
            column,
            justify="right" if numbers else "left",
            no_wrap=numbers,
            overflow="ellipsis" if numbers else "fold",
        )
    for row in rows:
        table.add_row(*row)
    return table


def returns_table(
    results: Mapping[Any, Mapping[str, Any]],
    *,
    behaviour: Mapping[str, Any] | None = None,
    title: str = "Evaluation",
) -> Table:
    """A table of returns for each N, beside that of the behaviour.

    Args:
        results: N (None for a learner without one), or a policy's name, to what
            ``idql_func.evaluation.evaluate`` returned.
        behaviour: ``return`` (mean), ``episodes`` and possibly ``normalized_score`` of the data.
            "x data" is the return as a multiple of it, "score /100" the score on D4RL's scale.
        title: heading.

    Example:
        >>> table = returns_table({64: {"return": 80.0, "return_std": 20.0, "episodes": 16}},
        ...                       behaviour={"return": 25.0, "episodes": 300})
        >>> [list(column.cells) for column in table.columns][:4]
        [['behaviour', 'N = 64'], ['25.0', '80.0 ± 5.0'], ['1.0x', '3.2x'], ['300', '16']]
    """
    reference = None if behaviour is None else float(behaviour["return"])
    rows = {} if behaviour is None else {"behaviour": behaviour}
    rows |= {policy_name(n): result for n, result in results.items()}
    columns = ["return", "x data", "episodes", "length", "success", "score /100"]
    cells = [(name, _cells(result, reference)) for name, result in rows.items()]
    used = [i for i in range(len(columns)) if any(row[i] for _, row in cells)]
    return make_table(
        ["policy", *(columns[i] for i in used)],
        [(name, *(row[i] for i in used)) for name, row in cells],
        title,
        numbers=True,
    )


def _cells(result: Mapping[str, Any], reference: float | None) -> list[str]:
    mean, std = float(result["return"]), result.get("return_std")
    episodes = int(result["episodes"])
    error = "" if std is None else f" ± {float(std) / max(episodes, 1) ** 0.5:.1f}"
    # A multiple is meaningful for positive returns only.
    ratio = f"{mean / reference:.1f}x" if reference and reference > 0 and mean >= 0 else ""
    length, success = result.get("length"), result.get("success")
    score = result.get("normalized_score")
    return [
        f"{mean:.1f}{error}",
        ratio,
        str(episodes),
        "" if length is None else f"{float(length):.0f}",
        "" if success is None else f"{100 * float(success):.0f} %",
        "" if score is None else f"{float(score):.1f}",
    ]


def files_table(files: Mapping[str, Path]) -> Table:
    """A table of the files that were written.

    Example:
        >>> files_table({"metrics": Path("runs/x/metrics.jsonl")}).row_count
        1
    """
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column()
    table.add_column(overflow="fold")
    for name, path in files.items():
        table.add_row(f"[dim]{name}[/]", str(path))
    return table
