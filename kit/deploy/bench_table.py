"""What a bench has measured: a row for each model, runtime and batch size; as text, CSV, JSON and picture."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from kit.files import write_json, write_text
from kit.plots.bench import plot_bench
from kit.plots.canvas import save_figure

NAN = float("nan")
KNEE_SHARE = 0.9  # of the best throughput; a larger batch gives little more, and makes each image wait longer


@dataclass(frozen=True, kw_only=True)
class Row:
    """One model in one runtime with one batch size. NaN where a figure was not asked for or cannot be had.

    Latencies are those of a whole batch: `model` without post-processing, `finished` with it, `decoded` from image
    files to boxes in their pixels. Memory is the most that it took, up to and with this batch size.
    """

    model: str
    size: str  # n, s, m, l, x
    runtime: str
    device: str
    precision: str
    input: str
    height_px: int
    width_px: int
    batch: int
    parameters: float
    gflop: float  # of one image, two operations for a multiplication with its sum
    model_p50_ms: float = NAN
    model_p90_ms: float = NAN
    model_p99_ms: float = NAN
    finished_p50_ms: float
    finished_p90_ms: float
    finished_p99_ms: float
    decoded_p50_ms: float
    decoded_p90_ms: float
    decoded_p99_ms: float
    images_per_s: float  # finished ones
    is_knee: bool = False  # the smallest batch that comes near the best throughput
    peak_mib: float = NAN  # of the whole process
    model_mib: float = NAN  # of it, since the libraries were loaded
    gpu_mib: float = NAN
    ap: float = NAN
    ap50: float = NAN
    f1: float = NAN  # official, at the one threshold that is best on these images


SHOWN = {  # column of the printed table: (from, digits)
    "GFLOP": ("gflop", 2),
    "model": ("model_p50_ms", 1),
    "p50": ("finished_p50_ms", 1),
    "p90": ("finished_p90_ms", 1),
    "p99": ("finished_p99_ms", 1),
    "decoded": ("decoded_p50_ms", 1),
    "images/s": ("images_per_s", 1),
    "MiB": ("peak_mib", 0),
    "GPU MiB": ("gpu_mib", 0),
    "AP": ("ap", 3),
    "AP50": ("ap50", 3),
    "F1": ("f1", 3),
}
KEY_LINE = (
    "one call with a whole batch, in ms: `model` without post-processing, p50 p90 p99 with it, `decoded` from files; "
    "* the knee: a larger batch gives little more; MiB: peak of a process that does nothing else"
)


@dataclass(frozen=True)
class Bench:
    """All rows of one run, what was measured on, and what was left out and why."""

    rows: Sequence[Row]
    machine: str
    notes: Sequence[str]

    def table(self) -> pd.DataFrame:
        """One row a Row, its fields as columns."""
        return pd.DataFrame([asdict(row) for row in self.rows])

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; None for what is not known."""
        return {"machine": self.machine, "notes": list(self.notes), "rows": [plain(asdict(row)) for row in self.rows]}

    def __str__(self) -> str:
        table = self.table()
        shown = pd.DataFrame({"detector": table["model"], "runtime": [told(row) for row in self.rows]})
        shown["px"] = [f"{row.height_px}x{row.width_px}" for row in self.rows]
        shown["batch"] = [f"{row.batch}{'*' if row.is_knee else ''}" for row in self.rows]
        shown["M par."] = [f"{row.parameters / 1e6:.2f}" for row in self.rows]
        for name, (column, digits) in SHOWN.items():
            if table[column].notna().any() and (table[column] != 0).any():
                shown[name] = ["-" if math.isnan(value) else f"{value:.{digits}f}" for value in table[column]]
        return "\n".join([self.machine, shown.to_string(index=False), KEY_LINE, *self.notes])


def told(row: Row) -> str:
    """A runtime with what is unusual about it."""
    words = [row.runtime, *([row.precision] if row.precision != "fp32" else [])]
    return " ".join(words + (["GPU"] if row.device == "cuda" else []))


def plain(values: dict[str, Any]) -> dict[str, Any]:
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in values.items()}


def with_knees(rows: Sequence[Row]) -> list[Row]:
    """Marks, in each series of batch sizes, the smallest that comes near the best throughput; none where there is but
    one size."""
    marked = []
    for row in rows:
        series = [each for each in rows if series_of(each) == series_of(row)]
        best = max(each.images_per_s for each in series)
        knee = min(each.batch for each in series if each.images_per_s >= KNEE_SHARE * best)
        marked.append(replace(row, is_knee=len(series) > 1 and row.batch == knee))
    return marked


def series_of(row: Row) -> tuple[str, str, str, str]:
    return row.model, row.runtime, row.precision, row.device


def write_bench(bench: Bench, out: Path | str) -> list[Path]:
    """bench.csv, bench.json and bench.png in the folder `out`."""
    out = Path(out)
    csv = write_text(out / "bench.csv", bench.table().to_csv(index=False))
    json_file = write_json(out / "bench.json", bench.as_dict(), indent=1)
    return [csv, json_file, save_figure(plot_bench(bench.table()), out / "bench.png").path]
