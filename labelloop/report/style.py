"""How the report looks: colours for light, dark and paper, and the style sheet."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True, kw_only=True)
class Palette:
    """Colours, ``#rrggbb``.

    Attributes:
        ground: Behind everything.
        surface: Behind cards, heads of tables and code.
        ink: Text.
        muted: Text that stands back.
        line: Rules and borders; never the only bearer of meaning.
        accent: Links, the guided model, what was predicted.
        second: The other one: the baseline, what was reported.
        good: Better.
        bad: Worse, and warnings.
        focus: The ring around what the keyboard is at.
    """

    ground: str
    surface: str
    ink: str
    muted: str
    line: str
    accent: str
    second: str
    good: str
    bad: str
    focus: str


LIGHT = Palette(
    ground="#fdfdfb", surface="#f1f3f0", ink="#1c211f", muted="#56605b", line="#d5dad5",
    accent="#0b6a5d", second="#8a4b12", good="#1c6b34", bad="#a32e12", focus="#1350c4",
)  # fmt: skip
DARK = Palette(
    ground="#121614", surface="#1c2220", ink="#e8ece9", muted="#a3aea8", line="#3a433f",
    accent="#5fd0bb", second="#e9a768", good="#7fd394", bad="#f29879", focus="#8ab4ff",
)  # fmt: skip


def contrast(first: str, second: str) -> float:
    """Contrast ratio of two colours, 1..21 (WCAG 2.2, "contrast ratio" and "relative luminance")."""
    lighter, darker = sorted((_luminance(first), _luminance(second)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def style_sheet() -> str:
    """The whole style sheet."""
    light, dark = _variables(LIGHT), _variables(DARK)
    return (
        f":root{{color-scheme:light dark;{light}}}\n"
        f"@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}\n{_RULES}"
    )


def _variables(palette: Palette) -> str:
    return "".join(f"--{name}:{colour};" for name, colour in asdict(palette).items())


_RULES = """\
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;scroll-behavior:smooth}
body{margin:0;background:var(--ground);color:var(--ink);
  font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","Liberation Sans",sans-serif;
  overflow-wrap:break-word}
main,header,footer,nav{max-width:68rem;margin:0 auto;padding:0 1.25rem}
header{padding-top:2.5rem}
header .kicker{color:var(--muted);margin:0;font-size:.9rem}
h1{font-size:2.1rem;line-height:1.15;margin:.1rem 0 .9rem;letter-spacing:-.015em}
h2{font-size:1.4rem;line-height:1.25;margin:0 0 .6rem;letter-spacing:-.01em}
h3{font-size:1.05rem;margin:1.8rem 0 .4rem}
section{border-top:1px solid var(--line);padding:1.9rem 0 1.4rem}
p{margin:.5rem 0;max-width:46rem}
ul{margin:.5rem 0;padding-left:1.2rem}
li{margin:.2rem 0;max-width:46rem}
a{color:var(--accent)}
code{font:.86em ui-monospace,SFMono-Regular,Menlo,Consolas,"Liberation Mono",monospace;
  background:var(--surface);border-radius:3px;padding:.08em .3em;overflow-wrap:anywhere}
.note{color:var(--muted);font-size:.9rem}
.lead{font-size:1.15rem;max-width:48rem}
.warn{color:var(--bad)}
.good{color:var(--good);font-weight:600}
.bad{color:var(--bad);font-weight:600}
.soft{color:var(--muted)}
:focus-visible{outline:3px solid var(--focus);outline-offset:2px;border-radius:2px}
nav ul{list-style:none;display:flex;flex-wrap:wrap;gap:.2rem 1.1rem;padding:0;margin:1.2rem 0 1.4rem}
nav li{margin:0}
.skip{position:absolute;left:-999px}
.skip:focus{left:1rem;top:1rem;background:var(--ground);padding:.4rem .7rem}
.cards{display:grid;
  grid-template-columns:repeat(auto-fit,minmax(11.5rem,1fr));gap:.8rem;margin:1.3rem 0 0;padding:0}
.cards div{background:var(--surface);border-radius:8px;padding:.8rem 1rem .85rem}
.cards dt{color:var(--muted);font-size:.86rem}
.cards dd{margin:0}
.cards .big{
  font-size:1.75rem;font-weight:650;line-height:1.25;font-variant-numeric:tabular-nums;display:block}
.cards .tag{white-space:normal;border-radius:.8em}
.cards .small{color:var(--muted);font-size:.84rem;display:block;line-height:1.4}
.facts{margin:.6rem 0;columns:3 17rem;column-gap:2.2rem}
.facts div{
  break-inside:avoid;
  display:flex;gap:.8rem;justify-content:space-between;border-bottom:1px solid var(--line);padding:.28rem 0}
.facts dt{color:var(--muted)}
.facts dd{margin:0;text-align:right;overflow-wrap:anywhere;min-width:0;font-variant-numeric:tabular-nums}
.scroll{overflow-x:auto;margin:.9rem 0}
table{border-collapse:collapse;width:100%;font-size:.93rem;font-variant-numeric:tabular-nums}
caption{text-align:left;color:var(--muted);font-size:.86rem;padding-bottom:.35rem}
th,td{text-align:left;vertical-align:top;padding:.4rem .8rem .4rem 0;border-bottom:1px solid var(--line)}
thead th{border-bottom:2px solid var(--line);color:var(--muted);font-weight:600;font-size:.86rem}
tbody th{font-weight:500}
th small{display:block;color:var(--muted);font-weight:400;line-height:1.4;max-width:34rem;
  font-size:.84rem}
.num tbody th{min-width:7.5rem}
.num td{white-space:nowrap}
.iv{color:var(--muted);font-size:.88em;margin-left:.4em}
.strip{width:12rem;height:auto;vertical-align:middle}
.metrics td>span:first-child{display:inline-block;min-width:13.5rem}
.metrics td{width:28rem}
.why{white-space:normal;color:var(--muted);font-size:.86em;display:inline-block;max-width:20rem}
.tag{display:inline-block;border:1px solid currentColor;border-radius:99px;padding:0 .5em;font-size:.78rem;
  color:var(--bad);white-space:nowrap}
figure{margin:0;min-width:0;break-inside:avoid}
figcaption{font-size:.88rem;color:var(--muted);line-height:1.45;margin-top:.35rem;max-width:34rem}
figcaption b{color:var(--ink);font-weight:600}
.plots{display:grid;
  grid-template-columns:repeat(auto-fit,minmax(min(100%,20rem),1fr));gap:1.6rem 2rem;margin:1rem 0}
.plots figure{max-width:27rem}
svg.plot{display:block;width:100%;height:auto;color:var(--ink)}
svg.plot text{font-family:inherit}
.pairs{display:grid;
  grid-template-columns:repeat(auto-fill,minmax(min(100%,27rem),1fr));gap:1.4rem 1.6rem;margin:.8rem 0}
.pair{display:grid;grid-template-columns:1fr 1fr;gap:.35rem}
.pair img{display:block;width:100%;height:auto;border-radius:4px}
.missing{border:1px dashed var(--line);border-radius:4px;padding:1rem;color:var(--muted);font-size:.9rem}
.key{display:flex;flex-wrap:wrap;gap:.3rem 1.2rem;list-style:none;padding:0;font-size:.9rem}
.key i{display:inline-block;width:.85em;height:.85em;border:3px solid;border-radius:50%;margin-right:.4em;
  vertical-align:-.08em}
details{border-top:1px solid var(--line);padding:.1rem 0}
summary{cursor:pointer;padding:.45rem 0;font-weight:600}
.inside{padding:.1rem 0 .8rem}
footer{color:var(--muted);font-size:.85rem;padding-bottom:3rem}
@media (max-width:40rem){
  header{padding-top:1.4rem}
  h1{font-size:1.6rem}
  .cards{grid-template-columns:repeat(2,minmax(0,1fr));gap:.6rem}
  .cards div{padding:.65rem .75rem}
  .cards .big{font-size:1.4rem}
  .num td{white-space:normal}
  .iv{display:block;margin-left:0;white-space:nowrap}
  .strip{display:block;width:6.5rem;margin-top:.3rem}
  .metrics td>span:first-child{min-width:0}
  .metrics td{width:auto}
  th,td{padding-right:.6rem}
  table{font-size:.88rem}
  .stacks,.stacks caption,.stacks tbody,.stacks tr,.stacks th{display:block}
  .stacks thead{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
  .stacks tr{border-bottom:1px solid var(--line);padding:.45rem 0 .5rem}
  .stacks th,.stacks td{border:0;padding:.1rem 0}
  .stacks tbody th{font-weight:600}
  .stacks td{display:flex;justify-content:space-between;gap:1rem;text-align:right}
  .stacks td::before{content:attr(data-label);color:var(--muted);text-align:left;flex:none;max-width:45%}
  .stacks .iv{display:inline;margin-left:.4em}
}
@media print{
  @page{margin:16mm 15mm}
  :root{--ground:#fff}
  body{font-size:10.5pt}
  header{padding-top:0}
  nav,.skip{display:none}
  main,header,footer{max-width:none;padding-left:0;padding-right:0}
  section{padding:1rem 0 .6rem}
  h2,h3,caption,thead{break-after:avoid}
  tr,figure,.cards div{break-inside:avoid}
  .scroll{overflow:visible}
  table{font-size:.85rem}
  th,td{padding-right:.5rem}
  .num tbody th{min-width:0}
  .num td{white-space:normal}
  .stacks .iv{display:block;margin-left:0;white-space:nowrap}
  .cards{grid-template-columns:repeat(auto-fit,minmax(7.2rem,1fr))}
  .plots,.pairs{grid-template-columns:1fr 1fr}
  details::details-content{content-visibility:visible;display:block;height:auto}
  *{print-color-adjust:exact;-webkit-print-color-adjust:exact}
}
"""
