import json
import subprocess
import sys
from hashlib import sha256

import cv2
import numpy as np
import pytest

from kit.data.fisheye import EQUIDISTANT, EQUISOLID, STEREOGRAPHIC, Camera, Lens, looking_down
from kit.data.rendering import Thing, look, make_light, paint_things
from kit.data.road_users import road_user, tree
from kit.data.scenes import CATEGORIES, LETTERS, Scene, draw_scene, plan, write_scenes
from kit.data.silhouettes import trace, visible_shares

SMALL = {"size_px": 96, "camera": 2}
TINY_SET = {"train": 5, "val": 2, "unlabelled": 1, "seed": 3, "size_px": 96, "cameras": 2, "workers": 1}
FINGERPRINT = "from kit.data.scenes import *; import hashlib; s = draw_scene(5, size_px=160, camera=2, letter='N');"
FINGERPRINT += "print(hashlib.sha256(s.image.tobytes() + s.boxes_xywh_px.tobytes()).hexdigest())"


def fingerprint(scene: Scene) -> str:
    return sha256(scene.image.tobytes() + scene.boxes_xywh_px.tobytes()).hexdigest()


def camera_of(projection=EQUIDISTANT) -> Camera:
    return Camera(Lens(projection, 230.0, (322.5, 318.0), 1.4), 6.8, looking_down(0.25, 0.4))


def thing_at(label: int, x: float, y: float, heading: float = 0.7) -> Thing:
    return Thing(road_user(label, 3), np.array([x, y]), heading)


def seen_at(label: int, x: float, y: float, camera: Camera | None = None):
    return look(thing_at(label, x, y), camera or camera_of(), make_light("A", np.random.default_rng(0)))


def box_of_mask(mask: np.ndarray) -> np.ndarray:
    rows, columns = np.nonzero(mask.any(axis=1))[0], np.nonzero(mask.any(axis=0))[0]
    return np.array([columns[0], rows[0], columns[-1] + 1 - columns[0], rows[-1] + 1 - rows[0]])


@pytest.mark.parametrize("projection", [EQUIDISTANT, EQUISOLID, STEREOGRAPHIC])
@pytest.mark.parametrize("label", range(5))
@pytest.mark.parametrize("place", [(9.0, 2.0), (-3.0, 7.5), (13.0, 9.0)])
def test_the_box_lies_within_a_pixel_of_an_object_painted_alone(projection, label, place):
    camera = camera_of(projection)
    seen = seen_at(label, *place, camera)
    _, opacity = paint_things([seen], 640)
    painted = box_of_mask(opacity > 0.25)
    box = trace(seen, camera.lens, 640).box_xywh_px
    corners = np.concatenate([box[:2] - painted[:2], box[:2] + box[2:] - painted[:2] - painted[2:]])
    assert np.abs(corners).max() < 1.0


def test_polygon_covers_what_is_painted():
    seen, camera = seen_at(2, 6.0, 4.0), camera_of()
    polygon = trace(seen, camera.lens, 640).polygon_px
    _, opacity = paint_things([seen], 640)
    assert cv2.contourArea(polygon.astype(np.float32)) == pytest.approx(opacity.sum(), rel=0.03)


def test_an_object_across_the_rim_is_cut_off_there():
    camera = camera_of()
    rim = trace(seen_at(0, 24.0, -30.0), camera.lens, 640)
    offset_px = np.linalg.norm(rim.polygon_px - np.array(camera.lens.centre_px), axis=1)
    area = cv2.contourArea(rim.polygon_px.astype(np.float32))
    assert offset_px.max() < camera.lens.circle_px + 0.5 and area < 0.9 * rim.whole_area_px


def test_an_object_outside_the_circle_has_no_silhouette():
    lens = Lens(EQUIDISTANT, 230.0, (320.0, 320.0), 0.5)
    assert trace(seen_at(2, 20.0, 0.0), lens, 640) is None


