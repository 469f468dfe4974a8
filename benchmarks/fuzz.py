"""Damaged and hostile files through every reader of kit: each must end in a clear error or a right answer.

    python -m benchmarks.fuzz [--cases 1000] [--seed 0] [--kind WORD] [--json FILE]
    python -m benchmarks.fuzz --case NUMBER        one case of that seed again, with what was said

A case is a kind of file, a way to damage it, a reader of kit, and a seed, which is its number. It runs in a process of
its own with limits of time and memory. Right is: an error of one line in kit's words that names the file; a report that
tells what is wrong; or an answer, which must be that of the sound file where the change means nothing, and must not
exist where nothing can be right. A fault is anything else: a crash, a hang, no memory, another exception, another
answer, a file changed or written outside, code that was run. Faults that are planted come first, and must be found.
"""

import argparse
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kit.files import one_line, write_json
from kit.progress import Bar
from tests.fuzzing.cases import Ground, Judged, cases, controls, judged
from tests.fuzzing.jail import threads
from tests.fuzzing.kinds import KINDS

COLUMNS = ("error", "told", "answer")


def table(found: Sequence[Judged]) -> list[str]:
    """A row for each kind: how its cases ended, the slowest and the one that took most memory."""
    rows: dict[str, list[Judged]] = defaultdict(list)
    for each in found:
        rows[each.case.kind.name].append(each)
    head = (
        f"{'kind':<24}{'cases':>7}{'errors':>8}{'told':>6}{'answers':>9}{'faults':>8}{'slowest s':>11}{'most MiB':>10}"
    )
    return [head, *(row_of(name, own) for name, own in rows.items()), row_of("all", found)]


def row_of(name: str, found: Sequence[Judged]) -> str:
    ends = Counter("fault" if each.fault else each.outcome.how for each in found)
    counts = f"{ends['error']:>8}{ends['told']:>6}{ends['answer']:>9}{ends['fault']:>8}"
    slowest, most = max(each.outcome.seconds for each in found), max(each.outcome.peak_mib for each in found)
    return f"{name:<24}{len(found):>7}{counts}{slowest:>11.2f}{most:>10.0f}"


def line_of(each: Judged) -> str:
    """What came of one case."""
    return f"! {each.case.name}: {each.fault or f'{each.outcome.how} {one_line(each.outcome.text)}'}"


def as_data(each: Judged) -> dict[str, Any]:
    case, outcome = each.case, each.outcome
    names = {"number": case.number, "kind": case.kind.name, "damage": case.damage.name, "reader": case.reader}
    ends = {"expected": case.damage.expected_of(case.reader), "how": outcome.how, "fault": each.fault}
    figures = {"seconds": round(outcome.seconds, 3), "peak_mib": round(outcome.peak_mib, 1)}
    return names | ends | figures | {"text": outcome.text[:1000]}


def main() -> int:
    """0: no fault; 1: faults, each with its case; 2: the planted faults were not found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", default="", help="only kinds with this in their name")
    parser.add_argument("--case", type=int, help="this one alone")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    kinds = [kind for kind in KINDS if options.kind.lower() in kind.name.lower()]
    dealt = cases(options.cases if options.case is None else options.case + 1, options.seed, kinds)
    with tempfile.TemporaryDirectory(prefix="kit-fuzz-") as name:
        ground = Ground(Path(name))
        seen = controls(Path(name)) if options.case is None else {}
        missed = [plant for plant, is_found in seen.items() if not is_found]
        if missed:
            print(f"error: planted and not found: {', '.join(missed)}", file=sys.stderr)
            return 2
        bar, found = Bar("cases"), []
        for done, case in enumerate(dealt[-1:] if options.case is not None else dealt, 1):
            found.append(judged(ground, case))
            bar(done, len(dealt))
            if found[-1].fault:
                bar.say(line_of(found[-1]))
    print(f"planted faults found: {len(seen)} of {len(seen)}; seed {options.seed}; {threads()} thread before each fork")
    print("\n".join(table(found)))
    for each in found if options.case is not None else []:
        print(line_of(each))
    if options.json:
        write_json(options.json, {"seed": options.seed, "controls": seen, "cases": list(map(as_data, found))}, indent=1)
    return int(any(each.fault for each in found))


if __name__ == "__main__":
    sys.exit(main())
