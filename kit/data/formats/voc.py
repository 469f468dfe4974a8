"""Pascal VOC XML: one file an image, boxes as edges; classes by name.

Two ways to count pixels are about. Edges: xmin = x, xmax = x + w, as most tools write it. One-based: the first and the
last pixel, counted from 1, as the devkit has it: xmin = x + 1, xmax = x + w. Files of ours say which in an attribute of
their root, `pixels`; those of the devkit by their <source>; others are taken as edges, which is told. XML is read by
defusedxml: entities and DTDs of strangers are refused.
"""

import re
from collections.abc import Callable
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError, SubElement, indent, tostring

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import fromstring

from kit.data.formats.images import (
    Progress,
    head_of,
    inside,
    output_names,
    place_images,
    size_wh,
    size_wh_of,
)
from kit.data.formats.raw import (
    Entry,
    Loss,
    Losses,
    RawDataset,
    RawPart,
    category_entries,
    finite_number,
    neat,
    new_annotation,
    number_text,
    numbered,
    objects_by_file,
    objects_of,
    part_named,
    tell_fields,
    unique_names,
)
from kit.data.image_files import IMAGE_ENDINGS
from kit.files import read_bytes, whole_folder, write_text

EDGES, ONE_BASED = "edges", "one-based"
FLAGS = ("truncated", "difficult", "occluded", "pose")  # of an object, kept as fields of the annotation
CLASSES = "classes.txt"
FLAG = re.compile(r"\s+(-1|0|1)$")
NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


# --- reading ---


def read_voc(root: Path, one_based: bool | None = None, progress: Progress | None = None) -> RawDataset:
    """one_based: how pixels are counted; None: as each file tells."""
    found = xml_files(root)
    if not any(found.values()):
        raise ValueError(f"{root}: expected Annotations/*.xml, found none; check the path")
    trees = {path: read_xml(path) for files in found.values() for path in files}
    names = class_names(root, trees)
    ids = {name: number for number, name in enumerate(names, 1)}
    problems: list[str] = []
    parts = [read_part(name, files, root, trees, ids, one_based, problems, progress) for name, files in found.items()]
    return RawDataset(category_entries(names), parts, notes_on(trees, one_based), problems)


def xml_files(root: Path) -> dict[str, list[Path]]:
    """Part: files, by ImageSets/Main/*.txt, by the folders train, valid, ..., or all as train."""
    folder = next((each for each in (root / "Annotations", root / "annotations") if each.is_dir()), root)
    lists = {name: root / "ImageSets" / "Main" / f"{name}.txt" for name in ("train", "val", "test")}
    lists = {name: path for name, path in lists.items() if path.is_file()}
    if lists:
        return {name: listed(path, folder) for name, path in lists.items()}
    names = ("train", "val", "valid", "validation", "test")
    parts = {part_named(name): sorted((folder / name).rglob("*.xml")) for name in names if (folder / name).is_dir()}
    return {name: files for name, files in parts.items() if files} or {"train": sorted(folder.rglob("*.xml"))}


def listed(path: Path, folder: Path) -> list[Path]:
    """The files that a list of names has, each line a name and maybe a flag (1, 0, -1) after it."""
    files = []
    for name in (line.strip() for line in decoded(path).splitlines() if line.strip()):
        whole, plain = (inside(folder, f"{each}.xml", str(path)) for each in (name, FLAG.sub("", name)))
        files.append(whole if whole.is_file() else plain)
    missing = next((file for file in files if not file.is_file()), None)
    if missing:
        raise ValueError(f"{path}: expected {missing}, found nothing; take its name from the list")
    return files


def decoded(path: Path) -> str:
    try:
        return read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected UTF-8 text, found {error}; convert it") from error


def read_xml(path: Path) -> Element:
    try:
        tree: Element = fromstring(read_bytes(path), forbid_dtd=True)
    except (ParseError, DefusedXmlException, ValueError, LookupError) as error:
        raise ValueError(f"{path}: expected XML, found {error}; is it cut off, or another format?") from error
    if tree.tag != "annotation":
        raise ValueError(f"{path}: expected <annotation>, found <{tree.tag:.40}>; is it Pascal VOC?")
    return tree


