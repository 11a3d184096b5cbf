"""The report as HTML: a single file without scripts that loads nothing; charts are inline SVG.

The same figures give the same bytes.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from parity.bounds import KINDS, promised
from parity.coverage import Row
from parity.reporting import charts, panels, style, summary
from parity.reporting.charts import percent
from parity.reporting.summary import Entry, Figures, share
from parity.tables import figure

# --- the pieces of a page -------------------------------------------------------------------


def _table(
    head: Sequence[str], rows: Iterable[tuple[Sequence[str], bool]], left: int, long: int = -1
) -> str:
    """A table that scrolls; ``left`` columns of text, then numbers; bad rows are marked.

    The column ``long`` holds sentences.
    """

    def cell(tag: str, place: int, text: str) -> str:
        sort = ' class="long"' if place == long else "" if place < left else ' class="n"'
        return f"<{tag}{sort}>{html.escape(text)}</{tag}>"

    lines = ["<tr>" + "".join(cell("th", i, text) for i, text in enumerate(head)) + "</tr>"]
    for texts, bad in rows:
        mark = ' class="bad"' if bad else ""
        lines.append(
            f"<tr{mark}>" + "".join(cell("td", i, t) for i, t in enumerate(texts)) + "</tr>"
        )
    return '<div class="wide"><table>\n' + "\n".join(lines) + "\n</table></div>"


def _folded(title: str, content: str) -> str:
    return f"<details><summary>{html.escape(title)}</summary>\n{content}\n</details>"


def _section(title: str, text: str, content: str) -> str:
    return f"<h2>{html.escape(title)}</h2>\n<p>{html.escape(text)}</p>\n{content}"


def _listed(words: Sequence[str]) -> str:
    """Words joined as in a sentence.

    >>> _listed(["eager", "compiled", "vmapped"])
    'eager, compiled and vmapped'
    """
    return " and ".join(part for part in (", ".join(words[:-1]), words[-1]) if part)


def verdict(figures: Figures) -> tuple[str, str]:
    """The first two lines of a report: how many cases pass, and the worst error."""
    every, passed = len(figures.entries), sum(entry.passed for entry in figures.entries)
    modes = figures.modes
    sorts = f"in mode{'s' if len(modes) > 1 else ''} {_listed(modes)}"
    line = f"{passed:,} of {every:,} cases within bounds, {sorts}"
    found = summary.worst(figures)
    if found is None:
        return line, "No tensor could be compared."
    entry, finding = found
    where = f"({entry.case}, {finding.tensor}{f', {entry.mode}' if len(modes) > 1 else ''})"
    part = share(finding)
    if part == 0:
        return line, "Every tensor is equal to the original's."
    if part == float("inf"):
        return line, f"Worst: beyond any bound, {finding.detail or 'not comparable'} {where}."
    return line, f"Worst: error at {percent(part)} of its bound {where}."


def _tiles(figures: Figures, mutations: Mapping[str, Any] | None, coverage: Sequence[Row]) -> str:
    findings = [finding for _, finding in figures.findings]
    equal = sum(finding.error == 0 for finding in findings)
    cases = len({entry.case for entry in figures.entries})
    modes = len(figures.modes)
    spent = (f"{mode} {seconds:.0f} s" for mode, seconds in figures.seconds.items())
    tiles = [
        (f"{cases:,} cases", f"in {len({e.group for e in figures.entries})} modules"),
        (f"{len(findings):,} tensors", f"{equal:,} of them without any error"),
        (f"{modes} mode{'s' if modes > 1 else ''}", ", ".join(spent) or _listed(figures.modes)),
    ]
    if mutations is not None:
        caught = sum(bool(result["caught"]) for result in mutations["results"])
        tiles.append((f"{caught} of {len(mutations['results'])}", "planted bugs caught"))
    if coverage:
        covered, exempt = (sum(r.state == s for r in coverage) for s in ("covered", "exempt"))
        tiles.append(
            (
                f"{covered} of {len(coverage) - exempt}",
                "public functions of the original with a case",
            )
        )
    body = "".join(
        f"<div><b>{html.escape(a)}</b><span>{html.escape(b)}</span></div>" for a, b in tiles
    )
    return f'<div class="tiles">{body}</div>'


def _failed(entry: Entry) -> list[str]:
    first = entry.first_failure
    if entry.crash or first is None:
        return [entry.case, entry.mode, entry.crash or "no tensors", *[""] * 5]
    bad = sum(not finding.passed for finding in entry.findings)
    return [
        entry.case,
        entry.mode,
        first.tensor,
        first.kind,
        figure(first.error),
        figure(first.bound),
        f"{bad} of {len(entry.findings)}",
        first.detail,
    ]


def _failures(figures: Figures) -> str:
    failed = [entry for entry in figures.entries if not entry.passed]
    if not failed:
        return ""
    head = ("case", "mode", "first failing tensor", "kind", "error", "bound", "out", "where")
    table = _table(head, ((_failed(entry), True) for entry in failed), 4, 7)
    return _section(
        "Failures", "For each case, the first failing tensor in order of computation.", table
    )


def _unchecked(figures: Figures) -> str:
    if not figures.unchecked:
        return ""
    items = "".join(f"<li>{html.escape(line)}</li>" for line in figures.unchecked)
    text = "The rounding of float32 alone reaches the bound of these cases, in any order of sums."
    return _section("Not checked", text, f"<ul>{items}</ul>")


def _room(figures: Figures) -> str:
    if summary.worst(figures) is None:
        return ""
    text = (
        "For each module and kind of bound, the tensor nearest to its bound, on a logarithmic "
        "scale; a hollow mark means no error at all. Errors of at least 10 % of the bound, and "
        "the largest of each column, are labelled."
    )
    svg = charts.svg(panels.room(figures), "Worst error of each module as a part of its bound")
    return _section("Room to the bound", text, f'<div class="wide">{svg}</div>')


def _growth(figures: Figures, curves: Sequence[Figures]) -> str:
    found = summary.growths(figures, curves)
    if not found:
        return ""
    parts = []
    for name, sort in (("float32", "single"), ("double precision", "double")):
        errors = [float(s.max()) for g in found.values() for s in getattr(g, sort)]
        if errors:
            bound = max(b for g in found.values() if (b := getattr(g, f"{sort}_bound")) > 0)
            parts.append(f"in {name} {figure(max(errors))} (bound {figure(bound)})")
    text = (
        f"The largest error of any loss or logged mean is {_listed(parts)}. Lines: the largest at "
        "each update, on logarithmic axes; shaded: down to the median of the nonzero errors. "
        "Each chart includes all cases and modes of a learner."
        if parts
        else ""
    )
    long = [(step, error) for g in found.values() for step, error in g.curve]
    if long:
        text += (
            f" Dotted: the largest error of any parameter, over up to {max(long)[0]:,} "
            f"updates {figure(max(error for _, error in long))}, as recorded with the original."
        )
    last = panels.last_step(found)
    drawn = (
        charts.svg(panels.run_growth(name, growth, last, i == 0), f"Error along runs of {name}")
        for i, (name, growth) in enumerate(found.items())
    )
    return _section(
        "Error along a run, by number of updates",
        text.strip(),
        f'<div class="grid runs">{"".join(drawn)}</div>',
    )


def _draws(figures: Figures) -> str:
    counts, exact = summary.ulp_counts(figures), summary.exact_streams(figures)
    if not counts and not exact:
        return ""
    parts, pieces = [], []
    for sort, by_case in counts.items():
        total = np.sum(list(by_case.values()), axis=0)
        off = int(np.flatnonzero(total).max(initial=0))
        beyond = "more than 4 ulp off at worst" if off == 5 else f"at most {off} ulp off"
        equal = "all equal" if off == 0 else f"{total[0] / total.sum():.1%} equal, {beyond}"
        parts.append(f"{sort}: {equal}")
        pieces.append(charts.svg(panels.ulps(sort, total), f"Histogram of ulp errors: {sort}"))
    if exact:
        same, every = (sum(pair[i] for pair in exact.values()) for i in (0, 1))
        parts.append(f"{same:,} of {every:,} tensors of keys, bits, uniforms and choices identical")
    text = "; ".join(parts) + ("." if parts else "")
    head = ("case or module", "0 ulp", "1", "2", "3", "4", "more")
    lines = [
        ([row, *(f"{int(c):,}" for c in by_row)], bool(by_row[5]))
        for by_case in counts.values()
        for row, by_row in by_case.items()
    ]
    tables = _folded("By case and module", _table(head, lines, 1)) if lines else ""
    streams = [
        ([name, f"{same:,}", f"{every:,}"], same < every) for name, (same, every) in exact.items()
    ]
    if streams:
        head = ("function", "tensors identical", "tensors")
        tables += _folded("Keys, bits, uniforms and choices, by function", _table(head, streams, 1))
    drawn = f'<div class="grid ulps">{"".join(pieces)}</div>'
    return _section(
        "Random streams and initial parameters", text[:1].upper() + text[1:], drawn + tables
    )


def _modules(figures: Figures) -> str:
    """One row for each group and kind, one column of errors for each mode."""
    head = ["module", "kind", "", "cases", "tensors", "no error"]
    head += [f"error, {mode}" for mode in figures.modes] if len(figures.modes) > 1 else ["error"]
    head += ["bound", "of bound", "absolute", "relative", "ulp", "measure"]
    found: dict[tuple[str, str], list[tuple[Entry, Any]]] = {}
    for entry, finding in figures.findings:
        found.setdefault((entry.group, finding.kind), []).append((entry, finding))
    lines = []
    for (group, kind), pairs in sorted(found.items(), key=lambda item: _rank(figures, *item[0])):
        findings = [finding for _, finding in pairs]
        passed = all(finding.passed for finding in findings)
        errors = [
            figure(max(of)) if (of := [f.error for e, f in pairs if e.mode == mode]) else ""
            for mode in figures.modes
        ]
        row = [
            group,
            kind,
            "✓" if passed else "✗",
            f"{len({entry.case for entry, _ in pairs}):,}",
            f"{len(findings):,}",
            f"{sum(f.error == 0 for f in findings):,}",
            *errors,
            figure(findings[0].bound),
            percent(max(map(share, findings))),
            *(
                figure(max(getattr(f, n) for f in findings))
                for n in ("absolute", "relative", "ulp")
            ),
            _unit(kind),
        ]
        lines.append((row, not passed))
    text = (
        "Worst errors by module and kind, over all cases. The error and its bound are in the "
        "measure of the kind; absolute, relative and ulp errors follow."
    )
    used = {kind for _, kind in found}
    promises = [
        ([k.name, figure(k.bound), k.unit, k.promise], False)
        for k in KINDS.values()
        if k.name in used
    ]
    kinds = _folded("What is promised", _table(("kind", "bound", "measure", ""), promises, 4, 3))
    return _section("Numbers by module", text, _table(head, lines, 3) + kinds)


def _rank(figures: Figures, group: str, kind: str) -> tuple[int, int]:
    groups = list(dict.fromkeys(entry.group for entry in figures.entries))
    kinds = [kind for kinds in summary.PROMISES.values() for kind in kinds]
    return groups.index(group), kinds.index(kind) if kind in kinds else len(kinds)


def _unit(kind: str) -> str:
    try:
        return promised(kind).unit
    except ValueError:
        return ""


def _flat(content: Mapping[str, Any], before: str = "") -> Iterable[tuple[str, str]]:
    for name, value in content.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name} ")
        else:
            yield f"{before}{name}", "" if value is None else str(value)


def _record(figures: Figures, manifest: Mapping[str, Any]) -> str:
    """The source of the reference: from the manifest and from the results."""
    upstream = manifest["upstream"]
    repository, commit = str(upstream["repository"]), str(upstream["commit"])
    link = f"https://github.com/{repository}/tree/{commit}"
    source = (
        f'<p>The original: <a href="{html.escape(link)}">{html.escape(repository)}</a> at '
        f"<code>{html.escape(commit)}</code>.</p>"
    )
    other = [r for r in figures.references if r.get("commit", commit) != commit]
    if other:
        parts = ", ".join(str(r["commit"])[:12] for r in other)
        source += (
            f"<p><strong>Some figures are of another commit: {html.escape(parts)}.</strong></p>"
        )
    names = ("command", "versions", "platform", "settings", "inputs")
    flat = _flat({name: manifest[name] for name in names if name in manifest})
    made = _table(("the record was made with", ""), (([a, b], False) for a, b in flat), 2, 1)
    files = _folded(
        f"Files of the record, with SHA-256 ({len(manifest['files'])})",
        _table(
            ("file", "SHA-256"),
            (([file["file"], file["sha256"]], False) for file in manifest["files"].values()),
            2,
        ),
    )
    return f"<h2>The record</h2>\n{source}\n{made}\n{files}"


def _checks(figures: Figures) -> str:
    """The environment of the check, and its seconds."""
    out = ""
    for environment in figures.environments:
        rows = (([a, b], False) for a, b in _flat(environment))
        out += _table(("the port was checked with", ""), rows, 2, 1)
    if figures.seconds:
        spent = {**figures.seconds, "elapsed time of all processes": figures.wall}
        rows = (([name, f"{seconds:.1f}"], False) for name, seconds in spent.items() if seconds)
        out += _table(("mode", "seconds"), rows, 1)
    return f"<h2>This check</h2>\n{out}" if out else ""


def mutations_section(content: Mapping[str, Any]) -> str:
    """A table of the results of ``python -m parity mutate --json``."""
    results = content["results"]
    caught = sum(bool(result["caught"]) for result in results)
    head = ("planted bug", "file", "caught", "by case", "message")
    rows = (
        (
            [
                str(result.get("bug") or result["name"]),
                str(result.get("file", "")),
                "✓" if result["caught"] else "✗",
                str(result.get("case", "")),
                str(result.get("message", "")),
            ],
            not result["caught"],
        )
        for result in results
    )
    text = (
        f"Bugs that ports have had or could have, planted one at a time: {caught} of "
        f"{len(results)} are caught."
    )
    return _section("Planted bugs", text, _table(head, rows, 5, 4))


def _coverage(rows: Sequence[Row]) -> str:
    covered, exempt = (sum(row.state == state for row in rows) for state in ("covered", "exempt"))
    text = (
        f"Of {len(rows)} public names of the original, recorded cases execute {covered}; "
        f"{exempt} are not numerical functions and have separate tests."
    )
    head = ("the original", "the port", "", "first case, or reason for none")
    lines = (
        (
            [row.name, row.port, row.state, row.note or next(iter(row.cases), "")],
            row.state not in ("covered", "exempt"),
        )
        for row in rows
    )
    return _section("Coverage", text, _folded("All names", _table(head, lines, 4, 3)))


def page(
    figures: Figures,
    manifest: Mapping[str, Any],
    curves: Sequence[Figures] = (),
    mutations: Mapping[str, Any] | None = None,
    coverage: Sequence[Row] = (),
) -> str:
    """The report.

    Args:
        figures: of one check or of several, as :func:`parity.summary.merged` makes them.
        manifest: of the record.
        curves: of long runs, drawn as they were recorded and not counted among the cases.
        mutations: the results of ``python -m parity mutate --json``.
        coverage: the public names of the original and the cases that execute them.
    """
    line, worst = verdict(figures)
    good = all(entry.passed for entry in figures.entries)
    body = "\n".join(
        (
            "<h1>Parity of the PyTorch port with the JAX original</h1>",
            f'<div class="verdict{"" if good else " bad"}"><strong>{"✓" if good else "✗"} '
            f"{html.escape(line)}</strong>{html.escape(worst)}</div>",
            _tiles(figures, mutations, coverage),
            _failures(figures),
            _unchecked(figures),
            _room(figures),
            _growth(figures, curves),
            _draws(figures),
            _modules(figures),
            "" if mutations is None else mutations_section(mutations),
            _coverage(coverage) if coverage else "",
            _record(figures, manifest),
            _checks(figures),
            "<footer>Made by <code>python -m parity report</code>.</footer>",
        )
    )
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Parity: {html.escape(line)}</title>\n<style>{style.css()}</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )
