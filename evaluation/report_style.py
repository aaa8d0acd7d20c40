"""The style sheet of the drift report's page: light and dark, phone and print; no fonts and no files from elsewhere."""

STYLE = """
:root{color-scheme:light dark;--paper:#f6f7f9;--card:#fff;--ink:#16202c;--soft:#566372;--line:#dfe4ea;--accent:#0b6e75;
--pass:#0a6b37;--pass-soft:#e2f3e9;--fail:#a61b35;--fail-soft:#fde8ec;--more:#805300;--more-soft:#fbf0d9;
--none:#4d5a68;--none-soft:#eaedf1;--margin:#a61b35}
@media(prefers-color-scheme:dark){:root{--paper:#0f141a;--card:#171e26;--ink:#e6ebf1;--soft:#9dabba;--line:#2b3541;
--accent:#4fc3cb;--pass:#6fdca0;--pass-soft:#143324;--fail:#ff9cab;--fail-soft:#421a24;--more:#f0c069;--more-soft:#3a2c10;
--none:#b0bcc8;--none-soft:#252e38;--margin:#ff9cab}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif}
header,main,footer{max-width:1240px;margin:0 auto;padding:0 28px}
header{padding-top:44px}
.kicker{color:var(--accent);font-size:13px;font-weight:600;letter-spacing:.06em;text-transform:uppercase;margin:0 0 8px}
h1{font-size:28px;line-height:1.25;margin:0 0 10px;letter-spacing:-.02em;max-width:34em;text-wrap:pretty}
h2{font-size:20px;margin:48px 0 6px;letter-spacing:-.01em}
h3{font-size:17px;margin:0;overflow-wrap:anywhere}
p{margin:0 0 10px;max-width:72ch}
.lead{color:var(--soft);margin-bottom:22px}
.facts{display:flex;flex-wrap:wrap;gap:14px 30px;margin:24px 0 22px}
.facts b{display:block;font-size:20px;line-height:1.2;font-variant-numeric:tabular-nums;overflow-wrap:anywhere}
.facts span{font-size:13px;color:var(--soft)}
.note{border-left:3px solid var(--accent);padding:2px 0 2px 14px;color:var(--soft);font-size:13.5px}
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
.chip{display:inline-flex;align-items:center;gap:7px;border-radius:99px;padding:3px 12px 3px 4px;font-size:12.5px;
font-weight:650;letter-spacing:.01em;line-height:1.25;white-space:nowrap;border:1.5px solid currentColor}
.chip i{font-style:normal;flex:none;width:19px;height:19px;border-radius:50%;background:currentColor;display:grid;
place-items:center}
.chip i b{color:var(--card);font-size:12px;line-height:1}
.pass{color:var(--pass);background:var(--pass-soft)}.fail{color:var(--fail);background:var(--fail-soft)}
.more{color:var(--more);background:var(--more-soft);border-style:dashed}
.none{color:var(--none);background:var(--none-soft);border-style:dotted}
.forest{display:block;width:100%;min-width:150px;height:34px;overflow:visible}
.forest .axis{stroke:var(--line);stroke-width:1}
.forest .zero{stroke:var(--soft);stroke-width:1}
.forest .margin{stroke:var(--margin);stroke-width:1.5;stroke-dasharray:3 3}
.forest .span{stroke:currentColor;stroke-width:3;stroke-linecap:round}
.forest line{vector-effect:non-scaling-stroke}
.forest .dot{stroke:currentColor;stroke-width:10;stroke-linecap:round}
.forest .allowed{fill:var(--pass);opacity:.08}
.pass-ink{color:var(--pass)}.fail-ink{color:var(--fail)}.more-ink{color:var(--more)}.none-ink{color:var(--none)}
.legend{display:flex;flex-wrap:wrap;gap:6px 22px;font-size:12.5px;color:var(--soft);margin:12px 0 0}
.legend svg{display:inline;min-width:0;width:26px;height:12px;vertical-align:-1px;margin-right:6px}
.title{display:flex;flex-wrap:wrap;align-items:center;gap:8px 14px;margin-bottom:10px}
.matrix{overflow-x:auto;margin:16px 0 4px}
.matrix table{width:auto;border-collapse:separate;border-spacing:4px;margin-left:-4px}
.matrix th{padding:2px 8px 4px;text-align:center;white-space:nowrap}
.matrix tbody th{border:0;text-align:right;padding:0 10px 0 0;font-weight:500;color:var(--soft);font-size:13px}
.matrix td{border:1.5px solid transparent;border-radius:9px;padding:6px 10px;min-width:82px;text-align:center;
line-height:1.25}
.matrix td.pass,.matrix td.fail,.matrix td.more,.matrix td.none{border-color:currentColor}
.matrix td.more{border-style:dashed}.matrix td.none{border-style:dotted}
.matrix td b{font-size:14px;white-space:nowrap}
.matrix td small{color:inherit;opacity:.85;font-size:11.5px}
.matrix td.blank{color:var(--line)}
.matrix td.tiny{color:var(--soft);border:1.5px solid var(--line)}
.claims{margin:10px 0 0;padding:0;list-style:none;font-size:14px}
.claims li{padding-left:20px;position:relative;margin:4px 0;max-width:84ch}
.claims li::before{content:"";position:absolute;left:4px;top:9px;width:6px;height:6px;border-radius:50%;
background:var(--accent)}
details{margin-top:12px}
summary{cursor:pointer;color:var(--accent);font-size:13.5px;font-weight:550;padding:4px 0;width:max-content;
max-width:100%}
summary:focus-visible{outline:2px solid var(--accent);outline-offset:3px;border-radius:4px}
details .scroll{overflow-x:auto;margin-top:10px}
.stack{overflow-x:auto}
details td,details tbody th{padding-top:8px;padding-bottom:8px;font-size:13.5px}
dl{display:grid;grid-template-columns:max-content 1fr;gap:14px 20px;margin:16px 0 0;align-items:start}
dd{margin:0;max-width:76ch}
.reading{padding-left:20px;max-width:84ch}.reading li{margin:6px 0}
code{font:12px/1.45 ui-monospace,SFMono-Regular,Menlo,monospace;overflow-wrap:anywhere;color:var(--soft)}
footer{color:var(--soft);font-size:13px;padding-top:36px;padding-bottom:56px}
@media(max-width:860px){
header,main,footer{padding-left:16px;padding-right:16px}
header{padding-top:28px}
h1{font-size:24px}
.facts{gap:12px 28px}.facts b{font-size:19px}
.card{padding:16px}
.stack thead{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
.stack table,.stack tbody,.stack tr,.stack td,.stack tbody th{display:block;width:100%}
.stack tr{border-top:1px solid var(--line);padding:14px 0}
.stack tbody tr:first-child{border-top:0;padding-top:0}
.stack td,.stack tbody th{border:0;padding:3px 0}
.stack tbody th{font-size:17px;padding-bottom:4px;white-space:normal;overflow-wrap:anywhere}
.stack tbody th small{max-width:none}
.stack td[data-label]{display:grid;grid-template-columns:118px 1fr;gap:12px;align-items:baseline}
.stack td[data-label]::before{content:attr(data-label);color:var(--soft);font-size:12.5px}
.stack td.wide{grid-template-columns:1fr;gap:2px}
.stack td:empty{display:none}
.matrix tbody th{position:sticky;left:0;background:var(--card);padding-right:8px;font-size:12px}
.matrix td{min-width:60px;padding:5px 6px}.matrix td small{display:none}.matrix td.tiny{font-size:12px}
dl{grid-template-columns:1fr;gap:6px}dd{margin-bottom:12px}
}
@media print{:root{--paper:#fff}body{font-size:12px}.card{break-inside:avoid;border-color:#bbb}details>*{display:block}
header,main,footer{max-width:none;padding-left:0;padding-right:0}}
"""
