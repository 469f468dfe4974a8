"""Deals cases, runs each in its own process, and judges what came of it."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import count, islice
from pathlib import Path
from random import Random
from typing import Any

from tests.fuzzing import readers, sound
from tests.fuzzing.damage import Damage, written
from tests.fuzzing.hostile import CANARY
from tests.fuzzing.jail import Limits, Outcome, Refused, confined
from tests.fuzzing.kinds import KINDS, Kind

LONGEST_TEXT = 1200  # of an error
FIRST_S = 300.0  # of the processor, for a sound file: Numba compiles where nothing is in its cache yet
MOST_LOCAL = 3  # entries of an answer that damage to one of them may change: two images, and the list of classes


@dataclass(frozen=True)
class Case:
    """number: of the case, and the seed of its damage."""

    number: int
    kind: Kind
    damage: Damage
    reader: str

    @property
    def name(self) -> str:
        return f"case {self.number}: {self.kind.name}, {self.damage.name}, read by {self.reader}"


@dataclass(frozen=True)
class Judged:
    """fault: why this is not right; empty where it is."""

    case: Case
    outcome: Outcome
    fault: str


def cases(total: int, seed: int = 0, kinds: Sequence[Kind] = KINDS) -> list[Case]:
    """Each kind in turn; of one kind each pair of damage and reader once, in any order, before one comes again."""
    turns = [pairs_of(kind, Random(f"{seed} {kind.name}")) for kind in kinds]
    dealt = ((kind, *next(turn)) for _ in count() for kind, turn in zip(kinds, turns, strict=True))
    return [Case(seed * 1_000_000 + number, *each) for number, each in enumerate(islice(dealt, total))]


def pairs_of(kind: Kind, random: Random) -> Iterator[tuple[Damage, str]]:
    pairs = [(damage, reader) for damage in kind.damages for reader in kind.readers]
    while True:
        random.shuffle(pairs)
        yield from pairs


class Ground:
    """The folder in which all happens. Each sound folder is made once; each sound answer is remembered."""

    def __init__(self, root: Path):
        self.root = root
        self.answers: dict[tuple[str, str], Outcome] = {}
        sound.coco(root / "first")
        readers.coco(root / "first", root)  # what is compiled when it is first called: here, and not in each fork

    def sound_folder(self, kind: Kind) -> Path:
        folder = self.root / "sound" / kind.name / "in"
        if not folder.exists():
            kind.make(folder)
        return folder

    def sound_answer(self, kind: Kind, reader: str) -> Outcome:
        key = (kind.name, reader)
        if key not in self.answers:
            self.answers[key] = self.read(kind, reader, None, Random(0))[0]
        return self.answers[key]

    def read(self, kind: Kind, reader: str, damage: Damage | None, random: Random) -> tuple[Outcome, list[str]]:
        """The outcome, and what has changed in the folders that it should not."""
        top = self.root / "case"
        shutil.rmtree(top, ignore_errors=True)
        work = top / "a" / "b"
        shutil.copytree(self.sound_folder(kind), work / "in")
        sound.secrets(work)
        if damage:
            written(work / "in" / kind.file, damage, random)
        before, here = snapshot(top), Path.cwd()
        os.chdir(work)
        try:
            outcome = confined(
                partial(kind.readers[reader], Path("in"), Path("out")),
                kind.limits if damage else replace(kind.limits, seconds=FIRST_S),
                self.root / "noise.txt",
            )
        finally:
            os.chdir(here)
        return outcome, harm(work, before, snapshot(top))


def snapshot(top: Path) -> dict[str, str]:
    """Every file but those that the reader may write, by its content."""
    found = {}
    for path in sorted(top.rglob("*")):
        name = path.relative_to(top).as_posix()
        if path.is_file() and not name.startswith("a/b/out"):
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def harm(work: Path, before: dict[str, str], after: dict[str, str]) -> list[str]:
    changed = [f"{name} was changed or written" for name in after if before.get(name) != after[name]]
    changed += [f"{name} is gone" for name in before if name not in after]
    if (work / CANARY).exists():
        changed.append("code of the file was run")
    secret = {hashlib.sha256((work / name).read_bytes()).hexdigest() for name in ("secret.png", "secret.txt")}
    out = work / "out"
    for path in sorted(out.rglob("*")) if out.is_dir() else []:
        if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() in secret:
            changed.append(f"a file from outside was taken in as {path.relative_to(work)}")
    left = [path.name for path in work.iterdir() if path.name.startswith(".")]
    return changed + [f"{name} was left behind" for name in left]


# --- judging ---


def judged(ground: Ground, case: Case) -> Judged:
    before = ground.sound_answer(case.kind, case.reader)
    if before.how != "answer":
        return Judged(case, before, f"the sound file is not read: {before.text}")
    outcome, changed = ground.read(case.kind, case.reader, case.damage, Random(case.number))
    faults = [*changed, *faults_of(case, outcome, before.answer)]
    return Judged(case, outcome, "; ".join(faults))


def faults_of(case: Case, outcome: Outcome, sound_answer: Any) -> list[str]:
    expected = case.damage.expected_of(case.reader)
    if outcome.how == "fault":
        return [outcome.text]
    if outcome.how == "error":
        faults = unclear(outcome.text, case.kind.file)
        return [*faults, f"refused, though nothing is wrong: {outcome.text}"] if expected == "same" else faults
    if outcome.how == "told":
        return (
            [f"told to be wrong, though nothing is: {outcome.text:.300}"]
            if expected == "same"
            else unclear_report(outcome.text)
        )
    if expected == "refused":
        return ["answered, though the file is broken"]
    if expected == "same" and repr(outcome.answer) != repr(sound_answer):
        return [f"another answer: {difference(sound_answer, outcome.answer)}"]
    if expected == "local" and len(changes(sound_answer, outcome.answer)) > MOST_LOCAL:
        return [f"{len(changes(sound_answer, outcome.answer))} entries of the answer changed, where one was damaged"]
    return ["the answer holds what lies outside"] if "the-secret" in repr(outcome.answer) else []


def unclear(text: str, file: str) -> list[str]:
    """One line, that can be shown, and names the file or its folder."""
    faults = []
    if not text.strip():
        faults.append("an error without words")
    if len(text.splitlines()) > 1:
        faults.append(f"an error of {len(text.splitlines())} lines: {text[:300]!r}")
    if len(text) > LONGEST_TEXT:
        faults.append(f"an error of {len(text)} letters: {text[:200]!r}")
    if not text.replace("\n", " ").isprintable():
        faults.append(f"an error that cannot be shown: {text[:300]!r}")
    path = Path(file)
    if not any(word in text for word in (path.name, path.stem, path.parent.name or "in")):
        faults.append(f"an error that does not name the file: {text[:300]!r}")
    return faults


def unclear_report(text: str) -> list[str]:
    if not text.strip():
        return ["a report without words"]
    wrong = [line for line in text.split("\n") if not line.isprintable()]
    return [f"a report with a line that cannot be shown: {wrong[0][:300]!r}"] if wrong else []


def changes(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    return sorted(key for key in one.keys() | other.keys() if repr(one.get(key)) != repr(other.get(key)))


def difference(one: Any, other: Any) -> str:
    """Where two texts part."""
    a, b = json.dumps(one, default=repr), json.dumps(other, default=repr)
    place = next((place for place, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    start = max(0, place - 60)
    return f"{a[start : place + 80]!r} is now {b[start : place + 80]!r}"


# --- controls: faults that are planted, each of which must be found ---


def hang() -> None:
    while True:
        pass


def crash() -> None:
    os.kill(os.getpid(), 11)


def eat() -> int:
    return len([bytearray(2**24) for _ in range(10_000)])


def leave() -> None:
    Path(CANARY).touch()


def damage_source() -> str:
    return Path("in/annotations/instances_train.json").write_text("{}") and "read"


def controls(root: Path) -> dict[str, bool]:
    """What is planted, and whether it was found: a harness that finds nothing would find these neither."""
    kind, limits = KINDS[0], Limits(seconds=20, memory_mib=192)
    plants: dict[str, tuple[Callable[[], Any], str]] = {
        "hang": (hang, "hang"),
        "crash": (crash, "crash"),
        "all memory": (eat, "MemoryError"),
        "KeyError": (lambda: {}["bbox"], "KeyError"),
        "ValueError of a library": (lambda: int("x"), "ValueError"),
        "end of the process": (lambda: os._exit(0), "without a word"),
        "foreign code": (leave, "code of the file was run"),
        "source changed": (damage_source, "was changed"),
        "another answer": (lambda: os.getpid(), "another answer"),
        "answer to a broken file": (lambda: "fine", "answered, though"),
        "unclear error": (partial(raise_one, "what\nis\nthis"), "lines"),
        "error without the file": (partial(raise_one, "wrong"), "does not name"),
    }
    return {
        name: expected
        in planted_fault(root, kind, replace(limits, seconds=1) if name == "hang" else limits, name, work)
        for name, (work, expected) in plants.items()
    }


def raise_one(text: str) -> None:
    raise Refused(text)


def planted_fault(root: Path, kind: Kind, limits: Limits, name: str, work: Callable[[], Any]) -> str:
    reader = replace(kind, readers={"planted": lambda folder, out: work()}, limits=limits)
    expected = "refused" if name == "answer to a broken file" else "same" if name == "another answer" else "any"
    case = Case(0, reader, replace(kind.damages[0], expected=expected), "planted")
    ground = Ground(root)
    ground.answers[kind.name, "planted"] = Outcome("answer", "", "of the sound file", 0.0, 0.0)
    return judged(ground, case).fault
