"""Command line: ``python -m parity {record,check,live,mutate,report,coverage}``."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path


def _parser() -> argparse.ArgumentParser:
    # argparse, since `record` runs where the project's other packages are not installed.
    parser = argparse.ArgumentParser(
        prog="python -m parity", description="Compare the port with the JAX original."
    )
    commands = parser.add_subparsers(dest="command", required=True)

    record = commands.add_parser(
        "record", help="run the original (in its JAX environment) and save reference tensors"
    )
    record.add_argument("--upstream", type=Path, help="checkout of the original")
    record.add_argument(
        "--programs",
        type=int,
        metavar="N",
        help="instead: run N drawn programs of transforms and streams on today's JAX",
    )
    record.add_argument(
        "--older-draws",
        action="store_true",
        help="instead: draws on JAX 0.4.13, which must be installed",
    )
    record.add_argument(
        "--derivatives", action="store_true", help="instead: derivatives by the JAX installed here"
    )
    record.add_argument("--out", type=Path, help="folder to write (default: parity/reference)")
    record.add_argument(
        "--only", nargs="+", metavar="GROUP", help="record only these groups and keep the others"
    )

    record.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="processes of --programs"
    )

    check = commands.add_parser("check", help="run the port on the saved cases and compare")
    check.add_argument(
        "--only",
        help="a group, the beginning of case names (group/name), or several: random,update; "
        "programs are those of transforms and streams",
    )
    check.add_argument("--case", metavar="GROUP/NAME", help="one case, by its whole name")
    check.add_argument(
        "--explain",
        action="store_true",
        help="replay that case and name the first tensor, in order of computation, out of bounds",
    )
    check.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: one per core)"
    )
    check.add_argument(
        "--mode",
        choices=("eager", "compiled", "vmapped", "all"),
        default="eager",
        help="how the port runs (compiled: one example of the cases with similar programs)",
    )
    check.add_argument(
        "--every",
        action="store_true",
        help="compile every case and vmap long runs too (takes an hour)",
    )
    check.add_argument("--device", default="cpu", help="cpu (the default) or cuda")
    check.add_argument("--json", type=Path, help="write every figure to this file too")
    check.add_argument("--junit", type=Path, help="write a JUnit report to this file too")
    check.add_argument("--reference", type=Path, help="folder to read (default: parity/reference)")

    live = commands.add_parser("live", help="run the original and the port side by side")
    live.add_argument("--upstream", type=Path, help="checkout of the original")
    live.add_argument("--reference-python", type=Path, help="Python of the JAX environment")
    live.add_argument(
        "--programs",
        type=int,
        metavar="N",
        help="instead: N drawn programs of transforms and streams, beside the JAX installed here",
    )
    live.add_argument(
        "--derivatives",
        action="store_true",
        help="instead: the table of derivatives, beside the JAX installed here",
    )
    live.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="processes of --programs"
    )
    live.add_argument("--double-steps", type=int, default=1000, help="double-precision updates")
    live.add_argument("--float-steps", type=int, default=25, help="float32 updates")
    live.add_argument("--pixel-steps", type=int, default=5, help="float32 updates from pixels")
    live.add_argument("--size", choices=("small", "default"), default="small", help="networks")
    live.add_argument("--learner", help="one learner and its variants: td3, pixel_bc, …")
    live.add_argument("--only", help="the beginning of case names: td3-dropout, sac-float32, …")
    live.add_argument(
        "--seeds", type=int, metavar="N", help="instead run N random settings of all learners"
    )
    live.add_argument("--first-seed", type=int, default=0, metavar="S", help="draw from S, S+1, …")
    live.add_argument("--mode", choices=("eager", "compiled", "vmapped"), default="eager")
    live.add_argument(
        "--curve",
        type=Path,
        metavar="FILE",
        help="compare all parameters after 1, 2, 5, 10, … double-precision updates; write to FILE",
    )
    live.add_argument(
        "--keep",
        type=Path,
        metavar="FOLDER",
        help="keep the original's tensors, and reuse those that exist",
    )
    live.add_argument("--json", type=Path, help="write every figure to this file too")

    mutate = commands.add_parser("mutate", help="plant bugs in the port: the check must find each")
    mutate.add_argument("--only", metavar="NAME", help="one bug, or the beginning of names")
    mutate.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: one per core)"
    )
    mutate.add_argument("--json", type=Path, help="write every verdict to this file too")
    mutate.add_argument("--full", action="store_true", help="do not stop at the first failure")
    mutate.add_argument("--no-control", action="store_true", help="do not run the unchanged port")
    mutate.add_argument("--reference", type=Path, help="folder to read (default: parity/reference)")

    report = commands.add_parser("report", help="write an HTML page with the results")
    report.add_argument(
        "--figures",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="output of `check --json` and `live --json` (default: run the check now)",
    )
    report.add_argument(
        "--mode",
        choices=("eager", "compiled", "vmapped", "all"),
        default="eager",
        help="how to run the check, as check --mode",
    )
    report.add_argument("--only", help="what to check, as check --only")
    report.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: one per core)"
    )
    report.add_argument("--mutations", type=Path, metavar="FILE", help="output of `mutate --json`")
    report.add_argument("--out", type=Path, default=Path("report.html"), help="page to write")
    report.add_argument("--png", type=Path, help="also write the charts as an image")
    report.add_argument("--reference", type=Path, help="folder to read (default: parity/reference)")

    covered = commands.add_parser(
        "coverage", help="list every public name of the original and the case that covers it"
    )
    covered.add_argument(
        "--table",
        nargs="?",
        const="-",
        metavar="FILE",
        help="print a Markdown table of modules instead, or put it between the markers of FILE",
    )
    covered.add_argument(
        "--reference", type=Path, help="folder to read (default: parity/reference)"
    )

    worker = commands.add_parser("live-worker", help="the original's part of `live`")
    worker.add_argument("--upstream", type=Path, required=True)
    worker.add_argument("--cases", type=Path, required=True)
    worker.add_argument("--out", type=Path, required=True)
    return parser


def _explain(args: argparse.Namespace) -> int:
    from parity.explain import explain_command
    from parity.store import REFERENCE

    if args.case is None:
        raise ValueError("--explain needs --case GROUP/NAME: it explains one case")
    return explain_command(args.case, args.reference or REFERENCE, args.mode, args.device)


def _check(args: argparse.Namespace) -> int:
    """The recorded cases, then the recorded programs; or the chosen ones of either."""
    from parity.checking import check_command
    from parity.conformance import command
    from parity.store import REFERENCE

    directory = args.reference or REFERENCE
    if args.case is not None and args.case.startswith(f"{command.GROUP}/"):
        return 0 if command.show_program(args.case, directory) else 1
    status = 0
    if args.only != command.GROUP:
        status = check_command(
            directory,
            args.only,
            args.json,
            args.mode,
            args.jobs,
            args.case,
            args.every,
            args.device,
            args.junit,
        )
    everything = args.only is None and args.case is None and command.is_recorded(directory)
    if (everything or args.only == command.GROUP) and not command.check_programs(
        directory, args.jobs
    ):
        status = 1
    return status


def _require(args: argparse.Namespace, *options: str) -> None:
    """Raise an error if an option is missing that the original needs."""
    for option in options:
        if getattr(args, option.removeprefix("--").replace("-", "_")) is None:
            raise ValueError(f"{option} is needed, unless --programs or --derivatives is given.")


def main(argv: list[str] | None = None) -> int:
    """Run one command: 0 if all tensors are within bounds, 1 if not, 2 on bad input."""
    args = _parser().parse_args(argv)
    try:
        match args.command:
            case "record":
                from parity.store import REFERENCE

                if args.programs is not None:
                    from parity.conformance.command import record_programs

                    record_programs(args.programs, args.out or REFERENCE, args.jobs)
                    return 0
                if args.older_draws:
                    from parity.conformance.command import record_older

                    record_older(args.out or REFERENCE)
                    return 0
                if args.derivatives:
                    from parity.derivatives import record as record_derivatives

                    record_derivatives(args.out or REFERENCE)
                    return 0
                from parity.recording import record

                _require(args, "--upstream")
                record(args.upstream, args.out or REFERENCE, args.only)
                return 0
            case "check":
                return _explain(args) if args.explain else _check(args)
            case "live":
                if args.programs is not None:
                    from parity.conformance.command import live_programs

                    return 0 if live_programs(args.programs, args.first_seed, args.jobs) else 1
                if args.derivatives:
                    from parity.derivatives import TABLE_MODES, live

                    modes = {"compiled": ("compiled",), "vmapped": ("vmap",)}
                    return 0 if live(modes.get(args.mode, TABLE_MODES), args.only) else 1
                from parity.live import live_command

                _require(args, "--upstream", "--reference-python")
                return live_command(args)
            case "report":
                from parity.report import report_command

                return report_command(args)
            case "mutate":
                from parity.mutate import mutate_command
                from parity.store import REFERENCE

                return mutate_command(
                    args.only,
                    args.jobs,
                    args.json,
                    args.full,
                    not args.no_control,
                    args.reference or REFERENCE,
                )
            case "coverage":
                from parity.coverage import coverage_command, table_command
                from parity.store import REFERENCE

                if args.table is not None:
                    path = None if args.table == "-" else Path(args.table)
                    return table_command(path, args.reference or REFERENCE)
                return coverage_command(args.reference or REFERENCE)
            case _:
                from parity.original.process import worker

                worker(args.upstream, args.cases, args.out)
                return 0
    except (ValueError, FileNotFoundError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
