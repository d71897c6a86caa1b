"""Draws an outage: what requests got, how long they took and how many connections the server had, side by side."""

from __future__ import annotations

import html
import io
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import matplotlib
import matplotlib.patches
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .load import NOTHING

LABELS = {"200": "200", "503": "503, come again", "500": "500, an error", NOTHING: "nothing within 10 s"}
LONGEST_SECONDS = 10.0


@dataclass(frozen=True)
class Theme:
    paper: str
    ink: str
    faint: str
    band: str
    kinds: dict[str, str]

    def colours(self) -> dict[str, str]:
        """Every colour by a name for it."""
        named = {"paper": self.paper, "ink": self.ink, "faint": self.faint, "band": self.band}
        return named | {f"answer-{kind}": colour for kind, colour in self.kinds.items()}


# Told apart by brightness, too.
LIGHT = Theme(
    paper="#ffffff", ink="#1f2430", faint="#d9dce3", band="#eceef3",
    kinds={"200": "#3a9b7c", "503": "#f0b43c", "500": "#c8324b", NOTHING: "#4b4f63"},
)  # fmt: skip
DARK = Theme(
    paper="#14161c", ink="#e4e7ee", faint="#343945", band="#22262f",
    kinds={"200": "#3fa886", "503": "#f2bd52", "500": "#e5566c", NOTHING: "#8d93a8"},
)  # fmt: skip


@dataclass
class Recording:
    """One set-up; times in seconds since the beginning of the recording."""

    name: str
    answers: list[tuple[float, float, str]] = field(default_factory=list)
    """When asked, how long it took, what came."""
    sessions: list[tuple[float, int]] = field(default_factory=list)


