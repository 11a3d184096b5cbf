"""Remote variants: alternating blocks, failures, and no child process left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from benchmarks import remote, upstream
from benchmarks.case import Plan
from benchmarks.jax_side.variants import missing_packages
from benchmarks.remote import ChildProcess, RemoteVariant
from benchmarks.roofline import Limits
from benchmarks.runner import measure_case
from benchmarks.timing import Budget, Timed, Variant, interleave
from benchmarks.workloads import load
from idql_func import disable_jit

HERE = Path(__file__).parent
SHORT = Budget(rounds=2, block_seconds=1e-3, pause=0.0, warm_up=2)
CALL_SECONDS = 0.005


@pytest.fixture(autouse=True)
def _fakes_are_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(HERE), prepend=os.pathsep)
    monkeypatch.delenv("XLA_PYTHON_CLIENT_PREALLOCATE", raising=False)


def fakes(**settings: Any) -> closing[ChildProcess]:
    return closing(ChildProcess("fake_variants", "update", settings, {"device": "cpu"}))


def measured(
    names: str, process: ChildProcess, **options: Any
) -> tuple[list[Timed], list[tuple[str, str]]]:
    failed: list[tuple[str, str]] = []
    timed = interleave(
        [RemoteVariant(name, process) for name in names.split()],
        SHORT,
        on_failure=lambda name, error: failed.append((name, str(error))),
        **options,
    )
    return timed, failed


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")  # a zombie has ended
    return not (state.exists() and state.read_text().rpartition(")")[2].split()[0] == "Z")


def test_local_and_remote_blocks_alternate() -> None:
    """The child's protocol ignores what a variant prints."""
    order: list[str] = []
    here = Variant("here", lambda: lambda i: i, lambda result: None)
    with fakes(units=3) as process:
        timed = interleave(
            [here, RemoteVariant("noisy", process)],
            SHORT,
            on_progress=lambda name, done: order.append(f"{name} {done}"),
        )
    assert order == [f"{name} {done}" for done in range(3) for name in ("here", "noisy")]
    assert [t.name for t in timed] == ["here", "noisy"] and len(timed[1].rates) == SHORT.rounds
    assert timed[1].calls == 1 and all(0 < rate <= 3 / CALL_SECONDS for rate in timed[1].rates)
    assert timed[1].first_call_seconds >= CALL_SECONDS and timed[1].make_seconds > 0


def test_child_has_the_cores_and_environment_of_the_parent() -> None:
    """The parent's cores, no library imported, no standard input, no preallocation on a GPU."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    with fakes() as process:
        _, failed = measured("facts", process)
    assert failed == [("facts", f"RuntimeError: update cpu {cores} false [] ''")]


@pytest.mark.parametrize(("wait_each", "waited"), [(True, "[0, 1, 2, 3, 4]"), (False, "[0, 1, 2]")])
def test_wait_each_is_passed_to_the_child(wait_each: bool, waited: str) -> None:
    """Calls 0, 1 and 2 are each the last of their block, 3 and 4 are not."""
    with fakes(fails_at=5) as process:
        timed, failed = measured("counting", process, wait_each=wait_each)
    assert timed == [] and failed == [("counting", f"ValueError: waited for {waited}")]


def test_failing_variant_does_not_end_its_process() -> None:
    with fakes(fails_at=0) as process:
        timed, failed = measured("counting noisy", process)
    assert [t.name for t in timed] == ["noisy"]
    assert failed == [("counting", "ValueError: waited for []")]


def test_exit_of_a_child_is_reported() -> None:
    with fakes() as process:
        timed, failed = measured("dying noisy", process)
        assert timed == []
        message = "the child process exited with status 3: no memory is left"
        assert failed == [("dying", message), ("noisy", message)]
        assert process._child is not None and not is_alive(process._child.pid)


def test_child_starts_at_the_first_request() -> None:
    with fakes() as process:
        assert process._child is None


@pytest.fixture
def interrupted() -> Iterator[None]:
    """Raise KeyboardInterrupt after a second."""

    def interrupt(*arguments: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 1.0)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0.0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("interrupted")
def test_interrupt_ends_a_busy_child() -> None:
    pid = None
    with pytest.raises(KeyboardInterrupt), fakes() as process:
        try:
            measured("endless", process)
        finally:
            pid = process._child and process._child.pid
    assert pid is not None and not is_alive(pid)


def test_child_ends_when_its_parent_is_killed() -> None:
    code = (
        "import os, signal\n"
        "from benchmarks.remote import ChildProcess, RemoteVariant\n"
        "from benchmarks.timing import Budget, interleave\n"
        "process = ChildProcess('fake_variants', 'update', {}, {'device': 'cpu'})\n"
        "interleave([RemoteVariant('noisy', process)], Budget(1, 1e-3, 0.0, 1))\n"
        "print(process._child.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    root = Path(remote.__file__).resolve().parent.parent
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False
    )
    pid = int(done.stdout)
    for _ in range(500):
        if not is_alive(pid):
            return
        time.sleep(0.02)
    os.kill(pid, signal.SIGKILL)
    pytest.fail("the child is still running")


# --- JAX and the original -----------------------------------------------------------------


def test_child_without_jax_names_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "jax.py").write_text("raise ModuleNotFoundError('No module named jax here')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    notes, results = _tiny_draws(Plan("quick", jax=True, tiny=True))
    assert [variant for variant, _ in results] == ["eager", "compiled"]
    [note] = notes
    assert note.startswith("random normal") and "jax: RuntimeError: ModuleNotFoundError" in note
    assert note.endswith("No module named jax here")


@pytest.mark.skipif(missing_packages() is not None, reason=missing_packages() or "JAX is installed")
def test_one_process_gives_the_same_entries() -> None:
    """With JAX in this process or in a child, the results have the same entries."""
    found = [
        _tiny_draws(Plan("quick", jax=True, tiny=True, one_process=together))
        for together in (False, True)
    ]
    assert found[0] == found[1]
    notes, results = found[0]
    assert not notes and [variant for variant, _ in results] == ["eager", "compiled", "jax"]
    assert all("ratio_to_jax" in spread for _, spread in results)


def _tiny_draws(plan: Plan) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Notes, and each variant with the names of its figures."""
    notes: list[str] = []
    limits = Limits((16, 16, 16), 1.0, 1.0, {})
    with disable_jit():
        case = load("random").cases(plan)[0]
        results, _ = measure_case(case, SHORT, limits, plan, note=notes.append)
    assert all(r.rate > 0 and len(r.rates) == SHORT.rounds for r in results)
    return notes, [(r.variant, sorted(r.spread)) for r in results]


def test_variants_of_the_original_are_made_from_plain_data() -> None:
    plan = {"effort": "quick", "upstream": "/nowhere", "device": "cpu"}
    for workload, settings in (("update", {"batch": 8}), ("act", {"num_envs": 1})):
        assert upstream.make_variant("upstream", workload, settings, plan).name == "upstream"
    with pytest.raises(ValueError, match="no variant 'upstream' of act at these settings"):
        upstream.make_variant("upstream", "act", {"num_envs": 2}, plan)
