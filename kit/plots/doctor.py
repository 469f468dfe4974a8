"""The doctor's page: verdicts with what was expected and found, the worst first, and the pictures that show why."""

import argparse
import base64
import sys
from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from kit.doctor.edges import GRID
from kit.doctor.report import WORST_FIRST, Curve, Images, Report, Verdict, read_report
from kit.files import one_line, write_text
from kit.plots.canvas import HEAT, INK, OUTCOMES, PALETTE, QUIET, legend, note, panels, plain, png, tidy, title
from kit.plots.pictures import Shot, show_shots, visible

TONES = {"well": OUTCOMES["correct"][0], "look": PALETTE[0], "wrong": OUTCOMES["false"][0]}
WORDS = {"well": "well", "look": "look at it", "wrong": "wrong"}
STYLE = f"""
:root {{color-scheme: light dark; --ink: light-dark({INK}, #e8e8e8); --page: light-dark(#fff, #181818);
  --quiet: light-dark(#666, #a5a5a5); --line: light-dark(#e2e2e2, #3a3a3a)}}
body {{font: 16px/1.45 system-ui, sans-serif; color: var(--ink); background: var(--page); max-width: 1120px;
  margin: 2rem auto; padding: 0 1rem}}
h1 {{font-size: 1.5rem; margin: 0}} h2 {{font-size: 1.15rem; margin: 2rem 0 .5rem}}
p {{margin: .2rem 0}} .quiet {{color: var(--quiet)}}
table {{border-collapse: collapse; width: 100%}}
th, td {{text-align: left; vertical-align: top; padding: .45rem .7rem; border-top: 1px solid var(--line);
  overflow-wrap: anywhere}}
th {{color: var(--quiet); font-weight: 400; font-size: .85rem; border: 0}}
.mark {{white-space: nowrap; font-weight: 700}}
.mark::before {{content: ""; display: inline-block; width: .7em; height: .7em; margin-right: .45em; border-radius: 50%;
  background: var(--tone)}}
.mend {{border-left: 3px solid var(--tone); padding-left: .6rem; margin-top: .3rem}}
.numbers {{width: auto}} .numbers td {{padding: .15rem .9rem .15rem 0; font-variant-numeric: tabular-nums; border: 0}}
img {{max-width: 100%; height: auto; background: #fff; display: block; margin: .6rem 0}}
"""


def write_doctor_page(report: Report, path: Path | str) -> Path:
    """One HTML file with its pictures in it, whole or not there."""
    return write_text(path, page_of(report))


def page_of(report: Report) -> str:
    ordered = sorted(report.verdicts, key=lambda verdict: WORST_FIRST.index(verdict.mark))
    rows = "".join(row_of(verdict) for verdict in ordered)
    head = "<tr><th>verdict</th><th>question</th><th>expected</th><th>found</th></tr>"
    counts = ", ".join(f"{sum(v.mark == mark for v in ordered)} {WORDS[mark]}" for mark in WORST_FIRST)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Doctor</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{STYLE}</style></head><body><h1>Doctor</h1>"
        f'<p class="quiet">{escape(one_line(report.about))}</p><p>{counts}</p>'
        f"<table>{head}{rows}</table>{''.join(sections(report))}</body></html>\n"
    )


def row_of(verdict: Verdict) -> str:
    mend = f'<p class="mend">{escape(one_line(verdict.mend))}</p>' if verdict.mend else ""
    expected, found = (escape(one_line(text)) for text in (verdict.expected, verdict.found))
    return (
        f'<tr style="--tone: {TONES[verdict.mark]}"><td class="mark">{WORDS[verdict.mark]}</td>'
        f"<td>{escape(verdict.question)}{mend}</td><td>{expected}</td><td>{found}</td></tr>"
    )


def sections(report: Report) -> list[str]:
    """Pictures and tables of what there is, each under the question that it answers."""
    found = []
    if "batch" in report.images:
        figure = show_boxes(report.images["batch"], report.names, "A batch as the model gets it, with its boxes")
        found.append(section("Do the boxes sit on the objects, and are the labels right?", picture(figure)))
    if "place" in report.maps:
        found.append(
            section("How well boxes fit the edges of the images, moved by so much", picture(plot_place(report)))
        )
    if "overfit ap" in report.curves:
        found.append(section("A few images learned by heart", picture(plot_overfit(report))))
    if "overfit" in report.images:
        figure = show_boxes(report.images["overfit"], report.names, "What was found on them at the end")
        found.append(picture(figure))
    if "rate" in report.curves:
        found.append(section("The loss while the learning rate rises", picture(plot_rates(report))))
    found += [section(TABLES[name], numbers(rows)) for name, rows in report.tables.items() if rows]
    return found


