"""How files are damaged: each way takes the bytes of a sound file and a random generator, and gives other bytes."""

import gzip
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Literal

Change = Callable[[bytes, Random], bytes]
Expected = Literal["same", "refused", "local", "any"]

DEEP = 100_000


@dataclass(frozen=True)
class Damage:
    """expected: the same answer, a refusal (an error, or a report that says so), an answer that differs in one or two
    entries at most (or a refusal), or anything that is no fault. only: readers that it is expected of; None: all."""

    name: str
    change: Change
    expected: Expected = "any"
    only: tuple[str, ...] | None = None

    def expected_of(self, reader: str) -> Expected:
        return self.expected if self.only is None or reader in self.only else "any"


# --- of any file ---


def cut(data: bytes, random: Random) -> bytes:
    return data[: random.randrange(1, len(data))]


def cut_deep(data: bytes, random: Random) -> bytes:
    """Away is the last tenth at least."""
    return data[: random.randrange(1, max(2, len(data) * 9 // 10))]


def flipped(data: bytes, random: Random) -> bytes:
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 8, 64))):
        changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def dropped(data: bytes, random: Random) -> bytes:
    start, length = span(data, random)
    return data[:start] + data[start + length :]


def repeated(data: bytes, random: Random) -> bytes:
    start, length = span(data, random)
    return data[: start + length] * random.choice((1, 1, 2)) + data[start:]


def shuffled(data: bytes, random: Random) -> bytes:
    size = random.choice((1, 16, 64, 256))
    blocks = [data[start : start + size] for start in range(0, len(data), size)]
    random.shuffle(blocks)
    return b"".join(blocks)


def overwritten(data: bytes, random: Random) -> bytes:
    start, length = span(data, random)
    filling = random.choice((b"\0", b"\xff", b"9", b"-", b'"'))
    return data[:start] + filling * length + data[start + length :]


def span(data: bytes, random: Random) -> tuple[int, int]:
    start = random.randrange(len(data))
    return start, random.randrange(1, max(2, min(len(data) - start, random.choice((2, 16, 256)))))


def emptied(data: bytes, random: Random) -> bytes:
    return b""


def noise(data: bytes, random: Random) -> bytes:
    return b"\xff\xfe" * random.randrange(2) + random.randbytes(random.choice((1, 7, 100, 5000))) + b"\xff\x80"


def other_kind(data: bytes, random: Random) -> bytes:
    """The head of another format, and the rest of this one."""
    heads = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"PK\x03\x04", b"%PDF-1.7\n", b"\x1f\x8b\x08\0", b"II*\0")
    return random.choice([head for head in heads if not data.startswith(head[:2])]) + data[8:]


RANDOM = (
    Damage("bits flipped", flipped),
    Damage("part left out", dropped),
    Damage("part twice", repeated),
    Damage("blocks shuffled", shuffled),
    Damage("part overwritten", overwritten),
)
WHOLE = (
    Damage("empty", emptied, "refused"),
    Damage("noise", noise, "refused"),
    Damage("another format", other_kind, "refused"),
)
GZIPPED = Damage("gzip", lambda data, random: gzip.compress(data))


# --- of JSON: places in a tree, and what is put there ---

