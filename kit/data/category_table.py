"""The table by which categories of several data sets become those of one: kept, renamed, joined or dropped."""

import csv
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kit.files import one_line, read_bytes, read_yaml

ANY = ""  # stands for every data set


@dataclass(frozen=True)
class CategoryTable:
    """targets: (data set or ANY, its category) -> the new name, or None to drop it. What a data set says of itself
    goes before what is said of all; a category that is not in the table keeps its name, or is dropped."""

    targets: Mapping[tuple[str, str], str | None] = field(default_factory=dict)
    drops_unlisted: bool = False

    def target(self, data_set: str, name: str) -> str | None:
        for key in ((data_set, name), (ANY, name)):
            if key in self.targets:
                return self.targets[key]
        return None if self.drops_unlisted else name

    def refuse_unknown(self, names: Mapping[str, Sequence[str]]) -> None:
        """ValueError for rows that fit nothing, which are misspelt. names: data set -> its categories."""
        everything = sorted({name for each in names.values() for name in each})
        for data_set, name in self.targets:
            if data_set != ANY and data_set not in names:
                raise ValueError(f"category table: expected data sets {', '.join(names)}, got {data_set!r}; correct it")
            known = everything if data_set == ANY else list(names[data_set])
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known[:12])}"
                where = f" of {data_set}" if data_set else ""
                raise ValueError(f"category table: expected categories{where}, got {name!r}; {hint}")


def read_category_table(path: Path, drops_unlisted: bool = False) -> CategoryTable:
    """YAML `Van: Car`, `Misc: null` (dropped), by data set `kitti: {Van: Car}`; or CSV with the columns category,
    target (empty: dropped) and, where wanted, data_set."""
    read = targets_of_csv if path.suffix.lower() == ".csv" else targets_of_yaml
    return CategoryTable(read(path), drops_unlisted)


def targets_of_yaml(path: Path) -> dict[tuple[str, str], str | None]:
    content = read_yaml(path)
    mend = "write such as `Van: Car`, or `Misc: null` to drop it"
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a table of categories, found {type(content).__name__}; {mend}")
    targets: dict[tuple[str, str], str | None] = {}
    for key, value in content.items():
        rows = {(str(key), name): target for name, target in value.items()} if isinstance(value, dict) else None
        for (data_set, name), target in (rows if rows is not None else {(ANY, key): value}).items():
            if not isinstance(name, str | int) or not isinstance(target, str | None) or target == "":
                raise ValueError(
                    f"{path}: {name}: expected a name or null, found {target!r:.60}; {mend} (quote numbers)"
                )
            targets[data_set, str(name)] = target
    return targets


def targets_of_csv(path: Path) -> dict[tuple[str, str], str | None]:
    try:
        reader = csv.DictReader(read_bytes(path).decode("utf-8-sig").splitlines())
        rows = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: expected CSV in UTF-8, found {error}; store it anew") from error
    columns = list(reader.fieldnames or [])
    if not {"category", "target"} <= set(columns):
        raise ValueError(
            f"{path}: expected the columns category and target, found {one_line(', '.join(columns)):.120}; add them"
        )
    targets: dict[tuple[str, str], str | None] = {}
    for line, row in enumerate(rows, 2):
        key = (row.get("data_set") or ANY, row["category"] or "")
        if row["target"] is None or key in targets or not key[1]:
            raise ValueError(
                f"{path}: row {line}: expected each category once with its target, found {row}; correct it"
            )
        targets[key] = row["target"] or None
    return targets