TABLES = {
    "loss": "The loss at the start, term by term: what it has to be, and what it is",
    "gradients": "Gradients after the first steps, by part",
}


def section(heading: str, content: str) -> str:
    return f"<h2>{escape(heading)}</h2>{content}"


def picture(figure: Figure) -> str:
    return f'<img alt="" src="data:image/png;base64,{base64.b64encode(png(figure)).decode()}">'


def numbers(rows: Sequence[dict[str, float | str]]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in rows[0])
    body = "".join(f"<tr>{''.join(f'<td>{cell(value)}</td>' for value in row.values())}</tr>" for row in rows)
    return f'<table class="numbers"><tr>{head}</tr>{body}</table>'


def cell(value: float | str) -> str:
    return escape(value) if isinstance(value, str) else f"{value:.4g}"


# --- pictures ---


def show_boxes(images: Images, names: Sequence[str], heading: str) -> Figure:
    """Boxes by class; a label that is no class is drawn with its number."""
    most = max((int(labels.max(initial=-1)) for labels in images.labels), default=-1)
    least = min((int(labels.min(initial=0)) for labels in images.labels), default=0)
    named = [*names, *(f"no class: {label}" for label in range(len(names), most + 1))]
    shots = []
    for image, boxes, labels in zip(images.images, images.boxes_xyxy_px, images.labels, strict=True):
        shown = labels if least >= 0 else np.where(labels < 0, len(named), labels)
        shots.append(Shot(visible(image), boxes, shown, f"{len(labels)} boxes"))
    return show_shots(shots, [*named, "no class"], heading, columns=4)


def plot_place(report: Report) -> Figure:
    """The fit by shift, the middle marked."""
    scores = report.maps["place"]
    cell, middle = 100 / GRID, scores.shape[0] // 2
    reach = cell * scores.shape[0] / 2
    figure, axes = panels(1, 1, (6.0, 5.0))
    shown = axes[0, 0].imshow(scores, cmap=HEAT, extent=(-reach, reach, reach, -reach))
    row, column = divmod(int(scores.argmax()), scores.shape[1])
    best = (cell * (column - middle), cell * (row - middle))
    axes[0, 0].plot(0, 0, "+", color="white", markersize=14, markeredgewidth=2, label="as they are")
    axes[0, 0].plot(*best, "o", color="white", markersize=10, fillstyle="none", markeredgewidth=2, label="best")
    tidy(axes[0, 0], x="boxes moved right (% of the width)", y="down (% of the height)")
    axes[0, 0].grid(visible=False)
    axes[0, 0].legend(fontsize=8, labelcolor="white", facecolor=INK, framealpha=0.7, edgecolor="none")
    figure.colorbar(shown, ax=axes[0, 0], label="change across the sides, 1 = the image's mean")
    title(figure, "The fit has its top in the middle where boxes are right")
    return figure


def plot_overfit(report: Report) -> Figure:
    figure, axes = panels(1, 2, (11, 3.4))
    for panel, name in zip(axes[0], ("overfit ap", "overfit loss"), strict=True):
        draw_curve(panel, report.curves[name], "wanted")
    axes[0, 0].set_ylim(0, 1.02)
    title(figure, "One fixed batch, no augmentation")
    return figure


def plot_rates(report: Report) -> Figure:
    figure, axes = panels(1, 1, (9, 3.6))
    draw_curve(axes[0, 0], report.curves["rate"], "")
    title(figure, "The loss falls as long as the rate is right")
    return figure


def draw_curve(axes: Axes, curve: Curve, level: str) -> None:
    if not curve.x:
        note(axes, "nothing that is finite")
        return
    if not curve.is_log_x:
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.plot(curve.x, curve.y, color=PALETTE[6], linewidth=1.8, marker="o" if len(curve.x) < 20 else None)
    if curve.level is not None:
        axes.axhline(curve.level, color=QUIET, linestyle="--", linewidth=1, label=f"{level} {curve.level:g}")
    if curve.marked_x is not None:
        axes.axvline(curve.marked_x, color=PALETTE[4], linestyle="--", label=f"planned {curve.marked_x:.1e}")
    if curve.is_log_x:
        axes.set_xscale("log")
    tidy(axes, x=plain(curve.label_x), y=plain(curve.label_y))
    legend(axes)


def main(arguments: Sequence[str] | None = None) -> int:
    """0: drawn; 2: it cannot be done."""
    parser = argparse.ArgumentParser(prog="python -m kit.plots.doctor", description=str(__doc__).partition("\n")[0])
    parser.add_argument("report", type=Path, help="folder that kit.doctor has written its report to")
    parser.add_argument("page", type=Path, help="HTML file")
    options = parser.parse_args(arguments)
    try:
        write_doctor_page(read_report(options.report), options.page)
    except (ValueError, OSError) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
