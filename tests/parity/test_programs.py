"""The recorded programs of transforms and streams give JAX's results."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parity.__main__ import main
from parity.conformance.checking import judge, on_port
from parity.conformance.choices import Choices, shrink
from parity.conformance.compare import difference, raw_message
from parity.conformance.departures import DEPARTURES, departure_of
from parity.conformance.grammar import FAMILIES, draw_program, program_of
from parity.conformance.older import FAMILY, older_programs
from parity.conformance.outcomes import Outcome, run
from parity.conformance.port_names import to_numpy, xp
from parity.conformance.store import read_outcomes, save_outcomes
from parity.conformance.text import Program
from parity.store import REFERENCE, RecordError

RECORDED = read_outcomes(REFERENCE)
FEW = 1000
CONFORMANCE = Path(__file__).resolve().parents[2] / "parity" / "conformance"
README = (CONFORMANCE / "README.md").read_text(encoding="utf-8")


def _failures(begin: int, end: int) -> list[str]:
    verdicts = [judge(program, jax, on_port(program)) for program, jax in RECORDED[begin:end]]
    return [
        f"programs/{i}: {verdict.difference}"
        for i, verdict in enumerate(verdicts, begin)
        if not verdict.passed
    ]


@pytest.mark.parametrize("begin", range(0, FEW, 100))
def test_port_does_what_jax_did(begin: int) -> None:
    assert not _failures(begin, begin + 100)


@pytest.mark.slow
@pytest.mark.parametrize("begin", range(FEW, len(RECORDED), 100))
def test_port_does_what_jax_did_with_the_other_programs(begin: int) -> None:
    assert not _failures(begin, begin + 100)


@pytest.mark.parametrize("begin", range(0, 200, 100))
def test_eager_port_does_what_jax_did(begin: int) -> None:
    # without jit nothing is donated, static or refused by tracing
    for program, jax in RECORDED[begin : begin + 100]:
        if jax.error is None and not program.donates:
            verdict = judge(program, jax, on_port(program, eager=True))
            assert verdict.passed, f"{verdict.difference}\n{program.text}"


def test_record_has_enough_programs_of_every_family_and_refusal() -> None:
    assert len(RECORDED) >= 5000
    families = Counter(program.family for program, _ in RECORDED)
    assert all(families[name] >= len(RECORDED) * share / 130 for name, share in FAMILIES)
    refused = sum(jax.error is not None for _, jax in RECORDED)
    assert len(RECORDED) / 20 < refused < len(RECORDED) / 4
    assert sum(path.stat().st_size for path in REFERENCE.glob("programs.*")) < 5_000_000


def test_programs_use_every_name_and_option() -> None:
    text = "\n".join(program.text for program, _ in RECORDED)
    used = set(re.findall(r"xp\.(\w+)", text))
    assert set(vars(xp)) - used == {"restore"}
    for option in (
        *("in_axes=-1", "out_axes=-2", "out_axes=None", "axis_size=", "argnums=-", "has_aux=True"),
        *("reverse=True", "unroll=", "length=0", "static_argnums=-2", "static_argnames=('mode',)"),
        *("donate_argnums=(0, 1)", "x64=True", "partitionable=False", "np.int8", ".T", "None"),
    ):
        assert option in text, option


@given(st.integers(0, 10**9))
@settings(max_examples=40)
def test_program_follows_from_its_choices(seed: int) -> None:
    program = program_of(seed)
    assert draw_program(Choices(given=program.choices)) == program
    assert program_of(seed) == program


@given(st.lists(st.integers(0, 50), max_size=12), st.integers(1, 60))
@settings(max_examples=60)
def test_shrunk_choices_still_fail_and_none_can_be_removed(numbers: list[int], bar: int) -> None:
    def fails(candidate: Sequence[int]) -> bool:
        return sum(candidate) >= bar

    if not fails(numbers):
        return
    small = shrink(numbers, fails)
    assert fails(small) and min(small) >= 0
    assert not any(fails(small[:i] + small[i + 1 :]) for i in range(len(small)))


def test_failing_program_is_shrunk_to_a_few_lines() -> None:
    def fails(numbers: Sequence[int]) -> bool:
        return "out_axes=-1" in draw_program(Choices(given=numbers)).text

    seed = next(seed for seed in range(1000) if fails(program_of(seed).choices))
    small = draw_program(Choices(given=shrink(program_of(seed).choices, fails)))
    assert small.text.count("\n") <= 8


def _outcome(*leaves: np.ndarray | np.generic, structure: str = "*") -> Outcome:
    return Outcome(structure, tuple(np.asarray(x) for x in leaves))


_ONE = _outcome(np.float32(1))
_PROGRAM = Program("nest", "", "", False, True, "close", False, ())


@pytest.mark.parametrize(
    ("jax", "port", "bound", "found"),
    [
        (_ONE, _ONE, "close", None),
        (_ONE, _outcome(np.float64(1)), "close", "leaf 0: dtype float64, JAX float32"),
        (_ONE, _outcome(np.ones(1, "f")), "close", r"leaf 0: shape \(1,\), JAX \(\)"),
        (_ONE, _outcome(np.float32(1), structure="(*)"), "close", r"structure \(\*\), JAX \*"),
        (_ONE, _outcome(np.float32(1 + 1e-4)), "close", "leaf 0: "),
        (_ONE, _outcome(np.float32(1 + 1e-6)), "close", None),
        (_ONE, _outcome(np.float32(1 + 1e-6)), "ulp", "leaf 0: "),
        (_ONE, _outcome(np.float32(1 + 3e-7)), "ulp", None),
        (_ONE, _outcome(np.float32(1 + 3e-7)), "equal", "leaf 0: "),
        (_outcome(np.float32(0)), _outcome(np.float32(-0.0)), "equal", "the sign of a zero"),
        (_ONE, _outcome(np.float32(np.nan)), "close", "NaN at other places"),
        (_ONE, _outcome(np.float32(np.inf)), "close", r"\[inf\], JAX \[1.0\]"),
        (_outcome(np.uint32(7)), _outcome(np.int64(7)), "equal", None),
        (_ONE, dataclasses.replace(_ONE, written=True), "close", "wrote into an argument"),
        (_ONE, Outcome("", (), "no axis 3", "ValueError"), "close", "refused: ValueError"),
        (Outcome("", (), "bad", "TypeError"), _ONE, "close", "accepted, but JAX refuses"),
        (Outcome("", (), "bad"), Outcome("", (), "no axis 3", "ValueError"), "close", None),
        (Outcome("", (), "bad"), Outcome("", (), "aten::add", "RuntimeError"), "close", "raw"),
        (Outcome("", (), "bad"), Outcome("", (), "'a'", "KeyError"), "close", "a raw KeyError"),
    ],
)
def test_difference_is_found(jax: Outcome, port: Outcome, bound: str, found: str | None) -> None:
    text = difference(dataclasses.replace(_PROGRAM, bound=bound), jax, port)
    assert (text is None) == (found is None), text
    assert found is None or re.search(found, text or "")


def test_refusal_of_several_lines_is_raw() -> None:
    assert raw_message(Outcome("", (), "first\nsecond", "ValueError")) == "a raw message: first"


def test_written_argument_is_noticed() -> None:
    program = dataclasses.replace(
        _PROGRAM,
        setup="x1 = xp.array([1.0, 2.0], 'float32')\ndef f(x):\n    x += 1\n    return x",
        result="f(x1)",
    )
    assert run(program, xp, to_numpy).written
    assert not run(dataclasses.replace(program, result="xp.vmap(f)(x1)"), xp, to_numpy).written


def test_outcomes_are_saved_and_read_as_they_were(tmp_path: Path) -> None:
    outcomes = [jax for _, jax in RECORDED[:300]]
    save_outcomes(tmp_path, outcomes, {"versions": {}})
    read = read_outcomes(tmp_path)
    assert [program for program, _ in read] == [program for program, _ in RECORDED[:300]]
    for (_, after), before in zip(read, outcomes, strict=True):
        assert (after.structure, after.kind) == (before.structure, before.kind)
        for a, b in zip(after.leaves, before.leaves, strict=True):
            assert a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def test_damaged_record_is_refused(tmp_path: Path) -> None:
    save_outcomes(tmp_path, [jax for _, jax in RECORDED[:20]], {"versions": {}})
    manifest = tmp_path / "programs.json"
    text = manifest.read_text()
    manifest.write_text(text.replace('"programs": 20', '"programs": 19'))
    with pytest.raises(RecordError, match="the drawing of programs has changed"):
        read_outcomes(tmp_path)
    manifest.write_text(text)
    (tmp_path / "programs.safetensors").write_bytes(b"")
    with pytest.raises(RecordError, match="is not the file of"):
        read_outcomes(tmp_path)


def test_draws_of_the_older_jax_are_recorded_and_allow_no_departure() -> None:
    older = [(program, jax) for program, jax in RECORDED if program.family == FAMILY]
    assert [program for program, _ in older] == older_programs()
    assert all(jax.error is None and jax.leaves for _, jax in older)
    program, jax = next((p, x) for p, x in older if "truncated_normal" in p.result)
    near = dataclasses.replace(jax, leaves=tuple(x * np.float32(1 + 3e-6) for x in jax.leaves))
    assert departure_of(program, jax, near) == "newer erf"
    assert not judge(program, jax, near).passed
    assert judge(program, jax, on_port(program)).passed


def test_every_departure_is_in_the_readme() -> None:
    plain = " ".join(README.split())
    for departure in DEPARTURES:
        assert f"**{departure.name}**: {departure.reason}" in plain, departure.name


def test_commands_check_and_show_programs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_outcomes(tmp_path, [jax for _, jax in RECORDED[:40]], {"versions": {}})
    chosen = ["--reference", str(tmp_path), "--jobs", "1"]
    assert main(["check", "--only", "programs", *chosen]) == 0
    assert re.search(r"40 +programs\n +\d+ +same\n", capsys.readouterr().out)
    assert main(["check", "--case", "programs/3", *chosen]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("import numpy as np\nfrom parity.conformance.port_names import xp\n")
    assert "# the port does what JAX does" in shown
    assert main(["check", "--case", "programs/40", *chosen]) == 2
    assert "give programs/0 to programs/39" in capsys.readouterr().err


def test_wrong_result_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outcomes = [jax for _, jax in RECORDED[:40]]
    place = next(i for i, x in enumerate(outcomes) if x.leaves and x.leaves[0].size)
    changed = tuple(np.logical_not(x) if x.dtype == bool else x + 1 for x in outcomes[place].leaves)
    outcomes[place] = dataclasses.replace(outcomes[place], leaves=changed)
    save_outcomes(tmp_path, outcomes, {"versions": {}})
    command = ["check", "--only", "programs", "--reference", str(tmp_path), "--jobs", "1"]
    assert main(command) == 1
    printed = capsys.readouterr().out
    assert f"FAIL programs/{place} (" in printed and "1  differ" in printed


@pytest.mark.live
def test_new_programs_equal_jax(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["live", "--programs", "200", "--first-seed", "1000000", "--jobs", "1"]) == 0


def test_departures_take_results_of_another_structure() -> None:
    program = dataclasses.replace(_PROGRAM, setup="x = np.bool_(True)", result="f(x, -0.0)")
    two = _outcome(np.int32(1), np.int32(2), structure="tuple(*,*,)")
    assert departure_of(program, two, _outcome(np.int64(1))) is None
