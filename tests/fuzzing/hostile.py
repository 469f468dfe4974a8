"""Files made by someone who means harm: bombs, entities, escapes, pickles. Each is `Change` of kit's sound file."""

import gzip
import io
import json
import os
import pickle
import struct
import zipfile
import zlib
from random import Random

import torch
from PIL import Image

from tests.fuzzing.damage import Change, Damage

CANARY = "owned"  # a file that appears where code of a stranger has run
MIB = 2**20


# --- XML ---


def laughing(data: bytes, random: Random) -> bytes:
    """A billion laughs."""
    entities = "".join(f'<!ENTITY l{level} "{f"&l{level - 1};" * 10}">' for level in range(1, 10))
    return with_doctype(data, f'<!ENTITY l0 "lol">{entities}', "&l9;")


def quadratic(data: bytes, random: Random) -> bytes:
    return with_doctype(data, f'<!ENTITY a "{"a" * 100_000}">', "&a;" * 50_000)


def external(data: bytes, random: Random) -> bytes:
    where = random.choice(("../../secret.txt", "/etc/passwd", "http://127.0.0.1:9/x"))
    return with_doctype(data, f'<!ENTITY x SYSTEM "{where}">', "&x;")


def parameter_entity(data: bytes, random: Random) -> bytes:
    return with_doctype(data, '<!ENTITY % p SYSTEM "../../secret.txt"> %p;', "")


def external_dtd(data: bytes, random: Random) -> bytes:
    return b'<?xml version="1.0"?><!DOCTYPE annotation SYSTEM "../../secret.txt">' + data


def with_doctype(data: bytes, entities: str, text: str) -> bytes:
    doctype = f'<?xml version="1.0"?><!DOCTYPE annotation [{entities}]>'
    return doctype.encode() + data.replace(b"<filename>", f"<filename>{text}".encode(), 1)


def deep_xml(data: bytes, random: Random) -> bytes:
    depth = random.choice((5_000, 100_000))
    return data.replace(b"<folder>", b"<a>" * depth + b"</a>" * depth + b"<folder>", 1)


def many_attributes(data: bytes, random: Random) -> bytes:
    attributes = "".join(f' a{number}="1"' for number in range(50_000))
    return data.replace(b"<annotation", b"<annotation" + attributes.encode(), 1)


def wrong_encoding(data: bytes, random: Random) -> bytes:
    name = random.choice(("utf-16", "utf-32", "no-such-thing", "utf-7", "rot13", "idna", "cp037"))
    return f'<?xml version="1.0" encoding="{name}"?>'.encode() + data


def in_utf16(data: bytes, random: Random) -> bytes:
    return ('<?xml version="1.0" encoding="UTF-16"?>' + data.decode()).encode("utf-16")


def commented(data: bytes, random: Random) -> bytes:
    return data.replace(b"<object>", b"<!-- <object> --><object>\n\n<!-- x --><extra><deep>1</deep></extra>\t")


def as_cdata(data: bytes, random: Random) -> bytes:
    return data.replace(b"<name>", b"<name><![CDATA[").replace(b"</name>", b"]]></name>")


XML = (
    Damage("billion laughs", laughing, "refused"),
    Damage("quadratic blow-up", quadratic, "refused"),
    Damage("external entity", external, "refused"),
    Damage("parameter entity", parameter_entity, "refused"),
    Damage("external DTD", external_dtd, "refused"),
    Damage("very deep", deep_xml),
    Damage("50,000 attributes", many_attributes, "same", ("read_dataset",)),
    Damage("wrong encoding", wrong_encoding),
    Damage("UTF-16", in_utf16, "same"),
    Damage("comments and extra elements", commented, "same"),
    Damage("CDATA", as_cdata, "same"),
)


def element_text(data: bytes, random: Random) -> bytes:
    """The text of one element is another."""
    words = (
        "",
        " ",
        "-1",
        "nan",
        "1e999",
        "x" * 100_000,
        "../../../secret.png",
        "&#27;[31m",
        "0x1",
        "9" * 500,
        "1 2",
        "&#x202e;",
    )
    places = [
        place
        for place in range(len(data))
        if data[place : place + 1] == b">" and data[place + 1 : place + 2] not in b"\n<"
    ]
    start = random.choice(places) + 1
    return data[:start] + random.choice(words).encode() + data[data.index(b"<", start) :]