HOSTILE: tuple[Any, ...] = (
    *(None, True, False, "", "1", "x" * 100_000, -1, 0, 1, 2**31, 2**63, 2**64, -(2**63), 10**400, 1e308, -1e308),
    *(5e-324, 0.5),
    *([], [[]], [None], {}, {"id": 1}, [1, 2, 3], [1, 2, 3, 4, 5, 6], ["a"] * 4, [1e308] * 4, [-1e308] * 4),
    *([10**400] * 4, [float("nan")] * 4, float("nan"), float("inf"), -float("inf")),
    *("../../../secret.png", "/etc/passwd", "a\0b.png", "\ud800", "\x1b[31m\x07.png", "a\nb.png"),
    *("." * 5000, "con", "..", "."),
    *({"size": [2**31, 2**31], "counts": "0"}, {"size": [20000, 20000], "counts": [400_000_000]}),
    *({"size": [4, 4], "counts": "o" * 5000}, {"size": [-4, -4], "counts": [16]}),
    *({"size": [4, 4], "counts": [-16, 32]}, {"size": [48, 64], "counts": [2**63, 3072 - 2**63]}),
    *({"size": [4, 4], "counts": [2**70]}, {"size": [4, 4], "counts": "\u20ac"}, {"size": None, "counts": None}),
    *([[1e9, 0, 0, 1e9, 1e9, 1e9]], [[0, 0, 2**20, 2**20, 0, 2**20]], [[float("nan")] * 6]),
    *([[1, 2, 3]], [[[1, 2]] * 3]),
    *([[0.5] * 100_001], [["1"] * 6], [[True] * 6]),
)  # fmt: skip


def on_json(change: Callable[[Any, Random], Any]) -> Change:
    def changed(data: bytes, random: Random) -> bytes:
        return json.dumps(change(json.loads(data), random)).encode()

    return changed