def test_a_car_behind_a_truck_is_hidden_and_the_truck_is_not():
    far, near = (
        seen_at(2, 15.0, 0.0),
        look(
            Thing(road_user(4, 3), np.array([10.0, 0.0]), np.pi / 2),
            camera_of(),
            make_light("A", np.random.default_rng(0)),
        ),
    )
    traced = [trace(one, camera_of().lens, 640) for one in (far, near)]
    hidden, whole = visible_shares([far, near], traced, 640)
    assert hidden < 0.7 and whole > 0.95


def test_a_tree_hides_but_is_never_labelled():
    light = make_light("A", np.random.default_rng(0))
    car, leaves = seen_at(2, 13.0, 0.0), look(Thing(tree(0), np.array([6.5, 0.0]), 0.0), camera_of(), light)
    traced = [trace(car, camera_of().lens, 640), None]
    assert visible_shares([car, leaves], traced, 640)[0] < 0.5


def test_a_scene_is_the_same_in_another_process_and_with_other_threads():
    threads = cv2.getNumThreads()
    try:
        cv2.setNumThreads(1)
        here = fingerprint(draw_scene(5, size_px=160, camera=2, letter="N"))
    finally:
        cv2.setNumThreads(threads)
    there = subprocess.run([sys.executable, "-c", FINGERPRINT], capture_output=True, text=True, check=True)
    assert there.stdout.strip() == here


def test_seed_camera_letter_and_frame_each_change_the_picture():
    scenes = [draw_scene(0, **SMALL, letter="M", frame=1000), draw_scene(1, **SMALL, letter="M", frame=1000)]
    scenes += [draw_scene(0, **SMALL, letter="M", frame=1001), draw_scene(0, **SMALL, letter="N", frame=1000)]
    scenes.append(draw_scene(0, size_px=96, camera=3, letter="M", frame=1000))
    assert len({fingerprint(scene) for scene in scenes}) == 5


def test_night_is_darker_than_day():
    day, night = (draw_scene(0, size_px=160, camera=8, letter=letter).image.mean() for letter in ("M", "N"))
    assert night < 0.7 * day


def test_night_or_day_can_be_asked_for():
    letters = {flag: {draw_scene(0, **SMALL, night=flag, frame=frame).letter for frame in range(6)} for flag in (0, 1)}
    assert letters[1] == {"N"} and letters[0] <= {"M", "A", "E"}


def test_outside_the_image_circle_all_is_black():
    scene = draw_scene(0, size_px=160, focal_px=50.0, centre_px=(80.0, 80.0), letter="E")
    assert scene.image[:10, :10].max() == 0 and scene.image[80, 80].max() > 0


def test_focal_length_and_centre_move_the_labels():
    near, far = (draw_scene(0, size_px=320, focal_px=f, centre_px=(160.0, 160.0), letter="M") for f in (120.0, 80.0))
    assert near.boxes_xywh_px[:, 2:].mean() > 1.2 * far.boxes_xywh_px[:, 2:].mean()


def test_boxes_are_hulls_of_polygons_inside_the_picture():
    scene = draw_scene(0, size_px=320, letter="A")
    for box, polygon in zip(scene.boxes_xywh_px, scene.polygons_px, strict=True):
        assert np.array_equal(box, [*polygon.min(axis=0), *np.ptp(polygon, axis=0)])
        assert polygon.min() >= 0 and polygon.max() <= 320 and box[2:].min() >= 4
    assert len(scene.labels) > 3 and scene.visible.min() >= 0.3 and scene.visible.max() <= 1


def test_a_picture_too_small_is_refused():
    with pytest.raises(ValueError, match="size_px must be at least 64, got 32"):
        draw_scene(0, size_px=32)


def test_image_ids_of_many_cameras_and_frames_are_unique():
    tasks = plan(train=4000, val=1000, unlabelled=1000, cameras=25, split_by_camera=False)
    assert len({int(f"{task.camera}{LETTERS.index(task.letter)}{task.frame}") for task in tasks}) == 6000


