"""The style sheet of the drift report's page: light and dark, phone and print; no fonts and no files from elsewhere."""

STYLE = """
:root{color-scheme:light dark;--paper:#f6f7f9;--card:#fff;--ink:#16202c;--soft:#515e6d;--line:#dfe4ea;--accent:#0b6a71;
--pass:#0a6b37;--pass-soft:#e2f3e9;--fail:#a61b35;--fail-soft:#fde8ec;--more:#7a4f00;--more-soft:#fbf0d9;
--none:#4a5765;--none-soft:#eaedf1;--gain:#d9eef0;--h0:#eff2f5;--h1:#fbeadb;--h2:#f6c9b8;--h3:#eda493;
--run1:#0b6a71;--run2:#a8500f;--run3:#6a3fa0;--run4:#a61b55;--run5:#3d6b12}
@media(prefers-color-scheme:dark){:root{--paper:#0f141a;--card:#171e26;--ink:#e6ebf1;--soft:#a3b0be;--line:#2b3541;
--accent:#4fc3cb;--pass:#6fdca0;--pass-soft:#143324;--fail:#ff9cab;--fail-soft:#421a24;--more:#f0c069;--more-soft:#3a2c10;
--none:#b0bcc8;--none-soft:#252e38;--gain:#123d42;--h0:#222b35;--h1:#3d2e22;--h2:#5f3024;--h3:#833226;
--run1:#4fc3cb;--run2:#f0a060;--run3:#bc9cf0;--run4:#f48fb8;--run5:#a5d26a}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif}
header,main,footer,nav{max-width:1240px;margin:0 auto;padding:0 28px}
header{padding-top:44px}
.kicker{color:var(--accent);font-size:13px;font-weight:600;letter-spacing:.06em;text-transform:uppercase;margin:0 0 8px}
h1{font-size:28px;line-height:1.25;margin:0 0 10px;letter-spacing:-.02em;max-width:34em;text-wrap:pretty}
h2{font-size:20px;margin:52px 0 6px;letter-spacing:-.01em;scroll-margin-top:12px}
h3{font-size:16px;margin:0;overflow-wrap:anywhere}
p{margin:0 0 10px;max-width:72ch}
.lead{color:var(--soft);margin-bottom:14px}
.facts{display:flex;flex-wrap:wrap;gap:14px 25px;margin:24px 0 22px}
.facts div{display:flex;flex-direction:column}
.facts dd{margin:0;font-weight:650;font-size:18px;line-height:1.25;font-variant-numeric:tabular-nums;
overflow-wrap:anywhere}
.facts dt{font-size:13px;color:var(--soft);order:2}
.note{border-left:3px solid var(--accent);padding:2px 0 2px 14px;color:var(--soft);font-size:13.5px}
nav{display:flex;flex-wrap:wrap;gap:4px 20px;margin-top:22px;font-size:13.5px}
a{color:var(--accent);text-underline-offset:3px}
nav a{padding:3px 0;text-decoration:none}nav a:hover{text-decoration:underline}
.card{background:var(--card);border:1px solid var(--line);border-radius:14px;padding:20px 22px;margin:14px 0}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums;font-size:14px}
th{font-weight:500;color:var(--soft);text-align:left;font-size:12.5px;vertical-align:bottom;padding:0 14px 8px 0}
td{padding:12px 14px 12px 0;border-top:1px solid var(--line);vertical-align:middle}
td:last-child,th:last-child{padding-right:0}
tbody th{color:var(--ink);font-size:14px;font-weight:600;border-top:1px solid var(--line);padding:12px 16px 12px 0;
vertical-align:middle;white-space:nowrap}
tbody th small{max-width:13em;white-space:normal}
small{color:var(--soft);font-size:12.5px;font-weight:400;display:block;line-height:1.4}
.num{white-space:nowrap}
.unseen{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%);white-space:nowrap}
.chip{display:inline-flex;align-items:center;gap:7px;border-radius:99px;padding:3px 12px 3px 4px;font-size:12.5px;
font-weight:650;letter-spacing:.01em;line-height:1.25;white-space:nowrap;border:1.5px solid currentColor}
.chip i{font-style:normal;flex:none;width:19px;height:19px;border-radius:50%;background:currentColor;display:grid;
place-items:center}
.chip i b{color:var(--card);font-size:12px;line-height:1}
.pass{color:var(--pass);background:var(--pass-soft)}.fail{color:var(--fail);background:var(--fail-soft)}
.more{color:var(--more);background:var(--more-soft);border-style:dashed}
.none{color:var(--none);background:var(--none-soft);border-style:dotted}
.plot{display:block;width:100%;height:auto;overflow:visible;font-family:inherit}
td .plot{width:230px;max-width:100%}
.legend{display:flex;flex-wrap:wrap;gap:6px 20px;font-size:12.5px;color:var(--soft);margin:14px 0 0}
.legend b{color:var(--ink)}
.key{display:inline-block;vertical-align:middle;margin-right:7px;width:22px;height:0}
.key.span{border-top:3px solid var(--soft);border-radius:2px}
.key.margin{width:0;height:13px;border-left:2px dashed var(--fail)}
.key.zero{width:0;height:13px;border-left:1.5px solid var(--soft)}
.key.allowed{height:12px;background:var(--pass-soft);border:1px solid var(--line)}
.swatch{display:inline-block;width:14px;height:14px;border-radius:4px;vertical-align:-2px;margin-right:6px;
border:1px solid var(--line)}
.gain{background:var(--gain)}.h0{background:var(--h0)}.h1{background:var(--h1)}.h2{background:var(--h2)}
.h3{background:var(--h3)}
.title{display:flex;flex-wrap:wrap;align-items:center;gap:8px 14px;margin-bottom:8px}
.matrix{overflow-x:auto;margin:0 0 4px}
.matrix table{width:auto;border-collapse:separate;border-spacing:3px;margin-left:-3px}
.matrix th{padding:2px 8px 4px;white-space:nowrap;text-align:center}
.matrix thead th:first-child{text-align:left}
.matrix tbody th{border:0;text-align:left;padding:0 14px 0 0;font-weight:500;font-size:13.5px}
.matrix tbody th small{display:inline;margin-left:8px}
.matrix .group th{font-weight:650;color:var(--ink);padding:12px 0 2px}
.matrix td{border:0;border-radius:7px;padding:6px 10px;min-width:86px;text-align:center;line-height:1.3}
.matrix td b{font-size:13.5px;font-weight:600;white-space:nowrap}
.matrix td.blank{color:var(--soft)}
.matrix td.tiny{color:var(--soft);font-size:12.5px}
.claims{margin:10px 0 0;padding:0;list-style:none;font-size:14px}
.claims li{padding-left:20px;position:relative;margin:4px 0;max-width:84ch}
.claims li::before{content:"";position:absolute;left:4px;top:9px;width:6px;height:6px;border-radius:50%;
background:var(--accent)}
.charts{display:grid;gap:20px 28px}
.charts.many{grid-template-columns:repeat(auto-fill,minmax(min(100%,250px),1fr))}
.charts.wide{grid-template-columns:repeat(auto-fill,minmax(min(100%,330px),1fr))}
.charts.two{grid-template-columns:repeat(auto-fit,minmax(min(100%,360px),1fr))}
.charts .plot{max-width:440px}
figure{margin:0}figcaption{color:var(--soft);font-size:13px;margin-top:6px;overflow-wrap:anywhere}
.flips{display:grid;gap:14px;grid-template-columns:repeat(auto-fill,minmax(min(100%,460px),1fr));margin:14px 0}
.flip{background:var(--card);border:1px solid var(--line);border-radius:14px;padding:16px;display:flex;gap:16px}
.shown{flex:none;width:128px;display:grid;gap:8px;align-content:start}
.shown img{display:block;width:100%;height:auto;border-radius:8px;background:#000}
.told{flex:1;min-width:0}.told p{margin:4px 0 8px;font-size:13.5px;overflow-wrap:anywhere}
.told .asked{font-size:14.5px;font-weight:550;max-height:9em;overflow:hidden}
.told ul{list-style:none;margin:0 0 8px;padding:0;font-size:13.5px;font-variant-numeric:tabular-nums}
.told li{display:grid;grid-template-columns:16px minmax(0,1.25fr) minmax(0,1fr) 54px;gap:8px;padding:4px 0;
border-top:1px solid var(--line);align-items:baseline;overflow-wrap:anywhere}
.told li span:last-child{text-align:right;color:var(--soft)}
.told li b{font-weight:600}.told li i{font-style:normal;font-weight:700}
.told li.harm i,.told li.harm b{color:var(--fail)}.told li.heal i,.told li.heal b{color:var(--pass)}
details{margin-top:12px}
summary{cursor:pointer;color:var(--accent);font-size:13.5px;font-weight:550;padding:4px 0;width:max-content;
max-width:100%}
:focus-visible{outline:2px solid var(--accent);outline-offset:3px;border-radius:4px}
.scroll,.stack,.matrix{position:relative}.scroll,.stack{overflow-x:auto}
details .scroll{margin-top:10px}
details .lead{margin-top:16px}
.dense td,.dense tbody th,details td,details tbody th{padding-top:8px;padding-bottom:8px;font-size:13.5px}
main dl{display:grid;grid-template-columns:max-content 1fr;gap:14px 20px;margin:0;align-items:start}
main dd{margin:0;max-width:76ch}
.reading{padding-left:20px;margin:0;max-width:84ch}.reading li{margin:6px 0}
code{font:12px/1.45 ui-monospace,SFMono-Regular,Menlo,monospace;overflow-wrap:anywhere;color:var(--soft)}
.hashes{margin:16px 0 0;max-width:none}
footer{color:var(--soft);font-size:13px;padding-top:36px;padding-bottom:56px}
@media(max-width:860px){
header,main,footer,nav{padding-left:16px;padding-right:16px}
header{padding-top:28px}
h1{font-size:23px}h2{margin-top:42px}
.facts{gap:12px 28px}.facts dd{font-size:17px}
.card{padding:16px}
.stack thead{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
.stack table,.stack tbody,.stack tr,.stack td,.stack tbody th{display:block;width:100%}
.stack tr{border-top:1px solid var(--line);padding:14px 0}
.stack tbody tr:first-child{border-top:0;padding-top:0}
.stack td,.stack tbody th{border:0;padding:3px 0}
.stack tbody th{font-size:16px;padding-bottom:4px;white-space:normal;overflow-wrap:anywhere}
.stack tbody th small{max-width:none}
.stack td[data-label]{display:grid;grid-template-columns:118px 1fr;gap:12px;align-items:baseline;white-space:normal}
.stack td[data-label]::before{content:attr(data-label);color:var(--soft);font-size:12.5px}
.stack td.wide{grid-template-columns:1fr;gap:2px}
.stack td:empty{display:none}
.matrix tbody th{position:sticky;left:0;background:var(--card);padding-right:8px;font-size:13px}
.matrix tbody th small{display:block;margin:0;font-size:11.5px}
.matrix td{min-width:72px;padding:6px}
.flip{padding:14px;display:block}.shown{width:112px;margin-bottom:10px}td .plot{width:100%}
main dl{grid-template-columns:1fr;gap:6px}main dd{margin-bottom:12px}
}
@media print{:root{--paper:#fff}body{font-size:12px}nav{display:none}.card,.flip,figure{break-inside:avoid}
.card,.flip{border-color:#bbb}h2{break-after:avoid}
details::details-content{content-visibility:visible;block-size:auto;height:auto}summary{display:none}
header,main,footer{max-width:none;padding-left:0;padding-right:0}
*{print-color-adjust:exact;-webkit-print-color-adjust:exact}}
"""
