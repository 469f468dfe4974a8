"""What the demo page shows in words and colours: HTML of its cards and lines, and its style."""

from collections.abc import Mapping, Sequence
from html import escape

from kit.demo.models import SAME_IOU, Answer, above, agreeing
from kit.plots.canvas import class_colour, ink_on

MOST_CHIPS = 12
EQUAL_RATIO = 1.1  # of two latencies: less is noise

# Gradio's own variables, so that light and dark both fit.
STYLE = """
.gradio-container > .main {max-width: 1440px; width: 100%; margin: 0 auto}
.html-container {padding: 0 !important}
.kit-head h1 {font-size: 1.6rem; font-weight: 700; margin: 0}
.gradio-container {--kit-quiet: color-mix(in srgb, var(--body-text-color) 68%, var(--body-background-fill))}
.kit-head p {color: var(--kit-quiet); margin: .1rem 0 0}
.kit-row {display: flex; flex-wrap: wrap; align-items: baseline; gap: .1rem .7rem}
.kit-row + .kit-row {margin-top: .35rem; align-items: center; gap: .3rem 1.3rem; min-height: 2.1rem}
.kit-name {font-weight: 700; font-size: 1.1rem; overflow-wrap: anywhere}
.kit-quiet, .kit-figure {color: var(--kit-quiet); font-size: .9rem}
.kit-figure {white-space: nowrap}
.kit-figure b {color: var(--body-text-color); font-size: 1.5rem; font-weight: 700; font-variant-numeric: tabular-nums}
.kit-chips {display: flex; flex-wrap: wrap; gap: .3rem; align-items: center}
.kit-chip {padding: .1rem .55rem; border-radius: .3rem; font-size: .88rem}
.kit-line {--tone: var(--neutral-400); padding: .5rem .8rem; border-radius: .4rem; border-left: 4px solid var(--tone);
  background: color-mix(in srgb, var(--tone) 11%, var(--body-background-fill)); overflow-wrap: anywhere;
  min-height: 40px}
.kit-line.good {--tone: #009e73}
.kit-line.busy {--tone: #0072b2}
.kit-line.wrong {--tone: #d55e00}
#upload {min-height: 132px}
.kit-picture img, .kit-picture video {max-height: 78vh; object-fit: contain}
"""


def heading(models: int) -> str:
    what = "the model finds" if models == 1 else "each model finds"
    return (
        f'<div class="kit-head"><h1>Detection demo</h1><p>Drop an image or a video, and see what {what} in it. '
        "Files are read on this machine, kept for this page alone and deleted soon after.</p></div>"
    )


def line(text: str, kind: str = "") -> str:
    """One sentence under the controls. kind: good, busy, wrong, or nothing."""
    return f'<div class="kit-line {kind}" role="status">{escape(text)}</div>'


def card(name: str, about: str, figures: Mapping[str, str], chips: str) -> str:
    """Above a picture. figures: unit to number, both as shown."""
    numbers = "".join(
        f'<span class="kit-figure"><b>{escape(number)}</b> {escape(unit)}</span>' for unit, number in figures.items()
    )
    return (
        f'<div><div class="kit-row"><span class="kit-name">{escape(name)}</span><span class="kit-quiet">{escape(about)}'
        f'</span></div><div class="kit-row">{numbers}<span class="kit-chips">{chips}</span></div></div>'
    )


def class_chips(amounts: Mapping[int, str], names: Sequence[str]) -> str:
    """amounts: label to what is said of it; in the colours of the boxes."""
    if not amounts:
        return '<span class="kit-quiet">nothing at this threshold</span>'
    chips = [chip(names[label], amount, class_colour(label)) for label, amount in list(amounts.items())[:MOST_CHIPS]]
    rest = len(amounts) - MOST_CHIPS
    return "".join(chips) + (f'<span class="kit-quiet">and {rest} more classes</span>' if rest > 0 else "")


def chip(name: str, amount: str, colour: str) -> str:
    return (
        f'<span class="kit-chip" style="background:{colour};color:{ink_on(colour)}">{escape(f"{name} {amount}")}</span>'
    )


def milliseconds(latency_ms: float) -> str:
    return f"{latency_ms:.1f}" if latency_ms < 100 else f"{latency_ms:.0f}"


def comparison(a: Answer, b: Answer, threshold: float) -> str:
    """What the two models have in common, and which is the faster."""
    a_names, b_names = a.model.predictor.about.names, b.model.predictor.about.names
    a_found, b_found = above(a.detections, threshold), above(b.detections, threshold)
    same = agreeing(a_found, a_names, b_found, b_names)
    distinct = len(a_found.scores) + len(b_found.scores) - same
    boxes = f"The two agree on {same} of {distinct} boxes (same class, IoU of {SAME_IOU} or more)."
    return f"{boxes} {faster(a.model.name, a.latency_ms, b.model.name, b.latency_ms)}"


def faster(a: str, a_ms: float, b: str, b_ms: float) -> str:
    quick, ratio = (a, b_ms / a_ms) if a_ms < b_ms else (b, a_ms / b_ms)
    if ratio < EQUAL_RATIO:
        return "They are about equally fast."
    return f"{quick} is {ratio:.1f} times as fast."
