"""Objects365 (v2, 2020) as it is downloaded, and what the official recipes do with it before training.

train/zhiyuan_objv2_train.json and val/zhiyuan_objv2_val.json name files as images/v1/patch8/objects365_v1_00420917.jpg;
on the disk they lie in patches: train/patch8/..., train/images/v1/patch8/..., or all together. D-FINE keeps the first
5,000 images of val for validation and trains on the others too, under images_from_val/; images over 640 px on their
long side are made smaller, with their boxes. Here boxes follow the sides of the written image exactly (the official
script cuts its size to whole pixels but not the boxes' scale), and the size is rounded: the long side is 640.
It is only read: its files are COCO JSON in patch folders of its own numbering, so that writing COCO does all of it.
"""

from dataclasses import replace
from pathlib import Path, PurePosixPath

from kit.data.formats.coco import read_content
from kit.data.formats.images import inside, size_wh
from kit.data.formats.raw import Entry, RawDataset, RawPart, box_of, is_number, joined_categories

KEPT = 5000  # images of val that stay there
FROM_VAL = "images_from_val"


def annotation_files(root: Path) -> dict[str, list[Path]]:
    """Part: its JSON files, one or several, zhiyuan_objv2_{train,val}*.json in the folder or one of the usual ones."""
    tops = [root, root / "data", root / "annotations", root / "data" / "annotations"]
    folders = [folder for top in tops for folder in (top, top / "train", top / "val")]
    found: dict[str, list[Path]] = {}
    for part in ("train", "val"):
        pattern = f"*objv2_{part}*.json*"
        files = {path.absolute(): path for folder in folders for path in sorted(folder.glob(pattern))}
        if files:
            found[part] = list(files.values())
    return found


def read_objects365(root: Path) -> RawDataset:
    """Both parts; several JSON files of a part are put together."""
    files = annotation_files(root)
    if not files:
        raise ValueError(f"{root}: expected train/zhiyuan_objv2_train.json or val/..., found none; check the path")
    contents = {name: [(path, read_content(path)) for path in paths] for name, paths in files.items()}
    lists = {str(path): each.get("categories") or [] for part in contents.values() for path, each in part}
    notes: list[str] = []
    parts = [joined_part(name, pieces, root, notes) for name, pieces in contents.items()]
    return RawDataset(joined_categories(lists), parts, notes)


def joined_part(name: str, pieces: list[tuple[Path, Entry]], root: Path, notes: list[str]) -> RawPart:
    """One part out of its files; ids must not clash between them but for entries that are the same."""
    images: dict[int, Entry] = {}
    for path, content in pieces:
        for image in content["images"]:
            if images.setdefault(image["id"], image) != image:
                raise ValueError(
                    f"{path}: expected image ids of its own, found {image['id']} again; use kit.data.merge"
                )
    annotations = [each for _, content in pieces for each in content.get("annotations") or []]
    part = RawPart(name, list(images.values()), annotations, found_files(list(images.values()), root, name))
    return with_own_ids(part, notes)


def with_own_ids(part: RawPart, notes: list[str]) -> RawPart:
    """Annotations numbered anew where two have one id."""
    ids = [each.get("id") for each in part.annotations]
    if all(type(each) is int for each in ids) and len(set(ids)) == len(ids):
        return part
    notes.append(f"{part.name}: annotation ids clash between files: numbered anew")
    return replace(part, annotations=[each | {"id": number} for number, each in enumerate(part.annotations, 1)])


def found_files(images: list[Entry], root: Path, part: str) -> dict[int, Path]:
    """Image id: file, where it is there."""
    tops = [top for base in (root, root / "data") for top in (base / part, base / "images" / part) if top.is_dir()]
    found = {}
    for image in images:
        path = found_file(str(image["file_name"]), tops, part)
        if path is not None:
            found[image["id"]] = path
    return found


def found_file(name: str, tops: list[Path], part: str) -> Path | None:
    """A file by its whole name, by its patch and name, or by its name alone."""
    pieces = PurePosixPath(name).parts
    wanted = dict.fromkeys("/".join(pieces[-count:]) for count in (len(pieces), 3, 2, 1))
    tried = (inside(top, prefix + each, part) for top in tops for each in wanted for prefix in ("", "images/"))
    return next((path for path in tried if path.is_file()), None)


