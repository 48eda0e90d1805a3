"""The style sheet of the page of a diagnosis: light and dark, on paper and on a phone."""

from __future__ import annotations

STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --faint: #5d6878; --paper: #fff; --box: #f4f6f9;
  --line: #d8dee7; --good: #2b7a4b; --frames: #5b9bd5; --bad: #c62f2f; --doubt: #b8730a;
  --ahead: #c9d2de; --edge: #33597f; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e9f0; --faint: #9aa6b8; --paper: #14181f;
  --box: #1c222c; --line: #333c4a; --good: #5fbf86; --frames: #4380b8; --bad: #f0605f;
  --doubt: #e0a13c; --ahead: #3b4555; --edge: #8fb6dc; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 68rem; padding: 1.5rem 1rem 4rem; background: var(--paper);
  color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.4rem; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.05rem; margin: 2rem 0 .6rem; }
p { margin: .4rem 0; }
.faint { color: var(--faint); }
.verdict { display: inline-block; margin: .7rem 0 1rem; padding: .3rem .8rem; border-radius: .4rem;
  font-weight: 600; color: #fff; background: #2b7a4b; }
.verdict.bad { background: #c62f2f; } .verdict.doubt { background: #96600b; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .6rem; }
.card { background: var(--box); border: 1px solid var(--line); border-radius: .4rem;
  padding: .5rem .8rem; }
.card b { display: block; font-size: 1.25rem; font-variant-numeric: tabular-nums;
  overflow-wrap: anywhere; }
.card b.bad { color: var(--bad); }
.card span { color: var(--faint); font-size: .85rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1.2rem; margin: 1rem 0; }
dt { color: var(--faint); } dd { margin: 0; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .25rem 1.2rem .25rem 0; border-bottom: 1px solid var(--line);
  vertical-align: middle; }
th { color: var(--faint); font-weight: 500; font-size: .85rem; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td.map { width: 42%; min-width: 14rem; padding-right: 0; }
svg { display: block; width: 100%; height: 1.1rem; border-radius: .2rem; background: var(--box); }
.header, .footer { fill: var(--edge); } .frames { fill: var(--frames); }
.damage { fill: var(--bad); } .torn { fill: var(--doubt); }
.behind, .unwritten { fill: var(--ahead); }
.strip { display: flex; flex-wrap: wrap; gap: 2px; margin: .5rem 0 1rem; }
.strip i { width: .7rem; height: .7rem; border-radius: .12rem; background: var(--frames); }
.strip i.active { outline: 2px solid var(--edge); outline-offset: -2px; }
.strip i.damaged, .strip i.missing { background: var(--bad); }
.strip i.torntail { background: var(--doubt); } .strip i.left, .strip i.empty {
  background: var(--ahead); }
.key { display: flex; flex-wrap: wrap; gap: .3rem 1.1rem; color: var(--faint); font-size: .85rem;
  margin-bottom: .6rem; }
.key i { display: inline-block; width: .7rem; height: .7rem; border-radius: .12rem;
  margin-right: .35rem; }
.state-damaged, .state-missing, .weight-damage { color: var(--bad); font-weight: 600; }
.weight-warning { color: var(--doubt); font-weight: 600; } .weight-note { color: var(--faint); }
code { font: .92em ui-monospace, monospace; overflow-wrap: anywhere; }
ul { padding-left: 1.2rem; margin: .3rem 0; } li { margin: .25rem 0; overflow-wrap: anywhere; }
@media (max-width: 40rem) { dl { grid-template-columns: 1fr; } dt { margin-top: .4rem; } }
@media print { body { max-width: none; } .verdict { print-color-adjust: exact; } }
"""
