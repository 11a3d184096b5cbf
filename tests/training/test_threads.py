"""Threads: the number of usable cores, its scope, and its use in a run."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest
import torch

from idql_func.training.configs.finetune import FinetuneConfig
from idql_func.training.configs.offline import TrainConfig
from idql_func.training.configs.online import OnlineConfig
from idql_func.training.offline import train_offline
from idql_func.training.runtime.threads import cpu_threads, usable_cores
from idql_func.types import InputError


def _machine(
    folder: Path, siblings: list[str], monkeypatch: pytest.MonkeyPatch, **files: str
) -> tuple[Path, Path]:
    for i, names in enumerate(siblings):
        topology = folder / f"cpus/cpu{i}/topology"
        topology.mkdir(parents=True)
        (topology / "thread_siblings_list").write_text(names + "\n")
    for name, text in files.items():
        path = folder / "groups" / name.replace("__", "/").replace("_of", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    allowed = set(range(len(siblings)))
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: allowed, raising=False)
    return folder / "cpus", folder / "groups"


def test_hardware_threads_of_one_core_count_once(tmp_path, monkeypatch) -> None:
    machine = _machine(tmp_path, ["0,4", "1,5", "0,4", "1,5"], monkeypatch)
    assert usable_cores(*machine) == 2


def test_without_topology_each_cpu_counts(tmp_path, monkeypatch) -> None:
    _machine(tmp_path, ["0", "1", "2"], monkeypatch)
    assert usable_cores(tmp_path / "none", tmp_path / "none") == 3


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu_ofmax": "300000 100000"}, 3),
        ({"cpu_ofmax": "50000 100000"}, 1),
        ({"cpu_ofmax": "max 100000"}, 4),
        ({"cpu__cpu_ofcfs_quota_us": "250000", "cpu__cpu_ofcfs_period_us": "100000"}, 2),
        ({"cpu__cpu_ofcfs_quota_us": "-1", "cpu__cpu_ofcfs_period_us": "100000"}, 4),
    ],
)
def test_quota_of_a_container_limits_the_cores(tmp_path, monkeypatch, files, cores) -> None:
    machine = _machine(tmp_path, ["0", "1", "2", "3"], monkeypatch, **files)
    assert usable_cores(*machine) == cores


def test_number_of_threads_is_scoped() -> None:
    before = torch.get_num_threads()
    with pytest.raises(RuntimeError), cpu_threads(before + 1) as count:
        assert count == torch.get_num_threads() == before + 1
        raise RuntimeError
    assert torch.get_num_threads() == before
    with cpu_threads(None) as count:
        assert count == torch.get_num_threads() == before
    with cpu_threads(0) as count:
        assert count == torch.get_num_threads() == usable_cores()
    with pytest.raises(InputError, match="threads is -1"), cpu_threads(-1):
        pass


@pytest.mark.parametrize("config", [TrainConfig(), OnlineConfig(), FinetuneConfig()])
def test_negative_number_of_threads_raises(config) -> None:
    with pytest.raises(InputError, match="threads is -2"):
        dataclasses.replace(config, threads=-2).validate()


def test_run_uses_its_number_of_threads(tiny, quiet) -> None:
    before, seen = torch.get_num_threads(), set()
    config = dataclasses.replace(tiny, threads=before + 1)
    train_offline(config, reporter=quiet, on_update=lambda _: seen.add(torch.get_num_threads()))
    assert seen == {before + 1}
    assert torch.get_num_threads() == before