def remapped(dataset: RawDataset, kept: int = KEPT) -> RawDataset:
    """The first images of val stay; the others, in order and before train's own, train under images_from_val/.

    Image ids that clash with those of train are changed, and so are annotation ids then.
    """
    parts = {part.name: part for part in dataset.parts}
    if set(parts) != {"train", "val"}:
        raise ValueError(f"remap: expected the parts train and val, found {', '.join(parts)}; get both")
    train, val = parts["train"], parts["val"]
    stay = {image["id"] for image in val.images[:kept]}
    moved = moved_part(val, stay, train)
    notes = [f"{len(moved.images)} images of val train, under {FROM_VAL}/; {len(stay)} stay in val"]
    images, annotations = moved.images + train.images, moved.annotations + train.annotations
    joined = RawPart("train", images, annotations, moved.files | train.files, train.extras)
    return replace(dataset, parts=[with_own_ids(joined, notes), only(val, stay)], notes=[*dataset.notes, *notes])


def only(part: RawPart, image_ids: set[int]) -> RawPart:
    return replace(
        part,
        images=[image for image in part.images if image["id"] in image_ids],
        annotations=[each for each in part.annotations if each["image_id"] in image_ids],
        files={key: path for key, path in part.files.items() if key in image_ids},
    )


def moved_part(val: RawPart, stay: set[int], train: RawPart) -> RawPart:
    """What goes from val to train, under new names, and new image ids where train has them already."""
    going = only(val, {image["id"] for image in val.images} - stay)
    taken = {image["id"] for image in train.images}
    ids = {image["id"] for image in going.images}
    first = max(taken | ids, default=0) + 1 if taken & ids else 0
    new = {image["id"]: first + row if first else image["id"] for row, image in enumerate(going.images)}
    return replace(
        going,
        images=[image | {"id": new[image["id"]], "file_name": moved_name(image)} for image in going.images],
        annotations=[each | {"image_id": new[each["image_id"]]} for each in going.annotations],
        files={new[key]: path for key, path in going.files.items()},
    )


def moved_name(image: Entry) -> str:
    """images/v1/patch8/a.jpg -> images_from_val/v1/patch8/a.jpg."""
    pieces = PurePosixPath(str(image["file_name"])).parts
    return "/".join([FROM_VAL, *(pieces[1:] if len(pieces) > 1 else pieces)])


# --- smaller images ---


def with_longest_side(dataset: RawDataset, longest_px: int) -> RawDataset:
    """Images over that many pixels on their long side are to be written smaller; their labels are scaled along."""
    if longest_px < 1:
        raise ValueError(f"longest side: expected 1 px or more, found {longest_px}")
    notes: list[str] = []
    parts = [smaller_part(part, longest_px, notes) for part in dataset.parts]
    return replace(dataset, parts=parts, notes=[*dataset.notes, *notes])


def smaller_part(part: RawPart, longest_px: int, notes: list[str]) -> RawPart:
    sizes = {image["id"]: size_wh(part, image) for image in part.images}
    targets = {key: smaller_size(size, longest_px) for key, size in sizes.items() if max(size) > longest_px}
    scales = {key: (wh[0] / sizes[key][0], wh[1] / sizes[key][1]) for key, wh in targets.items()}
    images = [
        image | {"width": targets[image["id"]][0], "height": targets[image["id"]][1]}
        if image["id"] in targets
        else image
        for image in part.images
    ]
    annotations = [
        scaled(each, scales[each["image_id"]]) if each["image_id"] in scales else each for each in part.annotations
    ]
    masks = sum("segmentation" in each for each in part.annotations) - sum(
        "segmentation" in each for each in annotations
    )
    notes.append(f"{part.name}: {len(targets)} of {len(sizes)} images are over {longest_px} px and made smaller")
    if masks:
        notes.append(f"{part.name}: {masks} masks of runs left out: they do not scale")
    return replace(part, images=images, annotations=annotations, resize_wh=targets)


def smaller_size(size: tuple[int, int], longest_px: int) -> tuple[int, int]:
    scale = longest_px / max(size)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def scaled(annotation: Entry, scale_xy: tuple[float, float]) -> Entry:
    """Box, area and polygons of an annotation at the size of its image."""
    result, box = dict(annotation), box_of(annotation)
    factors = [scale_xy[0], scale_xy[1], scale_xy[0], scale_xy[1]]
    if box is not None:
        result["bbox"] = [value * factor for value, factor in zip(box, factors, strict=True)]
    if is_number(annotation.get("area")):
        result["area"] = annotation["area"] * scale_xy[0] * scale_xy[1]
    parts = annotation.get("segmentation")
    if isinstance(parts, dict):
        del result["segmentation"]
    elif isinstance(parts, list):
        result["segmentation"] = [
            [value * scale_xy[place % 2] for place, value in enumerate(part)] if is_ring(part) else part
            for part in parts
        ]
    return result


def is_ring(part: object) -> bool:
    return isinstance(part, list) and all(map(is_number, part))