def test_parts_share_no_frame_and_by_camera_val_shares_no_camera():
    tasks = plan(train=40, val=20, unlabelled=20, cameras=4, split_by_camera=True)
    cameras = {part: {task.camera for task in tasks if task.part == part} for part in ("train", "val", "unlabelled")}
    frames = [(task.camera, task.frame) for task in tasks]
    assert len(set(frames)) == 80 and not cameras["val"] & (cameras["train"] | cameras["unlabelled"])


@pytest.mark.parametrize("cameras", [1, 3, 4, 8])
def test_each_camera_sees_every_letter(cameras):
    tasks = plan(train=4 * cameras, val=0, unlabelled=0, cameras=cameras, split_by_camera=False)
    assert {(task.camera, task.letter) for task in tasks} == {(c + 1, x) for c in range(cameras) for x in LETTERS}


def test_more_frames_than_a_part_has_are_refused():
    with pytest.raises(ValueError, match="at most 3000 frames a camera"):
        plan(train=3001, val=0, unlabelled=0, cameras=1, split_by_camera=False)


@pytest.fixture(scope="module")
def tiny_set(tmp_path_factory):
    return write_scenes(tmp_path_factory.mktemp("scenes") / "tiny", **TINY_SET)


def test_annotations_name_pictures_that_exist_with_ids_from_one(tiny_set):
    coco = json.loads((tiny_set / "annotations/instances_train.json").read_text())
    assert [one["name"] for one in coco["categories"]] == list(CATEGORIES)
    assert [one["id"] for one in coco["annotations"]] == list(range(1, len(coco["annotations"]) + 1))
    assert {one["image_id"] for one in coco["annotations"]} <= {one["id"] for one in coco["images"]}
    for image in coco["images"]:
        assert cv2.imread(str(tiny_set / "images/train" / image["file_name"])).shape == (96, 96, 3)


def test_image_ids_follow_the_file_names(tiny_set):
    image = json.loads((tiny_set / "annotations/instances_val.json").read_text())["images"][1]
    assert image["file_name"] == "camera2_A_4000.png" and image["id"] == 214000


def test_the_unlabelled_part_has_pictures_and_no_annotations(tiny_set):
    coco = json.loads((tiny_set / "annotations/instances_unlabelled.json").read_text())
    assert len(coco["images"]) == 1 and coco["annotations"] == []


def test_written_labels_are_those_of_the_scene_itself(tiny_set):
    coco = json.loads((tiny_set / "annotations/instances_train.json").read_text())
    scene = draw_scene(3, size_px=96, camera=1, letter="M", frame=1000)
    boxes = [one["bbox"] for one in coco["annotations"] if one["image_id"] == scene.image_id]
    written = cv2.imread(str(tiny_set / "images/train" / scene.file_name))[..., ::-1]
    assert np.array_equal(np.reshape(boxes, (-1, 4)), scene.boxes_xywh_px) and np.array_equal(written, scene.image)


def test_the_same_recipe_is_not_drawn_again_and_another_is_refused(tiny_set):
    before = (tiny_set / "recipe.json").stat().st_mtime_ns
    assert write_scenes(tiny_set, **TINY_SET) == tiny_set
    assert (tiny_set / "recipe.json").stat().st_mtime_ns == before
    with pytest.raises(ValueError, match=r"another recipe.*'seed': \(3, 4\)"):
        write_scenes(tiny_set, **(TINY_SET | {"seed": 4}))


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "holiday.txt").write_text("photographs")
    with pytest.raises(ValueError, match=r"scenes with a recipe\.json"):
        write_scenes(tmp_path, **TINY_SET)


def test_a_drawing_that_breaks_off_leaves_nothing(tmp_path):
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_scenes(tmp_path / "scenes", **TINY_SET, progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_progress_counts_to_the_end_and_two_processes_draw_the_same(tiny_set, tmp_path):
    calls: list[tuple[int, int]] = []
    twice = write_scenes(
        tmp_path / "again", **(TINY_SET | {"workers": 2}), progress=lambda done, total: calls.append((done, total))
    )
    assert calls == [(done, 8) for done in range(1, 9)]
    for path in tiny_set.rglob("*.*"):
        assert path.read_bytes() == (twice / path.relative_to(tiny_set)).read_bytes()