def elements_lost(data: bytes, random: Random) -> bytes:
    lines = data.splitlines()
    lost = random.choice(
        [row for row, line in enumerate(lines) if line.strip().startswith(b"<") and b"</" in line[3:]] or [0]
    )
    return b"\n".join(lines[:lost] + lines[lost + 1 :])


# --- YAML ---


def aliases(data: bytes, random: Random) -> bytes:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]" for level in range(1, 10)]
    return "\n".join([*lines, random.choice(("names: *a9", "data: *a9", "train: *a9"))]).encode() + b"\n" + data


def python_object(data: bytes, random: Random) -> bytes:
    tag = random.choice(("!!python/object/apply:os.system", "!!python/object/new:os.system", "!!python/name:os.system"))
    return f'{data.decode()}\nx: {tag} ["touch {CANARY}"]\n'.encode()


def deep_yaml(data: bytes, random: Random) -> bytes:
    return data + b"\nx: " + random.choice((b"[", b"{a: ")) * 20_000


def endless_alias(data: bytes, random: Random) -> bytes:
    return data + b"\nx: &x [*x]\nnames: &y {0: *y}\ndata: *y\n"


def odd_yaml(data: bytes, random: Random) -> bytes:
    tails = (
        *(
            "\n---\na: 1\n",
            "\n? [a, b]\n: 1\n",
            "\n? {a: 1}\n: 1\n",
            "\n\tx: 1\n",
            "\n1: 2\n",
            "\nnull: 1\n",
            "\n~: ~\n",
        ),
        *(
            "\nx: !!binary 'AAA'\n",
            "\nx: 2026-13-45\n",
            "\nx: !!timestamp x\n",
            "\nx: 1:99:99\n",
            "\n<<: 5\n",
            "\n<<: [1]\n",
        ),
        *(
            "\nx: 0x" + "f" * 5000 + "\n",
            "\nx: " + "1" * 5000 + "\n",
            "\nx: !!int x\n",
            "\nx: !!float x\n",
            "\n%TAG ! x\n",
        ),
        *(
            "\nx: \x07\n",
            "\nx: !!set {a}\n",
            "\nx: !!omap [a: 1]\n",
            "\nx: *nobody\n",
            "\nx: .nan\n.inf: 1\n",
            "\nx: !!bool x\n",
        ),
    )
    return data + random.choice(tails).encode()


def yaml_value(data: bytes, random: Random) -> bytes:
    """The value of one key is another."""
    values = (
        *(
            "",
            "[]",
            "{}",
            "null",
            "true",
            "-1",
            ".nan",
            "1e400",
            "'../../../secret.png'",
            "[[[1]]]",
            "{a: {b: 1}}",
            "2026-01-01",
        ),
        *(
            "x" * 100_000,
            "0" * 5000,
            '"\\e[31m"',
            "!!binary aGk=",
            "[1, 2]",
            "{0: 1, 1: 2}",
            "{-1: a}",
            "{1e9: a}",
            "'..'",
            "/",
        ),
        *("999999999999999999999", "{99999999: a}", "3.5", "'a\\0b'", '"\\0"', "[null]", "[{a: 1}]", "no", "0o17"),
    )
    lines = data.decode().splitlines()
    rows = [row for row, line in enumerate(lines) if ":" in line and not line.startswith("#")]
    row = random.choice(rows)
    lines[row] = f"{lines[row].partition(':')[0]}: {random.choice(values)}"
    return "\n".join(lines).encode()


def inline_aliases(data: bytes, random: Random) -> bytes:
    """The value of one key is a list of lists of lists, each nine times the one before: 9 ** 9 words written out."""
    levels = ["&a0 [x, x, x, x, x, x, x, x, x]"]
    levels += [f"&a{level} [{', '.join([f'*a{level - 1}'] * 9)}]" for level in range(1, 9)]
    lines = data.decode().splitlines()
    row = random.choice([row for row, line in enumerate(lines) if ":" in line and not line.startswith((" ", "#"))])
    lines[row] = f"{lines[row].partition(':')[0]}: [{', '.join(levels)}]"
    return "\n".join(lines).encode()


def many_keys(data: bytes, random: Random) -> bytes:
    return data + b"\nmany: {" + b", ".join(b"k%d: 1" % number for number in range(30_000)) + b"}\n"


