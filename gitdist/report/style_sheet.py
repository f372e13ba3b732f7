"""The page's style: one column on a phone, light or dark as the reader's system is, ink on white in print."""

STYLE = """
:root { --ink: #1c1e21; --paper: #ffffff; --soft: #5b6068; --line: #d5d8dd; --mark: #f2f5f9; --link: #0b5fa5; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8eaed; --paper: #15181c; --soft: #a4abb5; --line: #3a4049; --mark: #1f242b; --link: #7cbcf2; }
}
* { box-sizing: border-box; }
body { margin: 0; color: var(--ink); background: var(--paper); font: 1rem/1.5 system-ui, sans-serif; }
main { max-width: 76rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0.5rem 0 1rem; }
h2 { font-size: 1.25rem; margin: 2.2rem 0 0.6rem; border-bottom: 1px solid var(--line); }
.findings { background: var(--mark); padding: 0.8rem 1rem 0.8rem 2rem; margin: 0; border-radius: 0.4rem; }
.findings li + li { margin-top: 0.4rem; }
nav ul { display: flex; flex-wrap: wrap; gap: 0.2rem 1.2rem; list-style: none; padding: 0; }
a { color: var(--link); }
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 25rem), 1fr)); gap: 1.2rem; }
figure { margin: 0.6rem 0; min-width: 0; }
figure svg { display: block; width: 100%; max-width: 30rem; height: auto; }
figure.wide { grid-column: 1 / -1; }
figure img { display: block; max-width: 100%; height: auto; image-rendering: pixelated; background: #ffffff; }
figcaption { color: var(--soft); font-size: 0.9rem; max-width: 36rem; }
.scroll { overflow-x: auto; margin: 0.3rem 0 1.2rem; }
table { border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
.caption { color: var(--soft); font-size: 0.9rem; margin: 1rem 0 0; }
th, td { padding: 0.25rem 0.7rem; text-align: left; border-bottom: 1px solid var(--line); vertical-align: top; }
th { vertical-align: bottom; }
td { white-space: nowrap; }
.number { text-align: right; }
th:first-child, td:first-child { position: sticky; left: 0; background: var(--paper); padding-left: 0; }
summary { cursor: pointer; color: var(--link); }
dl { display: grid; grid-template-columns: minmax(7rem, max-content) 1fr; gap: 0.2rem 1rem; }
dt { font-weight: 600; }
dd { margin: 0; }
footer { color: var(--soft); font-size: 0.85rem; margin-top: 2rem; }
@media (max-width: 36rem) {
  dl { grid-template-columns: 1fr; }
  dd { margin-bottom: 0.4rem; }
  td:first-child { white-space: normal; min-width: 7rem; max-width: 9rem; }
}
@media print {
  :root { --ink: #000000; --paper: #ffffff; --soft: #333333; --line: #999999; --mark: #ffffff; --link: #000000; }
  @page { margin: 15mm; }
  body { font-size: 10pt; }
  nav, .folded { display: none; }
  main { max-width: none; padding: 0; }
  .figures { grid-template-columns: 1fr 1fr; }
  figure, tr { break-inside: avoid; }
  figure svg, figure img { max-height: 23cm; }
  h2 { break-after: avoid; }
  .scroll { overflow: visible; }
  table { font-size: 7.5pt; }
  th, td { padding: 0.15rem 0.35rem; white-space: normal; }
}
"""
