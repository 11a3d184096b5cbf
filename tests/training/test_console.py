"""Console output: rates without pauses, plain lines without a terminal, tables of returns."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from idql_func.training.runs.console import RateMeter, Reporter, returns_table


def test_rate_excludes_pauses() -> None:
    meter = RateMeter(window=100.0)
    meter.tick(0, 0.0)
    meter.tick(10, 1.0)
    meter.pause(50.0)
    meter.tick(20, 52.0)
    assert meter.rate == 10.0
    assert meter.paused == 50.0


def test_rate_covers_the_last_seconds() -> None:
    meter = RateMeter(window=10.0)
    done = 0
    for now in range(100):
        done += 1 if now < 50 else 5
        meter.tick(done, float(now))
    assert meter.rate == pytest.approx(5.0)
    assert RateMeter().rate == 0.0


def test_plain_lines_appear_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("idql_func.training.runs.console.time.monotonic", lambda: now[0])
    stream = io.StringIO()
    reporter = Reporter(Console(file=stream, width=200))
    with reporter.bar(total=1_000, done=0) as bar:
        for i in range(1, 101):
            now[0] += 1.0
            bar.advance(10 * i)
            bar.losses({"train/actor_loss": 1.25, "train/critic_loss": None})
    lines = stream.getvalue().strip().splitlines()
    assert len(lines) == 6  # one every 15 seconds
    assert lines[1] == "  300/1,000 updates · 10.0 updates/s · loss: actor 1.25 · 1:10 left"


def test_terminal_bar_shows_rate_losses_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("idql_func.training.runs.console.time.monotonic", lambda: now[0])
    stream = io.StringIO()
    reporter = Reporter(Console(file=stream, width=160, force_terminal=True, color_system=None))
    with reporter.bar(total=100, done=0) as bar:
        with bar.busy("compiling the update"):
            now[0] += 7.0
            bar._progress.refresh()
        assert bar.meter.paused == 7.0
        for i in range(1, 51):
            now[0] += 0.5
            bar.losses({"train/actor_loss": 1.25, "train/value_loss": 0.5})
            bar.advance(i)
    text = stream.getvalue()
    assert "compiling the update" in text
    assert "50/100 2.0 updates/s loss: actor 1.25, V 0.5 25.0 s left" in text


def test_policy_without_n_is_named_policy() -> None:
    table = returns_table({None: {"return": 1.0, "return_std": 2.0, "episodes": 4}})
    assert list(table.columns[0].cells) == ["policy"]


def test_table_has_only_columns_with_values() -> None:
    table = returns_table({1: {"return": 1.0, "return_std": 2.0, "episodes": 4, "length": 10.0}})
    assert [column.header for column in table.columns] == ["policy", "return", "episodes", "length"]
    assert list(table.columns[1].cells) == ["1.0 ± 1.0"]
