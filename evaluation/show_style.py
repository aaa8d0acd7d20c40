"""The style sheet of the dataset page: light and dark, no fonts and no files from elsewhere."""

STYLE = """
:root{color-scheme:light dark;--paper:#f6f7f9;--card:#fff;--ink:#16202c;--soft:#5d6b7a;--line:#dfe4ea;--accent:#0b6e75;
--right:#0b7a3e;--right-soft:#e3f4ea;--train:#0b6e75;--calibration:#8a5a00;--search:#6a3fa0;--test:#b02a4c}
@media(prefers-color-scheme:dark){:root{--paper:#0f141a;--card:#171e26;--ink:#e6ebf1;--soft:#94a3b3;--line:#2a3440;
--accent:#4fc3cb;--right:#62d394;--right-soft:#163325;--train:#4fc3cb;--calibration:#e0ac4e;--search:#b795ea;--test:#f0819c}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif}
header,main,footer{max-width:1240px;margin:0 auto;padding:0 24px}
header{padding-top:36px}
h1{font-size:30px;line-height:1.2;margin:0 0 14px;letter-spacing:-.02em}
h2{font-size:19px;margin:36px 0 12px;letter-spacing:-.01em}
h2 small,.question small{font-weight:400;font-size:13px;color:var(--soft)}
.facts{display:flex;flex-wrap:wrap;gap:10px 34px;margin-bottom:16px}
.facts b{display:block;font-size:22px;font-variant-numeric:tabular-nums;line-height:1.2}
.facts span{font-size:13px;color:var(--soft)}
.shares{display:flex;gap:3px;border-radius:8px;overflow:hidden}
.share{padding:4px 10px;font-size:12.5px;color:#fff;white-space:nowrap;min-width:max-content;background:var(--soft)}
@media(prefers-color-scheme:dark){.share{color:#0f141a}}
.share.train{background:var(--train)}.share.calibration{background:var(--calibration)}
.share.search{background:var(--search)}.share.test{background:var(--test)}
.scroll{overflow-x:auto}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:13.5px}
.matrix td,.matrix th{padding:6px 11px;text-align:right;font-weight:400}
.matrix th:first-child{text-align:left}
.matrix thead th,.matrix tfoot th{color:var(--soft)}
.matrix tbody td{background:color-mix(in srgb,var(--accent) var(--heat,0%),var(--card));border:2px solid var(--paper);
border-radius:6px;min-width:54px}
.matrix td.empty{color:var(--line)}
.matrix td.sum{background:none;color:var(--soft)}
a{color:inherit;text-decoration-color:var(--line);text-underline-offset:3px}
.plain{margin:8px 0;width:100%}
.plain td,.plain th{text-align:left;padding:5px 12px 5px 0;border-bottom:1px solid var(--line);font-weight:400}
.plain th{color:var(--soft)}
.plain .n{text-align:right;padding-right:24px}
summary{cursor:pointer;color:var(--soft);font-size:13px}
main>details{margin-top:20px}
.cards{columns:4 270px;column-gap:18px}
.card{break-inside:avoid;background:var(--card);border:1px solid var(--line);border-radius:12px;margin:0 0 18px;
overflow:hidden}
figure{margin:0;background:#000}
figure+figure{border-top:2px solid var(--card)}
img{display:block;width:100%;max-height:340px;object-fit:contain}
img.small{image-rendering:pixelated}
.context{margin:0;padding:12px 14px 0;color:var(--soft);font-size:13px;white-space:pre-wrap;max-height:180px;
overflow:auto}
.meta{display:flex;flex-wrap:wrap;gap:4px 8px;padding:9px 14px 0;font-size:12px;color:var(--soft);
overflow-wrap:anywhere}
.role{border:1px solid currentColor;border-radius:99px;padding:0 8px;line-height:18px}
.role.train{color:var(--train)}.role.calibration{color:var(--calibration)}
.role.search{color:var(--search)}.role.test{color:var(--test)}
.question{padding:10px 14px 12px}
.question+.question{border-top:1px solid var(--line)}
.question p{margin:2px 0 7px;font-weight:550;overflow-wrap:anywhere;white-space:pre-wrap}
.question p.long{font-weight:400;font-size:14px}
.task{font-size:12px;color:var(--accent)}
ul{list-style:none;margin:0 0 6px;padding:0;display:flex;flex-wrap:wrap;gap:5px}
li{border:1px solid var(--line);border-radius:7px;padding:1px 9px;font-size:13.5px;overflow-wrap:anywhere}
li.right{border-color:var(--right);background:var(--right-soft);color:var(--right)}
li.right::before{content:"\\2713\\00a0"}
.question details summary{font-size:11.5px;overflow-wrap:anywhere}
code{font:11.5px/1.45 ui-monospace,SFMono-Regular,Menlo,monospace;overflow-wrap:anywhere;color:var(--soft)}
footer{color:var(--soft);font-size:13px;padding-top:28px;padding-bottom:40px}
"""