def yaml_commented(data: bytes, random: Random) -> bytes:
    return b"# a comment\n---\n" + b"".join(line + b"   # more\n" for line in data.splitlines())


YAML = (
    Damage("aliases of aliases", aliases),
    Damage("aliases in a value", inline_aliases),
    Damage("30,000 keys", many_keys),
    Damage("python object", python_object, "refused"),
    Damage("very deep", deep_yaml, "refused"),
    Damage("endless alias", endless_alias),
    Damage("odd YAML", odd_yaml),
    Damage("value", yaml_value),
    Damage("comments", yaml_commented, "same"),
)


# --- zips of results ---


def zipped(*members: tuple[str, bytes], compression: int = zipfile.ZIP_DEFLATED, comment: bytes = b"") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        archive.comment = comment
        for name, data in members:
            archive.writestr(name, data)
    return buffer.getvalue()


def member(data: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return archive.read(archive.infolist()[0])


def escaping(data: bytes, random: Random) -> bytes:
    names = (
        "../results.json",
        "/tmp/results.json",
        "a/../../results.json",
        "..\\results.json",
        "C:results.json",
        ".json",
        "a/b.json",
    )
    return zipped((random.choice(names), member(data)))


def two_members(data: bytes, random: Random) -> bytes:
    return zipped(("a.json", member(data)), (random.choice(("b.json", "a2.json", "x.txt")), member(data)))


def zip_link(data: bytes, random: Random) -> bytes:
    about = zipfile.ZipInfo("results.json")
    about.create_system, about.external_attr = 3, 0o120777 << 16
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(about, "../../secret.txt")
    return buffer.getvalue()


def zip_bomb(data: bytes, random: Random) -> bytes:
    """Blanks without end."""
    return zipped(("results.json", b" " * (300 * MIB)))


def large_zip_bomb(data: bytes, random: Random) -> bytes:
    return zipped(("results.json", b"[" * (200 * MIB)))


def lying_zip(data: bytes, random: Random) -> bytes:
    """Says that it is small."""
    true = zipped(("results.json", b" " * (64 * MIB) + member(data)))
    size = struct.pack("<I", 64 * MIB + len(member(data)))
    return true.replace(size, struct.pack("<I", random.choice((1, 1000, 0))))


def zip_flags(data: bytes, random: Random) -> bytes:
    """Encrypted, it says, or packed in a way nobody knows."""
    place = data.index(b"PK\x01\x02")
    changed = bytearray(data)
    at, value = random.choice(((8, 1), (10, 99), (10, 12), (10, 14), (24, 0xFF), (42, 0x7F), (16, 1)))
    changed[place + at] = value
    return bytes(changed)


def stored(data: bytes, random: Random) -> bytes:
    return zipped(("any name.json", member(data)), compression=zipfile.ZIP_STORED, comment=b"of no meaning")


def zip_in_zip(data: bytes, random: Random) -> bytes:
    return zipped(("results.json", data))


ZIP = (
    Damage("path escape", escaping, "refused"),
    Damage("two members", two_members, "refused"),
    Damage("symbolic link", zip_link, "refused"),
    Damage("bomb of 300 MiB", zip_bomb, "refused"),
    Damage("bomb of 200 MiB", large_zip_bomb, "refused"),
    Damage("bomb that lies", lying_zip),
    Damage("flags", zip_flags),
    Damage("zip in a zip", zip_in_zip, "refused"),
    Damage("stored, with a comment", stored, "same"),
)


def gzip_bomb(data: bytes, random: Random) -> bytes:
    """2 GiB of blanks in 2 MB: gzip files one after the other are one."""
    return gzip.compress(b" " * (64 * MIB)) * 32


# --- pictures ---


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of_size(width: int, height: int, rows: bytes = b"") -> bytes:
    head = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + png_chunk(b"IDAT", zlib.compress(rows, 9)) + png_chunk(b"IEND", b"")


def huge_png(data: bytes, random: Random) -> bytes:
    """Says that it is huge."""
    return png_of_size(*random.choice(((30_000, 30_000), (2**31 - 1, 2**31 - 1), (2**31 - 1, 1), (60_000, 4))))


def png_bomb(data: bytes, random: Random) -> bytes:
    """20,000 x 20,000 pixels that are all there."""
    return png_of_size(20_000, 20_000, (b"\0" * 2501) * 20_000)


def png_text_bomb(data: bytes, random: Random) -> bytes:
    kind = random.choice((b"zTXt", b"iCCP"))
    return data[:33] + png_chunk(kind, b"key\0\0" + zlib.compress(b"\0" * (64 * MIB), 9)) + data[33:]


def png_with_note(data: bytes, random: Random) -> bytes:
    return data[:33] + png_chunk(b"tEXt", b"Comment\0of no meaning") + data[33:]


def trailing(data: bytes, random: Random) -> bytes:
    return data + random.randbytes(1000)


def wrong_checksum(data: bytes, random: Random) -> bytes:
    place = data.index(b"IDAT") + 10
    return data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :]