@dataclass
class Outage:
    """The same outage for every set-up: away from `begins` until `ends`, seen for `length` seconds."""

    begins: float
    ends: float
    length: float
    pool: dict[str, Any]
    per_second: float
    date: str
    versions: str
    recordings: list[Recording] = field(default_factory=list)

    def counted(self, recording: Recording) -> Counter[str]:
        return Counter(kind for _, _, kind in recording.answers)

    def back_seconds(self, recording: Recording) -> float | None:
        """From the moment the server accepted again until the first 200."""
        times = [asked + took for asked, took, kind in recording.answers if kind == "200" and asked + took > self.ends]
        return min(times) - self.ends if times else None

    def median_while_away(self, recording: Recording) -> float:
        """Half of those that asked while it was away waited longer."""
        took = sorted(took for asked, took, _ in recording.answers if self.begins + 1 < asked < self.ends - 1)
        return took[len(took) // 2] if took else float("nan")


def draw(outage: Outage, theme: Theme) -> Figure:
    """Return the picture."""
    with matplotlib.rc_context({
        "font.size": 10.5, "text.color": theme.ink, "axes.labelcolor": theme.ink, "axes.edgecolor": theme.faint,
        "xtick.color": theme.ink, "ytick.color": theme.ink, "axes.facecolor": theme.paper, "svg.hashsalt": "outage",
        "axes.spines.top": False, "axes.spines.right": False, "figure.facecolor": theme.paper,
    }):  # fmt: skip
        figure = Figure(figsize=(12, 7.2))
        axes = figure.subplots(
            3, len(outage.recordings), sharex=True, sharey="row", squeeze=False,
            gridspec_kw={"height_ratios": [1.5, 1.4, 0.9], "hspace": 0.22, "wspace": 0.06,
                         "left": 0.065, "right": 0.985, "top": 0.9, "bottom": 0.115},
        )  # fmt: skip
        for column, recording in enumerate(outage.recordings):
            top, middle, bottom = axes[:, column]
            _answers(top, outage, recording, theme)
            _latency(middle, recording, theme)
            _sessions(bottom, recording, theme)
            for each in (top, middle, bottom):
                each.axvspan(outage.begins, outage.ends, color=theme.band, zorder=0, linewidth=0)
                each.set_xlim(0, outage.length)
                each.tick_params(length=0)
            top.set_title(recording.name, loc="left", fontsize=15, fontweight="bold", pad=24)
            top.text(0, 1.035, summary(outage, recording), transform=top.transAxes, fontsize=10.5)
            bottom.set_xlabel("seconds")
            bottom.text(
                (outage.begins + outage.ends) / 2, 0.5, f"PostgreSQL is away for {outage.ends - outage.begins:.0f} s",
                transform=bottom.get_xaxis_transform(), ha="center", va="center", fontsize=10.5,
            )  # fmt: skip
        axes[0][0].set_ylabel("answers to what was\nasked in this second")
        axes[1][0].set_ylabel("seconds until the answer")
        axes[2][0].set_ylabel("connections of\nthe server")
        handles = [matplotlib.patches.Patch(color=theme.kinds[kind], label=LABELS[kind]) for kind in LABELS]
        figure.legend(
            handles=handles, loc="lower center", ncols=len(handles), frameon=False, handlelength=1, fontsize=10.5
        )
    return figure


def summary(outage: Outage, recording: Recording) -> str:
    """Return the outcome in a line."""
    counted = outage.counted(recording)
    bad = [f"{counted[kind]} × {kind}" for kind in ("503", "500", NOTHING) if counted[kind]]
    back = outage.back_seconds(recording)
    when = f"first 200 {back:.1f} s after PostgreSQL was back" if back is not None else "no 200 any more"
    return f"{', '.join(bad) or 'only 200s'}; {when}"


def _answers(axes: Axes, outage: Outage, recording: Recording, theme: Theme) -> None:
    counted = Counter((int(asked), kind) for asked, _, kind in recording.answers)
    seconds = range(int(outage.length))
    below = [0] * len(seconds)
    for kind in LABELS:
        heights = [counted[second, kind] for second in seconds]
        middles = [second + 0.5 for second in seconds]
        axes.bar(middles, heights, width=0.86, bottom=below, color=theme.kinds[kind], zorder=2)
        below = [low + height for low, height in zip(below, heights, strict=True)]
    axes.set_ylim(0, outage.per_second * 1.05)


def _latency(axes: Axes, recording: Recording, theme: Theme) -> None:
    for kind in LABELS:
        points = [(asked, min(took, LONGEST_SECONDS)) for asked, took, found in recording.answers if found == kind]
        axes.scatter(
            [x for x, _ in points], [y for _, y in points], s=7, color=theme.kinds[kind], zorder=2, linewidths=0
        )
    axes.set_yscale("log")
    axes.set_ylim(0.001, 16)
    axes.set_yticks([0.001, 0.01, 0.1, 1, 10], ["0.001", "0.01", "0.1", "1", "10"])
    axes.minorticks_off()
    axes.grid(axis="y", color=theme.faint, linewidth=0.6, zorder=1)


def _sessions(axes: Axes, recording: Recording, theme: Theme) -> None:
    times, counts = [at for at, _ in recording.sessions], [count for _, count in recording.sessions]
    axes.step(times, counts, where="post", color=theme.ink, linewidth=1.6, zorder=3)
    axes.fill_between(times, counts, step="post", color=theme.ink, alpha=0.12, zorder=2, linewidth=0)
    axes.set_ylim(bottom=0)
    axes.yaxis.get_major_locator().set_params(integer=True)


def page(outage: Outage) -> str:
    """Return the picture as one HTML file, light or dark as its reader likes, with the figures as a table."""
    heads = ["", *LABELS.values(), "median answer while away", "first 200 after it was back"]
    rows = []
    for recording in outage.recordings:
        counted, back = outage.counted(recording), outage.back_seconds(recording)
        cells = [*(str(counted[kind]) for kind in LABELS), f"{outage.median_while_away(recording):.3f} s",
                 "never" if back is None else f"{back:.2f} s"]  # fmt: skip
        rows.append(f"<tr><th>{html.escape(recording.name)}</th>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    return _PAGE.format(
        away=f"{outage.ends - outage.begins:.0f} s",
        svg=_svg(outage),
        light=_variables(LIGHT),
        dark=_variables(DARK),
        heads="".join(f"<th>{html.escape(head)}</th>" for head in heads),
        rows="\n".join(rows),
        how=html.escape(
            f"{outage.per_second:g} requests a second, whether or not earlier ones have been answered, to each of two "
            f'gunicorn processes of 64 threads, with OPTIONS["pool"] = {outage.pool} in both. The client gives up '
            f"after {LONGEST_SECONDS:g} s. {outage.versions}, {outage.date}."
        ),
    )


def _variables(theme: Theme) -> str:
    return " ".join(f"--{name}: {colour};" for name, colour in theme.colours().items())


def _svg(outage: Outage) -> str:
    """Return the light picture with variables in the place of its colours, so that the page decides on them."""
    output = io.StringIO()
    draw(outage, LIGHT).savefig(output, format="svg", metadata={"Date": None})
    svg = output.getvalue()
    opening, rest = svg[svg.index("<svg") :].split(">", 1)
    opening = re.sub(r' (?:width|height)="[^"]*"', "", opening)
    for name, colour in LIGHT.colours().items():
        rest = rest.replace(colour, f"var(--{name})")
    # Half the size; a factor below 1 is that of the letters.
    rest = re.sub(r"\b(\d*[1-9]\d*\.\d\d)\d+", r"\1", rest)
    return f'{opening} role="img" aria-label="The figures are in the table below.">{rest}'


_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>PostgreSQL is away for {away}</title>
<style>
  :root {{ {light} }}
  @media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}
  body {{ margin: 0 auto; max-width: 75rem; padding: 1.5rem; font: 16px/1.5 system-ui, sans-serif;
         color: var(--ink); background: var(--paper); }}
  h1 {{ font-size: 1.4rem; margin: 0 0 .5rem; }}
  svg {{ width: 100%; height: auto; display: block; }}
  .wide {{ overflow-x: auto; }}
  table {{ border-collapse: collapse; margin: 1rem 0; }}
  th, td {{ padding: .3rem .8rem; border-bottom: 1px solid var(--faint); text-align: right; }}
  th:first-child {{ text-align: left; }}
</style>
<h1>The same load on both while PostgreSQL is away for {away}</h1>
{svg}
<div class="wide"><table>
<tr>{heads}</tr>
{rows}
</table></div>
<p>{how} <code>make outage</code> draws it anew.</p>
</html>
"""