def class_names(root: Path, trees: dict[Path, Element]) -> list[str]:
    """In the order of classes.txt if there is one, then by name."""
    listed_names = decoded(root / CLASSES).splitlines() if (root / CLASSES).is_file() else []
    names = [name.strip() for name in listed_names if name.strip()]
    used = {text_of(each, "name", str(path)) for path, tree in trees.items() for each in tree.iter("object")}
    return list(dict.fromkeys(names + sorted(used)))


def text_of(element: Element, tag: str, where: str) -> str:
    found = element.find(tag)
    text = (found.text or "").strip() if found is not None else ""
    if not text:
        raise ValueError(f"{where}: expected <{tag}> in <{element.tag}>, found none; correct the file")
    return text


def counts_from_one(tree: Element, one_based: bool | None) -> bool:
    if one_based is not None:
        return one_based
    stated = tree.get("pixels")
    source = f"{tree.findtext('source/annotation') or ''}{tree.findtext('source/database') or ''}"
    return stated == ONE_BASED if stated in (EDGES, ONE_BASED) else "PASCAL VOC" in source or "The VOC" in source


def notes_on(trees: dict[Path, Element], one_based: bool | None) -> list[str]:
    ones = sum(counts_from_one(tree, one_based) for tree in trees.values())
    ways = {"counted from 1, both ends inside": ones, "as edges": len(trees) - ones}
    return [f"{count} files with pixels {way}" for way, count in ways.items() if count]


def read_part(
    name: str,
    files: list[Path],
    root: Path,
    trees: dict[Path, Element],
    ids: dict[str, int],
    one_based: bool | None,
    problems: list[str],
    progress: Progress | None,
) -> RawPart:
    images, annotations, found = [], [], {}
    place = finder(root)
    named = sorted(((image_name(trees[path], path), path) for path in files), key=lambda pair: pair[0])
    for number, (file_name, path) in enumerate(named, 1):
        image = place(name, file_name, path)
        if image is None:
            problems.append(f"{path}: no image {file_name} in the folder")
        else:
            found[number] = image
            file_name = Path(file_name).with_suffix(image.suffix).name if not Path(file_name).suffix else file_name
        size = xml_size(trees[path], path, image)
        images.append({"id": number, "file_name": file_name, "width": size[0], "height": size[1]})
        shift = 1.0 if counts_from_one(trees[path], one_based) else 0.0
        annotations += [object_entry(each, number, ids, shift, str(path)) for each in trees[path].iter("object")]
        if progress:
            progress(number, len(files))
    return RawPart(name, images, numbered(annotations), found)


def image_name(tree: Element, path: Path) -> str:
    return (tree.findtext("filename") or "").strip() or path.stem


def finder(root: Path) -> Callable[[str, str, Path], Path | None]:
    """Looks for an image in the usual folders: by its name, or by that of the XML file."""
    folders = [root / "JPEGImages", root / "images", root / "Images"]

    def find(part: str, name: str, path: Path) -> Path | None:
        for folder in [*folders, root / "images" / part, path.parent, root]:
            exact = inside(folder, name, str(path))
            others = [folder / f"{path.stem}{ending}" for ending in sorted(IMAGE_ENDINGS)]
            image = next((each for each in [exact, *others] if each.is_file() and is_image(each)), None)
            if image:
                return image
        return None

    return find


def is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_ENDINGS


def xml_size(tree: Element, path: Path, image: Path | None) -> tuple[int, int]:
    """Width and height of the image file, or else as the XML tells."""
    if image is not None:
        return size_wh_of(image)
    width, height = (finite_number(tree.findtext(f"size/{side}") or "0", str(path)) for side in ("width", "height"))
    if width < 1 or height < 1 or not width.is_integer() or not height.is_integer():
        raise ValueError(f"{path}: expected a size of whole pixels, found {width} x {height} and no image; correct it")
    return int(width), int(height)


def object_entry(each: Element, image_id: int, ids: dict[str, int], shift: float, where: str) -> Entry:
    """One <object>. shift: 1 where pixels count from one: both ends are inside then."""
    edges = each.find("bndbox")
    if edges is None:
        raise ValueError(f"{where}: expected <bndbox> in <object>, found none; correct the file")
    left, top, right, bottom = (
        finite_number(text_of(edges, tag, where), where) for tag in ("xmin", "ymin", "xmax", "ymax")
    )
    x, y = left - shift, top - shift
    box = [neat(value) for value in (x, y, right - x, bottom - y)]
    flags = {key: flag_of(text) for key in FLAGS if (text := (each.findtext(key) or "").strip())}
    crowd = {"iscrowd": 1} if (each.findtext("iscrowd") or "").strip() == "1" else {}
    return new_annotation(image_id, ids[text_of(each, "name", where)], box, **flags, **crowd)


