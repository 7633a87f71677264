// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace polysketch {

/// The report's style sheet. The eight colours stay apart for colour-blind readers, on white and on
/// near black.
inline constexpr const char* report_style = R"css(
:root{color-scheme:light dark;--paper:#fff;--ink:#1c1f24;--soft:#5c6570;--rule:#dfe3e8;--panel:#f6f7f9;
--c0:#0b63b5;--c1:#c2480a;--c2:#0a7f5c;--c3:#a8328d;--c4:#8a6a00;--c5:#1d8fb8;--c6:#b3261e;--c7:#555}
@media (prefers-color-scheme:dark){:root{--paper:#14171b;--ink:#e7eaee;--soft:#9aa4b0;--rule:#2d333b;--panel:#1b1f25;
--c0:#62aefc;--c1:#ff9d5c;--c2:#4fd1a5;--c3:#ec8fd6;--c4:#e3c14c;--c5:#7ad7f5;--c6:#ff8a80;--c7:#b8bfc8}}
*{box-sizing:border-box}
body{margin:0 auto;padding:2rem 1.25rem 4rem;max-width:1240px;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,"DejaVu Sans",sans-serif}
h1{font-size:1.7rem;margin:0 0 .2rem}h2{font-size:1.15rem;margin:2.4rem 0 .8rem}h3{font-size:1rem;margin:1.4rem 0 .4rem}
p.lead{margin:0;color:var(--soft)}
.plots{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,520px),1fr));gap:1.1rem}
.three{grid-template-columns:repeat(auto-fill,minmax(min(100%,340px),1fr));margin-top:1.1rem}
figure{margin:0;padding:.9rem .9rem .5rem;background:var(--panel);border:1px solid var(--rule);border-radius:8px}
figcaption{display:flex;flex-wrap:wrap;gap:.1rem 1rem;align-items:baseline;margin-bottom:.3rem}
figcaption b{margin-right:auto}
.key{font-size:.82rem;color:var(--soft);white-space:nowrap}
.key i{display:inline-block;width:1.3em;height:0;margin-right:.4em;vertical-align:.28em;border-top:2.5px solid currentColor}
.key i.dot{width:.6em;height:.6em;border:0;border-radius:50%;background:currentColor;vertical-align:.02em}
.key i.diamond{width:.6em;height:.6em;border:0;background:currentColor;transform:rotate(45deg);vertical-align:.02em}
.key i.mark{width:0;height:1em;border:0;border-left:1.5px dashed currentColor;vertical-align:-.15em}
svg{display:block;width:100%;height:auto}
.key.c0 i{color:var(--c0)}.key.c1 i{color:var(--c1)}.key.c2 i{color:var(--c2)}.key.c3 i{color:var(--c3)}
.key.c4 i{color:var(--c4)}.key.c5 i{color:var(--c5)}.key.c6 i{color:var(--c6)}.key.c7 i{color:var(--c7)}
.scroll{overflow-x:auto}
table{border-collapse:collapse;font-size:.92rem;font-variant-numeric:tabular-nums}
th,td{padding:.28rem .9rem .28rem 0;text-align:left;vertical-align:top;border-bottom:1px solid var(--rule)}
thead th{border-bottom:2px solid var(--soft)}tbody th{font-weight:400;color:var(--soft);white-space:nowrap}
.list td+td{white-space:nowrap}.list td:first-child{min-width:13rem}
.beside{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,520px),1fr));gap:0 1.1rem}
tr.differs td{font-weight:600}
pre{margin:.5rem 0;padding:.9rem;background:var(--panel);border:1px solid var(--rule);border-radius:8px;overflow-x:auto;white-space:pre-wrap;font-size:.86rem;line-height:1.5}
details{margin:.6rem 0}summary{cursor:pointer;color:var(--soft)}
.narrow{display:none}
@media (max-width:560px){body{padding:1rem .8rem 2rem}figure{padding:.6rem .5rem .3rem}.wide{display:none}
.narrow{display:block;max-width:460px;margin:auto}tbody th{white-space:normal}}
@media print{body{max-width:none}figure{break-inside:avoid}}
)css";

/// What the pictures in it need.
inline constexpr const char* plot_style = R"css(
svg text{font:12.5px system-ui,"DejaVu Sans",sans-serif;fill:var(--soft)}
.grid{stroke:var(--rule);stroke-width:1}.axis{stroke:var(--soft);stroke-width:1;fill:none}
.line,.faint,.dashed{fill:none;stroke-width:1.7;stroke-linejoin:round;vector-effect:non-scaling-stroke}
.faint{stroke-width:1;opacity:.3}.dashed{stroke-width:1.1;stroke-dasharray:4 3;opacity:.8}
.mark{stroke-width:1;stroke-dasharray:2 3;opacity:.7}
path.c0,line.c0{stroke:var(--c0)}path.c1,line.c1{stroke:var(--c1)}path.c2,line.c2{stroke:var(--c2)}path.c3,line.c3{stroke:var(--c3)}
path.c4,line.c4{stroke:var(--c4)}path.c5,line.c5{stroke:var(--c5)}path.c6,line.c6{stroke:var(--c6)}path.c7,line.c7{stroke:var(--c7)}
path.marker,.marker{stroke:var(--panel);stroke-width:1}
circle.c0,.diamond.c0{fill:var(--c0)}circle.c1,.diamond.c1{fill:var(--c1)}circle.c2,.diamond.c2{fill:var(--c2)}circle.c3,.diamond.c3{fill:var(--c3)}
circle.c4,.diamond.c4{fill:var(--c4)}circle.c5,.diamond.c5{fill:var(--c5)}circle.c6,.diamond.c6{fill:var(--c6)}circle.c7,.diamond.c7{fill:var(--c7)}
)css";

}  // namespace polysketch
