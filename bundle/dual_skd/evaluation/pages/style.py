# SPDX-License-Identifier: Apache-2.0
"""The one style of all pages: light and dark, on a screen, on a telephone and on paper.

Colours are variables. ``--c1`` to ``--c6`` are those of drawings, of Okabe and Ito 2008; in the dark they are lighter.
"""

STYLE = """
:root{color-scheme:light dark;--page:#fff;--ink:#1c2430;--soft:#55606e;--line:#d7dce2;--wash:#f4f6f8;
--shadow:rgba(28,36,48,.35);--link:#0067a3;--alarm:#b34700;
--c1:#0072b2;--c2:#d55e00;--c3:#009e73;--c4:#c26a9b;--c5:#b57b00;--c6:#2a93d0}
@media (prefers-color-scheme:dark){:root{--page:#14191f;--ink:#e4e8ed;--soft:#a3adb9;--line:#39424d;--wash:#1e252d;
--shadow:rgba(255,255,255,.28);--link:#79c0f0;--alarm:#ff9248;
--c1:#56a8e0;--c2:#f28a3c;--c3:#2fc497;--c4:#e29cc4;--c5:#f0b84a;--c6:#8accf2}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:1060px;padding:1.5rem 1.25rem 3rem;color:var(--ink);background:var(--page);
font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",Arial,sans-serif;overflow-wrap:break-word}
h1{font-size:1.75rem;line-height:1.2;margin:0 0 .35rem}
h2{font-size:1.3rem;line-height:1.3;margin:2.75rem 0 .5rem;padding-top:.6rem;border-top:2px solid var(--line)}
h3{font-size:1.05rem;margin:1.5rem 0 .25rem}
p{max-width:80ch;margin:.5rem 0}
a{color:var(--link)}
small,.limits,figcaption,.note,.how,.caption{color:var(--soft);font-size:.875rem}
.how{max-width:92ch;margin:.35rem 0 1rem}
.lead{font-size:1.2rem;line-height:1.45;margin:1rem 0}
.value{font-variant-numeric:tabular-nums;font-weight:600}
.limits{white-space:nowrap;font-variant-numeric:tabular-nums}
nav{display:flex;flex-wrap:wrap;gap:.25rem 1rem;font-size:.9rem;margin:1.25rem 0 0}
.warning{max-width:none;border-left:4px solid var(--alarm);background:var(--wash);padding:.5rem .75rem}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,215px),1fr));gap:.75rem;margin:1rem 0}
.card,.case{border:1px solid var(--line);border-radius:8px;padding:.7rem .9rem}
.card b{display:block;font-size:.875rem;font-weight:600}
.card .value{font-size:1.5rem}
.card p{margin:.3rem 0 0;font-size:.82rem;line-height:1.4;color:var(--soft)}
.scroll{overflow-x:auto;max-width:100%;margin:.75rem 0;scrollbar-width:thin;background:
linear-gradient(to right,var(--page) 40%,transparent) left/3rem 100% no-repeat local,
linear-gradient(to left,var(--page) 40%,transparent) right/3rem 100% no-repeat local,
linear-gradient(to right,var(--shadow),transparent) left/.9rem 100% no-repeat scroll,
linear-gradient(to left,var(--shadow),transparent) right/.9rem 100% no-repeat scroll}
table{border-collapse:collapse;font-size:.9rem}
th,td{padding:.3rem .7rem;text-align:left;vertical-align:top;border-bottom:1px solid var(--line);white-space:nowrap}
.words,td small{white-space:normal}
th.words{min-width:9rem;max-width:22rem}
td.words{min-width:14rem}
.dense td .limits{display:block}
.dense th,.dense td{padding:.3rem .42rem}
td small{display:inline-block;min-width:9rem}
thead th{font-weight:600;border-bottom:2px solid var(--line)}
tbody th{font-weight:400}
.matrix td{text-align:center;min-width:4.5rem;border:2px solid var(--page);print-color-adjust:exact;
-webkit-print-color-adjust:exact}
.matrix td small{display:block;min-width:0;color:inherit}
.matrix th{white-space:normal;max-width:9rem}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,330px),1fr));gap:1rem 2rem;margin:.75rem 0}
figure{margin:0;max-width:480px}
figure:only-child{max-width:none;display:grid;gap:.5rem 2rem;align-items:center;
grid-template-columns:repeat(auto-fit,minmax(min(100%,330px),1fr))}
figure svg{width:100%;height:auto;display:block;color:var(--ink)}
figcaption b{display:block;color:var(--ink)}
.cases{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,290px),1fr));gap:1rem;margin:.75rem 0}
.case{padding:.6rem;min-width:0;overflow-wrap:anywhere}
.case .pair{display:flex;gap:.4rem}
.case img{width:calc(50% - .2rem);height:auto;display:block;background:#000}
.case img.wide{width:100%}
.case .pair:has(.wide){flex-wrap:wrap}
.strip{display:flex;flex-wrap:wrap;gap:.4rem;margin:.25rem 0 .75rem}
.strip img{display:block;max-width:100%;height:auto;background:#000}
.case p{margin:.35rem 0 0;font-size:.88rem}
pre{background:var(--wash);padding:.6rem .8rem;white-space:pre-wrap;overflow-wrap:anywhere;font-size:.85rem}
details{margin:.75rem 0}
summary{cursor:pointer;color:var(--link)}
@media (max-width:600px){body{padding:1rem .75rem 2rem}h1{font-size:1.4rem}.lead{font-size:1.08rem}
th,td,.dense th,.dense td{padding:.3rem .4rem}td.words{min-width:11rem}th.words{min-width:6rem;max-width:9rem}
.matrix{font-size:.82rem}.matrix td{min-width:3.2rem}.matrix th{max-width:6.6rem}}
@page{size:A4;margin:16mm 15mm}
@media print{:root{color-scheme:light;--page:#fff;--ink:#000;--soft:#444;--line:#bbb;--wash:#f4f6f8;--link:#000;
--alarm:#b34700;--c1:#0072b2;--c2:#d55e00;--c3:#009e73;--c4:#c26a9b;--c5:#b57b00;--c6:#2a93d0}
html{font-size:9.5pt}body{max-width:none;font-size:1rem;padding:0}nav{display:none}h2{margin-top:1.5rem}
h1,h2,h3,section>p:not(.how):not(.note){break-after:avoid}.how,.note{break-before:avoid}
p,pre,ul,figure,.card,.case,tr,.scroll:not(:has(tr:nth-child(9))){break-inside:avoid}
thead{display:table-header-group}tr:first-child{break-after:avoid}tr:last-child{break-before:avoid}
.scroll{overflow:visible;background:none}th,td{white-space:normal}.card .limits{display:block}
th,td{padding:.2rem .35rem}.dense{font-size:.78rem}.dense th,.dense td{padding:.2rem .22rem}
.dense .limits{font-size:.88em}details table{font-size:.7rem;overflow-wrap:anywhere}
td.words,th.words,td small{min-width:0}.plots{grid-template-columns:1fr 1fr}
figure:only-child{grid-column:1/-1;grid-template-columns:2fr 3fr}.cards{grid-template-columns:repeat(4,1fr)}
.cases{grid-template-columns:repeat(3,1fr)}.whole{break-inside:avoid}
details:not([open]) summary::after{content:" (folded: open it on the screen to print it)";color:var(--soft)}}
"""
