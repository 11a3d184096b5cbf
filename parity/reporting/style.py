"""Colours and styles of the report, light and dark."""

from __future__ import annotations

from collections.abc import Mapping

# Okabe and Ito's palette, which colour-blind readers can tell apart, with marks that differ too.
COLOURS = {
    "ink": "#1c2126",
    "muted": "#5a6570",
    "grid": "#dde2e7",
    "stripe": "#f4f6f8",
    "page": "#fefefe",
    "bound": "#c4380d",
    "eager": "#0072b2",
    "compiled": "#d98b00",
    "vmapped": "#009e73",
    "single": "#a8528a",
    "double": "#2f8fc4",
}

_DARK = {
    "ink": "#e4e8ec",
    "muted": "#9aa6b2",
    "grid": "#2d343b",
    "stripe": "#1b2026",
    "page": "#13171b",
    "bound": "#ff7d52",
    "eager": "#5ab4ea",
    "compiled": "#f0b23a",
    "vmapped": "#30c79b",
    "single": "#dd93c5",
    "double": "#6cc0ee",
}

_CSS = """
body { margin: 0 auto; max-width: 1180px; padding: 1rem; background: var(--page);
  color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.15rem; margin: 0; color: var(--muted); font-weight: 600; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .2rem; }
p { margin: .3rem 0 .8rem; max-width: 48rem; }
a { color: var(--eager); }
code { font-size: .92em; overflow-wrap: anywhere; }
.verdict { border-left: 6px solid var(--good); padding: .1rem 0 .1rem .9rem; margin: .7rem 0; }
.verdict.bad { border-color: var(--bound); }
.verdict strong { display: block; font-size: 1.55rem; line-height: 1.25; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(13rem, 1fr)); gap: .7rem;
  margin: 1rem 0; }
.tiles div { background: var(--stripe); border-radius: 6px; padding: .55rem .8rem; }
.tiles b { display: block; font-size: 1.35rem; font-variant-numeric: tabular-nums; }
.tiles span { color: var(--muted); font-size: .88rem; overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
.wide > svg { min-width: 60rem; }
.grid { display: grid; gap: .4rem; }
.grid.runs { grid-template-columns: repeat(auto-fill, minmax(15.5rem, 1fr)); }
.grid.ulps { grid-template-columns: repeat(auto-fill, minmax(20rem, 1fr)); }
svg { display: block; max-width: 100%; height: auto; }
svg * { stroke-linejoin: round; stroke-linecap: butt; }
svg text { font-family: "DejaVu Sans", Verdana, sans-serif; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { padding: .16rem .5rem; text-align: left; vertical-align: top; white-space: nowrap; }
td.long { white-space: normal; min-width: 16rem; overflow-wrap: anywhere; }
th { color: var(--muted); font-weight: 600; border-bottom: 1px solid var(--muted); }
td { border-bottom: 1px solid var(--grid); }
.n { text-align: right; }
tr.bad td { color: var(--bound); font-weight: 600; }
summary { cursor: pointer; margin: .4rem 0; color: var(--muted); }
footer { margin: 2.5rem 0 1rem; color: var(--muted); font-size: .85rem; }
"""


def _variables(colours: Mapping[str, str]) -> str:
    return "".join(f"--{name}: {colour};" for name, colour in colours.items())


def css() -> str:
    """The page's style sheet."""
    light = _variables({**COLOURS, "good": "#00805c"})
    dark = _variables({**_DARK, "good": "#30c79b"})
    return (
        f":root {{ color-scheme: light dark; {light} }}\n"
        f"@media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}{_CSS}"
    )