def jpeg_with_note(data: bytes, random: Random) -> bytes:
    return data[:2] + b"\xff\xfe" + struct.pack(">H", 14) + b"of no value!" + data[2:]


def jpeg_of_size(data: bytes, random: Random) -> bytes:
    """Says that it is larger than it is."""
    place = data.index(b"\xff\xc0") + 5
    return (
        data[:place]
        + struct.pack(">HH", *random.choice(((65_500, 65_500), (0, 0), (1, 65_535), (400, 400))))
        + data[place + 4 :]
    )


def exif_of(orientation: bytes) -> Change:
    """An EXIF block; what stands in it is any bytes."""

    def change(data: bytes, random: Random) -> bytes:
        block = b"Exif\0\0" + orientation + random.randbytes(random.choice((0, 4, 40)))
        return data[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + data[2:]

    return change


BROKEN_EXIF = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\xff\xff"


def as_format(kind: str) -> Change:
    """Another format under this name; the same size."""

    def change(data: bytes, random: Random) -> bytes:
        buffer = io.BytesIO()
        Image.open(io.BytesIO(data)).convert("RGB").save(buffer, kind)
        return buffer.getvalue()

    return change


PICTURES = (Damage("trailing bytes", trailing), Damage("another ending", as_format("BMP")))
PNG = (
    Damage("size of a giant", huge_png, "refused", ("check", "intake", "media", "state")),
    Damage("bomb", png_bomb, "refused", ("check", "intake", "media", "state")),
    Damage("bomb in a text", png_text_bomb),
    Damage("wrong checksum", wrong_checksum, "refused", ("check", "intake", "state")),
    Damage("note", png_with_note, "same", ("check", "media", "state", "trained on", "near duplicates")),
)
JPEG = (
    Damage("another size", jpeg_of_size),
    Damage("broken EXIF", exif_of(BROKEN_EXIF)),
    Damage("EXIF of noise", exif_of(b"")),
    Damage("note", jpeg_with_note, "same", ("check", "media", "state", "trained on", "near duplicates")),
)


def tiff_pages(data: bytes, random: Random) -> bytes:
    """A directory that is its own next one: pages without an end."""
    first = struct.unpack("<I", data[4:8])[0]
    count = struct.unpack("<H", data[first : first + 2])[0]
    place = first + 2 + 12 * count
    return data[:place] + struct.pack("<I", first) + data[place + 4 :]


def many_frames(data: bytes, random: Random) -> bytes:
    buffer = io.BytesIO()
    picture = Image.open(io.BytesIO(data)).convert("RGB")
    picture.save(
        buffer,
        "GIF",
        save_all=True,
        append_images=[Image.new("RGB", picture.size, (n % 256, 0, 0)) for n in range(1200)],
    )
    return buffer.getvalue()


# --- PDFs ---


def huge_page(data: bytes, random: Random) -> bytes:
    """Pages of kilometres."""
    start = data.index(b"/MediaBox") + len(b"/MediaBox ")
    end = data.index(b"]", start) + 1
    side = random.choice(
        (b"[ 0 0 1e9 1e9 ]", b"[0 0 99999 99999]", b"[0 0 0 0]", b"[0 0 -5 -5]", b"[0 0 nan 1]", b"[0 0 1e-9 5]")
    )
    return data[:start] + side + data[end:]


def page_of_itself(data: bytes, random: Random) -> bytes:
    """A tree of pages that holds itself."""
    objects = ("<</Type/Catalog/Pages 2 0 R>>", "<</Type/Pages/Count 2000000000/Kids[2 0 R 2 0 R]/Parent 2 0 R>>")
    body = "%PDF-1.4\n" + "".join(f"{n} 0 obj{text}endobj\n" for n, text in enumerate(objects, 1))
    return (body + "trailer<</Root 1 0 R>>\n%%EOF").encode()


PDF = (Damage("page of an odd size", huge_page), Damage("page of itself", page_of_itself))


# --- weights ---


class Malice:
    """Pickled, this is a call that leaves the canary."""

    def __init__(self, function: object = os.system):
        self.function = function

    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return self.function, (f"touch {CANARY}",)


def pickled(data: bytes, random: Random) -> bytes:
    return pickle.dumps({"weights": Malice()}, protocol=random.choice((0, 2, 4)))


def torch_pickled(data: bytes, random: Random) -> bytes:
    buffer = io.BytesIO()
    content = torch.load(io.BytesIO(data), weights_only=True) | {
        "info": Malice(random.choice((os.system, eval, exec, os.mkdir)))
    }
    torch.save(content, buffer, _use_new_zipfile_serialization=bool(random.randrange(2)))
    return buffer.getvalue()


def torch_of() -> Change:
    def changed(data: bytes, random: Random) -> bytes:
        one = torch.zeros(1)
        contents = (
            *(None, 1, "text", [], {}, one, {"model": {}}, {"state_dict": {}}, {"a\x1b[31m\n": one}),
            *(
                {"weights": value}
                for value in (None, [], {"a": 1}, {1: one}, {"a": {"b": one}}, {"a": one.to_sparse()})
            ),
            *({"model": {"decoder.x": one}}, {"ema": {"module": 5}}, {"ema": None, "model": {"a": "b"}}),
        )
        buffer = io.BytesIO()
        torch.save(random.choice(contents), buffer)
        return buffer.getvalue()

    return changed


WEIGHTS_PT = (
    Damage("pickle", pickled, "refused"),
    Damage("torch file with a pickle", torch_pickled, "refused"),
    Damage("other contents", torch_of()),
)


def with_header(change: object, data: bytes, random: Random) -> bytes:
    """A safetensors file with another header."""
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    change(header, random)  # type: ignore[operator]
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


def hostile_tensor(data: bytes, random: Random) -> bytes:
    def change(header: dict[str, dict[str, object]], random: Random) -> None:
        name = random.choice([each for each in header if each != "__metadata__"])
        key = random.choice(("shape", "dtype", "data_offsets"))
        values = (
            [],
            [-1],
            [2**62, 4],
            [0],
            "F32",
            "F7",
            None,
            [0, 2**62],
            [-5, 5],
            {},
            [1e300],
            [2**64, 1],
            "I64",
            "BOOL",
        )
        header[name][key] = random.choice(values)

    return with_header(change, data, random)


def header_length(data: bytes, random: Random) -> bytes:
    return struct.pack("<Q", random.choice((0, 1, 2**63, 2**64 - 1, len(data), 100_000_001, 7))) + data[8:]


def hostile_about(data: bytes, random: Random) -> bytes:
    """What the file says of its detector."""

    def change(header: dict[str, dict[str, object]], random: Random) -> None:
        key = random.choice(("size", "num_classes", "channels", "classes", "size_hw", "format", "extra"))
        values = (
            *(
                10**9,
                -1,
                0,
                None,
                "n",
                "xxl",
                [],
                {},
                1.5,
                "2",
                True,
                10**30,
                [1, 2],
                ["a", 5],
                "\x1b[31m",
                {"a": 1},
                10**6,
                3,
            ),
            *([0, 0], [-1, 5], [10**9] * 2, "640"),
        )
        text = random.choice((json.dumps(random.choice(values)), "{", "NaN", "[" * 100_000, "", "'x'"))
        header["__metadata__"][key] = text if random.randrange(4) == 0 else json.dumps(random.choice(values))

    return with_header(change, data, random)


def header_spaced(data: bytes, random: Random) -> bytes:
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    names = list(header)
    random.shuffle(names)
    text = json.dumps({name: header[name] for name in names}).encode()
    text += b" " * (-len(text) % 8 + 8 * random.randrange(5))
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


SAFETENSORS = (
    Damage("pickle", pickled, "refused"),
    Damage("hostile tensor", hostile_tensor),
    Damage("length of the header", header_length, "refused"),
    Damage("hostile words about it", hostile_about),
    Damage("header in another order", header_spaced, "same"),
)