def flag_of(text: str) -> int | float | str:
    try:
        value = float(text)
    except ValueError:
        return text
    if value != value or value in (float("inf"), float("-inf")):
        return text
    return int(value) if value.is_integer() and "." not in text else value


# --- writing ---


def write_voc(
    dataset: RawDataset, out: Path, one_based: bool = False, copy: bool = False, progress: Progress | None = None
) -> list[Loss]:
    """JPEGImages/, Annotations/, ImageSets/Main/{part}.txt and classes.txt. Crowds are <iscrowd> and difficult."""
    losses = Losses()
    names_of = {key: xml_text(name, "class") for key, name in unique_names(dataset, "VOC").items()}
    tell_fields(dataset, losses, {"iscrowd", *FLAGS}, set())
    if list(names_of) != list(range(1, len(names_of) + 1)):
        losses.add("ids of categories: read again they are 1, 2, ... in the same order", str(list(names_of)[:3]))
    with whole_folder(out) as made:
        taken: dict[str, Path | None] = {}
        for folder in ("JPEGImages", "Annotations"):
            (made / folder).mkdir()
        for part in dataset.parts:
            names = output_names(part, taken, losses, flat=True, by_stem=True)
            place_images(part, names, made / "JPEGImages", losses, copy, progress)
            listed = objects_by_file(part, names, objects_of(dataset, part, losses), losses)
            for image, name, objects in listed:
                tell_masks(objects, losses, part.name)
                path = (made / "Annotations" / name).with_suffix(".xml")
                path.write_text(annotation_tree(part, image, name, objects, names_of, one_based), encoding="utf-8")
            stems = "".join(f"{Path(name).stem}\n" for _, name, _ in listed)
            write_text(inside(made, f"ImageSets/Main/{part.name}.txt", "part"), stems)
        write_text(made / CLASSES, "".join(f"{name}\n" for name in names_of.values()))
    return losses.all()


def tell_masks(objects: list[Entry], losses: Losses, part: str) -> None:
    for each in objects:
        if each.get("iscrowd"):
            losses.add("crowd: as difficult, and in a field of ours, <iscrowd>", f"{part}: annotation {each.get('id')}")


def xml_text(text: str, what: str) -> str:
    """Refuses what XML cannot hold or would trim."""
    if NOT_XML.search(text) or text != text.strip() or not text or len(text.splitlines()) > 1:
        raise ValueError(f"VOC: expected a {what} name of one plain line, found {text!r:.80}; rename it")
    return text


def annotation_tree(
    part: RawPart, image: Entry, name: str, objects: list[Entry], names_of: dict[int, str], one_based: bool
) -> str:
    tree = Element("annotation", pixels=ONE_BASED if one_based else EDGES)
    add(tree, "folder", "JPEGImages")
    add(tree, "filename", xml_text(name, "file"))
    width, height = size_wh(part, image)
    size = SubElement(tree, "size")
    add(size, "width", str(width))
    add(size, "height", str(height))
    if image["id"] in part.files:
        add(size, "depth", str(head_of(part.files[image["id"]])[2]))
    for each in objects:
        add_object(tree, each, names_of[each["category_id"]], 1.0 if one_based else 0.0)
    indent(tree)
    return tostring(tree, encoding="unicode") + "\n"


def add_object(tree: Element, each: Entry, name: str, shift: float) -> None:
    found = SubElement(tree, "object")
    add(found, "name", name)
    flags = {key: each[key] for key in FLAGS if each.get(key) is not None}
    flags |= {"difficult": 1, "iscrowd": 1} if each.get("iscrowd") else {}
    for key, value in flags.items():
        add(found, key, number_text(value) if isinstance(value, int | float) else xml_text(str(value), key))
    edges, (x, y, width, height) = SubElement(found, "bndbox"), each["bbox"]
    for tag, value in zip(("xmin", "ymin", "xmax", "ymax"), (x + shift, y + shift, x + width, y + height), strict=True):
        add(edges, tag, number_text(neat(value)))


def add(parent: Element, tag: str, text: str) -> None:
    SubElement(parent, tag).text = text
