"""Which detections become pseudo labels: a list of rules, of which the last that fits a box decides.

    0.4                             every box needs a score of 0.4
    Bus Truck: 0.7                  these classes more
    night: 0.3                      at night (or `day`) less will do
    Bus Truck camera 20 24 29: 0.25
    Car night camera 3: 0.3 by 2    and at least two models have to reach 0.3 by themselves
    Bike: never                     no such label at all

Words before the colon are classes, until `camera`, from where on they are cameras; `class` begins classes again. All
kinds that are named have to fit. A name with blanks stands in quotes: 'traffic light'. A box that no rule fits is no
label.
"""

import difflib
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from kit.data.views import View

NEVER = float("inf")
MEND = "write it like `0.4`, `Bus Truck: 0.7`, `night: 0.3` or `Bus camera 20 24: 0.25 by 2`"


@dataclass(frozen=True)
class Rule:
    """One line. An empty set of classes or cameras, or time, is no condition."""

    text: str
    threshold: float  # NEVER: nothing is good enough
    models: int = 1  # that have to reach the threshold by themselves
    classes: frozenset[str] = frozenset()
    cameras: frozenset[str] = frozenset()
    time: str = ""  # day or night

    def fits(self, name: str, view: View | None) -> bool:
        """name: of the class. A view of None is no camera, by day."""
        if self.classes and name not in self.classes:
            return False
        if self.cameras and (view is None or view.camera not in self.cameras):
            return False
        return not self.time or self.time == ("night" if view is not None and view.is_night else "day")


def parse_rules(
    texts: Sequence[str], names: Sequence[str], has_views: bool = True, models: int | None = None
) -> list[Rule]:
    """names: of all classes; has_views: whether file names tell camera and time of day; models: that are asked, where
    it is known. ValueError names the rule."""
    if not texts:
        raise ValueError('rules: expected at least one, got none; `rules = ["0.4"]` keeps what reaches 0.4')
    rules = []
    for number, text in enumerate(texts, 1):
        try:
            rule = parse_rule(text, names)
        except ValueError as error:
            raise ValueError(f"rules, number {number}, {text!r}: {error}") from error
        if (rule.cameras or rule.time) and not has_views:
            raise ValueError(
                f"rules, number {number}, {text!r}: file names of this competition tell no camera and no time of day; "
                "leave `camera`, `day` and `night` out, or take a competition with a view_pattern"
            )
        if models is not None and rule.models > models:
            raise ValueError(
                f"rules, number {number}, {text!r}: expected at most `by {models}`, so many teachers there are"
            )
        rules.append(rule)
    return rules


def deciding(rules: Sequence[Rule], name: str, view: View | None) -> int | None:
    """The number, from 0, of the last rule that fits; None where none does."""
    return next((row for row in range(len(rules) - 1, -1, -1) if rules[row].fits(name, view)), None)


def parse_rule(text: str, names: Sequence[str]) -> Rule:
    scope, colon, outcome = text.rpartition(":")
    classes, cameras, times = parse_scope(scope, names)
    if colon and not (classes or cameras or times):
        raise ValueError(f"expected classes, cameras, day or night before the colon, got nothing; {MEND}")
    threshold, models = parse_outcome(outcome)
    return Rule(text.strip(), threshold, models, frozenset(classes), frozenset(cameras), "".join(times))


def parse_scope(scope: str, names: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    """-> classes, cameras, times."""
    classes: list[str] = []
    cameras: list[str] = []
    times: list[str] = []
    kind = "class"
    for word in words_of(scope):
        if word in ("class", "camera"):
            kind = word
        elif word in ("day", "night"):
            times.append(word)
        elif kind == "camera":
            if word in names:
                raise ValueError(f"{word} after `camera` is a class; put it before `camera`, or after `class`")
            cameras.append(word)
        else:
            classes.append(known(word, names))
    if kind == "camera" and not cameras:
        raise ValueError(f"expected cameras after `camera`, got none; {MEND}")
    if len(times) > 1:
        raise ValueError(f"expected day or night, got {' and '.join(times)}; leave both out for all images")
    return classes, cameras, times


def words_of(scope: str) -> list[str]:
    try:
        return shlex.split(scope.replace(",", " "))
    except ValueError as error:
        raise ValueError(f"expected quotes in pairs, {str(error).lower()}; {MEND}") from error


def known(word: str, names: Sequence[str]) -> str:
    if word in names:
        return word
    close = difflib.get_close_matches(word.lower(), [name.lower() for name in names], n=1)
    likely = [name for name in names if close and name.lower() == close[0]]
    mend = f"did you mean {likely[0]}?" if likely else "put a name with blanks in quotes, and `camera` before cameras"
    raise ValueError(f"no class {word!r}; the classes are {', '.join(names)}; {mend}")


def parse_outcome(outcome: str) -> tuple[float, int]:
    """`0.4`, `0.4 by 2` or `never` -> threshold, models."""
    words = outcome.split()
    if words == ["never"]:
        return NEVER, 1
    if len(words) not in (1, 3) or words[1:2] not in ([], ["by"]):
        raise ValueError(f"expected a score, or a score `by` a number of models, got {outcome.strip()!r}; {MEND}")
    try:
        threshold, models = float(words[0]), int(words[2]) if words[2:] else 1
    except ValueError as error:
        raise ValueError(f"expected numbers, got {outcome.strip()!r}; {MEND}") from error
    if not 0 <= threshold <= 1 or models < 1:
        raise ValueError(f"expected a score from 0 to 1 and at least 1 model, got {outcome.strip()!r}; {MEND}")
    return threshold, models