def places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Each value in a tree by its container and key."""
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in list(pairs):
        yield tree, key
        yield from places(value)


def hostile_value(tree: Any, random: Random) -> Any:
    container, key = random.choice(list(places(tree)))
    container[key] = random.choice(HOSTILE)
    return tree


def hostile_values(tree: Any, random: Random) -> Any:
    for _ in range(random.randrange(2, 6)):
        tree = hostile_value(tree, random)
    return tree


def missing_value(tree: Any, random: Random) -> Any:
    container, key = random.choice(list(places(tree)))
    del container[key]
    return tree


def swapped_values(tree: Any, random: Random) -> Any:
    (one, a), (other, b) = random.choices(list(places(tree)), k=2)
    one[a], other[b] = json.loads(json.dumps(other[b])), json.loads(json.dumps(one[a]))
    return tree


def entries_twice(tree: Any, random: Random) -> Any:
    lists = [container[key] for container, key in places(tree) if isinstance(container[key], list)] or [tree]
    chosen = random.choice(lists)
    chosen += json.loads(json.dumps(chosen))
    return tree


def wrong_root(tree: Any, random: Random) -> Any:
    return random.choice(
        (None, True, 1, "text", [], [tree], {}, {"a": tree}, [[]], [None], {"images": {}}, {"images": 1})
    )


def keys_shuffled(tree: Any, random: Random) -> Any:
    if isinstance(tree, dict):
        keys = list(tree)
        random.shuffle(keys)
        return {key: keys_shuffled(tree[key], random) for key in keys}
    return [keys_shuffled(each, random) for each in tree] if isinstance(tree, list) else tree


def spaced(data: bytes, random: Random) -> bytes:
    text = json.dumps(json.loads(data), indent=random.choice((0, 1, "\t")), separators=(" ,\r\n ", "\t: "))
    return f"\n {text}\r\n\t".encode()


def escaped(data: bytes, random: Random) -> bytes:
    """Every letter of every text as \\uXXXX: the same text to any reader of JSON."""

    def text_of(value: Any) -> str:
        if isinstance(value, str):
            return '"' + "".join(f"\\u{ord(letter):04x}" for letter in value) + '"'
        if isinstance(value, dict):
            return "{" + ",".join(f"{text_of(key)}:{text_of(each)}" for key, each in value.items()) + "}"
        return "[" + ",".join(map(text_of, value)) + "]" if isinstance(value, list) else json.dumps(value)

    return text_of(json.loads(data)).encode()


def deep(data: bytes, random: Random) -> bytes:
    opening, closing = random.choice(((b"[", b"]"), (b'{"a":', b"}")))
    ends = closing * DEEP if random.randrange(2) else b""
    inner = opening * DEEP + (b"1" if closing == b"}" else b"") + ends
    if random.randrange(2):
        return inner
    place = data.rfind(b"}")
    return data[:place] + b',"deep":' + inner + data[place:]


def same_key_twice(data: bytes, random: Random) -> bytes:
    key = random.choice((b"images", b"annotations", b"categories", b"id", b"bbox"))
    return data.replace(
        b'"' + key + b'":', b'"' + key + b'":' + random.choice((b"[]", b"null", b"1")) + b',"' + key + b'":'
    )


def not_numbers(data: bytes, random: Random) -> bytes:
    """Numbers that JSON does not have, or none can hold."""
    words = (
        b"NaN",
        b"-Infinity",
        b"Infinity",
        b"1e999",
        b"-0",
        b"01",
        b"1.",
        b".5",
        b"0x10",
        b"9" * 5000,
        b"1" + b"0" * 400,
    )
    digits = [
        place
        for place in range(1, len(data))
        if data[place : place + 1].isdigit() and data[place - 1 : place] in b" [:,"
    ]
    place = random.choice(digits)
    end = next(stop for stop in range(place, len(data)) if data[stop : stop + 1] not in b"0123456789.eE+-")
    return data[:place] + random.choice(words) + data[end:]


def utf16(data: bytes, random: Random) -> bytes:
    return data.decode().encode(random.choice(("utf-16", "utf-16-le", "utf-32")))


def latin1_letters(data: bytes, random: Random) -> bytes:
    place = data.index(b'"') + 1
    return data[:place] + random.choice((b"\xe9", b"\x80", b"\xff", b"\xf8\x88\x80\x80\x80")) + data[place:]


JSON = (
    *(Damage(each.name, each.change, each.expected) for each in (*RANDOM, *WHOLE)),
    Damage("cut off", cut, "refused"),
    Damage("hostile value", on_json(hostile_value)),
    Damage("hostile values", on_json(hostile_values)),
    Damage("value missing", on_json(missing_value)),
    Damage("values swapped", on_json(swapped_values)),
    Damage("entries twice", on_json(entries_twice)),
    Damage("wrong root", on_json(wrong_root)),
    Damage("very deep", deep),
    Damage("key twice", same_key_twice),
    Damage("no numbers", not_numbers),
    Damage("UTF-16 or 32", utf16),
    Damage("bytes that are no text", latin1_letters, "refused"),
    Damage("keys in another order", on_json(keys_shuffled), "same"),
    Damage("white space", spaced, "same"),
    Damage("letters escaped", escaped, "same"),
)


# --- of text, row by row ---

WORDS = (
    *("", "-1", "nan", "inf", "1e999", "9" * 400, "x", "\x00", "1_0", "\u0661", "0x10", "1,5", "'", '"', "=1+1"),
    *("../../../secret.png", "\x1b[31m", "\u202e", "1e308", "-1e308", "a" * 100_000, "0.1.2", "None", "true"),
    *("[1, 2, 3, 4]", "{}", "1" * 5000),
)  # fmt: skip


def hostile_word(separators: str = " ") -> Change:
    """One word of one row is another."""

    def changed(data: bytes, random: Random) -> bytes:
        lines = data.decode().split("\n")
        row = random.choice([number for number, line in enumerate(lines) if line.strip()])
        words = lines[row].split(separators)
        words[random.randrange(len(words))] = random.choice(WORDS)
        lines[row] = separators.join(words)
        return "\n".join(lines).encode()

    return changed


def rows_shuffled(data: bytes, random: Random) -> bytes:
    lines = data.decode().splitlines()
    random.shuffle(lines)
    return "\n".join(lines).encode()


def windows_lines(data: bytes, random: Random) -> bytes:
    return data.replace(b"\n", b"\r\n")


def byte_order_mark(data: bytes, random: Random) -> bytes:
    return b"\xef\xbb\xbf" + data


def blank_lines(data: bytes, random: Random) -> bytes:
    return data.replace(b"\n", b"\n\n") + b"\n\n"


def written(path: Path, damage: Damage, random: Random) -> bytes:
    """Damages a file in place -> what is in it now."""
    data = damage.change(path.read_bytes(), random)
    path.unlink()
    path.write_bytes(data)
    return data
