"""What is fuzzed: for each kind of file its sound example, the ways to damage it, and the readers it is given to."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from kit.data.image_files import IMAGE_ENDINGS
from tests.fuzzing import damage, hostile, readers, sound
from tests.fuzzing.damage import HOSTILE, JSON, RANDOM, WHOLE, Damage, cut, cut_deep, on_json
from tests.fuzzing.jail import Limits
from tests.fuzzing.readers import COMMANDS, Reader

LIMITS, PICTURE_LIMITS = Limits(), Limits(seconds=30, memory_mib=2048)


@dataclass(frozen=True)
class Kind:
    """file: the one that is damaged, below the folder that make fills."""

    name: str
    make: Callable[[Path], Any]
    file: str
    readers: Mapping[str, Reader]
    damages: Sequence[Damage]
    limits: Limits = LIMITS


def some(*names: str, **more: Reader) -> dict[str, Reader]:
    return {name: COMMANDS[name] for name in names} | more


def without(damages: Sequence[Damage], *names: str) -> list[Damage]:
    return [each for each in damages if each.name not in names]


def unrefused(damages: Sequence[Damage]) -> list[Damage]:
    """For formats in which nothing at all is a sound file, too."""
    return [replace(each, expected="any") for each in damages]


def one_annotation(content: Any, random: Random) -> Any:
    """One value of one annotation is hostile; those of other images must be read as before."""
    entry = random.choice(content["annotations"])
    entry[random.choice(("bbox", "area", "iscrowd", "segmentation", "category_id", "extra"))] = random.choice(HOSTILE)
    return content


def hostile_segmentation(content: Any, random: Random) -> Any:
    for entry in content["annotations"]:
        entry["segmentation"] = random.choice(HOSTILE)
    return content


def run_lengths(content: Any, random: Random) -> Any:
    """Compressed run lengths of any letters, and lists of any numbers, that may even fill the mask."""
    for entry in content["annotations"]:
        letters = "".join(chr(random.randrange(48, 112)) for _ in range(random.randrange(1, 40)))
        numbers = [random.choice((0, 1, 7, 100, 3072, -1, 2**31, 2**40)) for _ in range(random.randrange(0, 9))]
        rest = [3072 - sum(numbers)] if 0 <= sum(numbers) <= 3072 else []
        counts: Any = random.choice(
            (letters, numbers + rest, letters + "\u20ac", letters[:-1] + "\n", [*numbers, None])
        )
        size = random.choice(
            ([48, 64], [48, 64], [48, 64], [64, 48], [1, 3072], [0, 0], [48], [48, 64, 3], ["48", "64"], [2**20] * 2)
        )
        entry["segmentation"] = {"size": size, "counts": counts}
    return content


def hostile_name(content: Any, random: Random) -> Any:
    image = random.choice(content["images"])
    image["file_name"] = random.choice(
        [value for value in HOSTILE if isinstance(value, str)] + ["../../../secret.png"] * 3
    )
    return content


def extra_keys(content: Any, random: Random) -> Any:
    extra = {"note": "x", "attributes": {"a": [1, {"b": None}]}, "\u00fc": 1.5}
    for key in ("images", "annotations", "categories"):
        content[key] = [each | extra for each in content[key]]
    return content | {"licenses": [], "videos": [{"id": 1}]}


def ids_renamed(content: Any, random: Random) -> Any:
    """Ids that clash, are 0, negative, or of nobody."""
    part = random.choice(("images", "annotations", "categories"))
    key = random.choice([key for key in content[part][0] if key.endswith("id")])
    for entry in random.sample(content[part], min(2, len(content[part]))):
        entry[key] = random.choice((0, -1, 1, 2**63, 2**64, 10**30, True, 3))
    return content


COCO_JSON = (
    *JSON,
    Damage("one annotation", on_json(one_annotation), "local", ("read_coco", "read_dataset")),
    Damage("one annotation", on_json(one_annotation), "local", ("read_coco", "read_dataset")),
    Damage("hostile masks", on_json(hostile_segmentation)),
    Damage("run lengths", on_json(run_lengths)),
    Damage("file name", on_json(hostile_name), "refused", ("check",)),
    Damage("ids", on_json(ids_renamed)),
    Damage("extra keys", on_json(extra_keys), "same", ("read_coco", "read_dataset", "check", "masks check")),
)
COCO_READERS = some(
    *("check", "masks check", "masks to polygons", "masks to runs", "masks to boxes"),
    *("masks extract", "split", "merge", "to coco", "to yolo", "to voc", "to csv", "intake"),
    read_coco=readers.coco, read_dataset=readers.raw("coco"), disagreements=readers.mask_disagreements,
    read_tables=readers.truth,
)  # fmt: skip
TRAIN = "annotations/instances_train.json"
TEXT = (
    *RANDOM,
    *unrefused(WHOLE),
    Damage("cut off", cut),
    Damage("rows shuffled", damage.rows_shuffled),
    Damage("Windows lines", damage.windows_lines, "same"),
    Damage("byte order mark", damage.byte_order_mark, "same"),
    Damage("blank lines", damage.blank_lines, "same"),
)
PICTURE_READERS = some(
    "check", "intake", media=partial(readers.media, "images/train/train_0.*"), state=readers.state
) | {
    "trained on": readers.trained_on,
    "near duplicates": readers.near_duplicates,
    "bare folder": COMMANDS["bare folder"],
    "masks extract": COMMANDS["masks extract"],
}
DOOR = ("check", "intake", "media", "state")  # who must tell of a picture that is not whole
PICTURE = (
    *RANDOM,
    *(replace(each, only=DOOR) for each in WHOLE),
    Damage("cut off", cut_deep, "refused", DOOR),
    *hostile.PICTURES,
)
ODD_READERS = some("intake", "intake, stretched")
SEEN_READERS = some("check", "bare folder", media=partial(readers.media, "images/train/train_0.*"))
ODD = (*RANDOM, *unrefused(WHOLE), Damage("cut off", cut_deep), Damage("trailing bytes", hostile.trailing))


def odd(name: str, ending: str, *more: Damage, make: Callable[[Path], Any] | None = None, **options: object) -> Kind:
    """A format that the intake makes plain."""
    maker = make or partial(sound.pictures, ending, **options)
    own = ODD_READERS | (SEEN_READERS if f".{ending}" in IMAGE_ENDINGS else {})
    return Kind(name, maker, f"images/train/train_0.{ending}", own, (*ODD, *more), PICTURE_LIMITS)


TABLE = (*TEXT, Damage("one cell", damage.hostile_word(",")))
VALIDATE = "validation"
KINDS = (
    Kind("COCO", sound.coco, TRAIN, COCO_READERS, COCO_JSON),
    Kind("COCO, gzip", sound.coco_gz, f"{TRAIN}.gz", some("check", "to coco", "merge", read_coco=readers.coco), (
        *RANDOM, *WHOLE, Damage("cut off", cut, "refused"), Damage("bomb of 2 GiB", hostile.gzip_bomb, "refused"),
    )),
    Kind("Objects365", sound.objects365, "val/zhiyuan_objv2_val.json",
         some("objects365", read_dataset=readers.raw("objects365")),
         (*JSON, Damage("file name", on_json(hostile_name)), Damage("ids", on_json(ids_renamed)))),
    Kind("VOC XML", sound.voc, "Annotations/train_1.xml", some("to coco", read_dataset=readers.raw("voc")), (
        *RANDOM, *WHOLE, *hostile.XML, Damage("cut off", cut_deep, "refused"),
        Damage("one element", hostile.element_text, "local", ("read_dataset",)),
        Damage("element lost", hostile.elements_lost),
    )),
    Kind("YOLO text", sound.yolo, "labels/train/train_1.txt", some("to coco", read_dataset=readers.raw("yolo")), (
        *TEXT, Damage("one word", damage.hostile_word(), "local", ("read_dataset",)),
    )),
    Kind("YOLO data.yaml", sound.yolo, "data.yaml", some("to coco", read_dataset=readers.raw("yolo")),
         (*without(TEXT, "blank lines"), *hostile.YAML)),
    Kind("CSV of kit", sound.table, "train.csv", some("to coco", read_dataset=readers.raw("csv")), TABLE),
    Kind("CSV of classes", sound.table, "classes.csv", some("to coco", read_dataset=readers.raw("csv")), TABLE),
    Kind("CSV of strangers", sound.table_of_strangers, "train.csv",
         some("to coco", read_dataset=readers.raw("csv")), TABLE),
    Kind("VisDrone text", sound.visdrone, "VisDrone2019-DET-train/annotations/0000001.txt",
         some("to coco", read_dataset=readers.raw("visdrone")), (*TABLE, Damage("one cell", damage.hostile_word(",")))),
    Kind("category table, YAML", sound.category_yaml, "table.yaml",
         {"read_category_table": partial(readers.category_table, "table.yaml")},
         (*without(TEXT, "blank lines"), *hostile.YAML)),
    Kind("category table, CSV", sound.category_csv, "table.csv",
         {"read_category_table": partial(readers.category_table, "table.csv")}, TABLE),
    Kind("split list", sound.split_list, "parts.csv", some("split list", partition_of_list=readers.part_list), TABLE),
    Kind("results", sound.results, "results.json",
         {VALIDATE: partial(readers.validation, "results.json"), "read_tables": readers.tables}, JSON),
    Kind("results, zip", sound.results_zip, "results.zip", {VALIDATE: partial(readers.validation, "results.zip")},
         (*RANDOM, *WHOLE, Damage("cut off", cut, "refused"), *hostile.ZIP)),
    Kind("results, CSV", sound.results_csv, "results.csv", {"kaggle": readers.kaggle},
         (*without(TABLE, "byte order mark", "blank lines"), Damage("one word", damage.hostile_word()))),
    Kind("PNG", partial(sound.pictures, "png"), "images/train/train_0.png", PICTURE_READERS,
         (*PICTURE, *hostile.PNG), PICTURE_LIMITS),
    Kind("JPEG", partial(sound.pictures, "jpg"), "images/train/train_0.jpg", PICTURE_READERS,
         (*PICTURE, *hostile.JPEG), PICTURE_LIMITS),
    odd("TIFF", "tif", Damage("pages without an end", hostile.tiff_pages), compression="tiff_lzw"),
    odd("WebP", "webp"),
    odd("GIF", "gif", Damage("1,201 pages", hostile.many_frames)),
    odd("BMP", "bmp"),
    odd("HEIC", "heic", make=sound.heic),
    odd("JPEG 2000", "jp2"),
    odd("AVIF", "avif"),
    Kind("PDF", sound.document, "pages.pdf", some("intake", media=partial(readers.media, "pages.pdf")),
         (*RANDOM, *WHOLE, Damage("cut off", cut_deep), *hostile.PDF), PICTURE_LIMITS),
    Kind("video", sound.video, "film.mp4", {"media": partial(readers.media, "film.mp4")},
         (*RANDOM, *WHOLE, Damage("cut off", cut_deep, "refused")), PICTURE_LIMITS),
    Kind("weights, torch", sound.checkpoint, "weights.pt",
         {"read_weights": partial(readers.weights, "weights.pt"), "training state": readers.training_state},
         (*RANDOM, *WHOLE, Damage("cut off", cut, "refused"), *hostile.WEIGHTS_PT)),
    Kind("weights, safetensors", sound.checkpoint, "weights.safetensors",
         {"read_weights": partial(readers.weights, "weights.safetensors")},
         (*RANDOM, *WHOLE, Damage("cut off", cut, "refused"), *hostile.SAFETENSORS)),
    Kind("detector", sound.detector, "detector.safetensors", {"load_detector": readers.whole_detector}, (
        *RANDOM, Damage("cut off", cut, "refused"), *without(hostile.SAFETENSORS, "pickle"),
        *[Damage("hostile words about it", hostile.hostile_about)] * 2,
    )),
    Kind("parameters", sound.params, "run.yaml", {"from_yaml": readers.parameters},
         (*without(TEXT, "blank lines"), *hostile.YAML, *[Damage("value", hostile.yaml_value)] * 2)),
)  # fmt: skip
