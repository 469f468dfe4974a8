"""Do the labels say something of the pictures? A plain classifier learns them from small crops of the boxes.

Ridge regression on colours, directions of edges, size and place of each box, tried on images that it has not seen. What
it reaches is compared with what it reaches when the same labels are shuffled: labels that are no better than shuffled
ones say nothing that is to be seen. Learned on train and tried on val, it tells too when one of the two counts its
classes from another number. It is no judge of what a detector can learn.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from kit.data.dataset import CocoDataset
from kit.data.picture import Picture
from kit.doctor.loader import UNREADABLE
from kit.doctor.report import Verdict, judged
from kit.predict import Progress

PART = "classes"
SIDE = 8  # px of a crop
DIRECTIONS = 8
FOLDS = 5
SHUFFLES = 40
LEAST_BOXES = 60
LEAST_OF_CLASS = 8
ENOUGH_OF_CLASS = 40  # boxes, on average, before labels are called wrong
SURE, LIKELY = 4.0, 2.5  # standard deviations of the shuffled ones
RIDGE = 10.0


@dataclass(frozen=True)
class Crops:
    """Boxes of many images: features (N, F), labels (N,), images (N,) the index of each one's image."""

    features: np.ndarray
    labels: np.ndarray
    images: np.ndarray


def check_looks(
    train_set: CocoDataset, val_set: CocoDataset | None, most: int, seed: int, progress: Progress | None
) -> list[Verdict]:
    """most: boxes looked at, of each part."""
    crops = frequent(crops_of(train_set, most, seed, progress))
    verdicts = [check_shuffled(crops, seed)]
    if val_set is not None and verdicts[0].mark == "well" and len(np.unique(crops.labels)) > 1:
        verdicts.append(check_across(crops, crops_of(val_set, most, seed, progress), len(train_set.coco.names)))
    return verdicts


def check_shuffled(crops: Crops, seed: int) -> Verdict:
    question = "Do the labels follow from what is in the boxes?"
    classes = len(np.unique(crops.labels))
    if classes < 2 or len(crops.labels) < LEAST_BOXES:
        is_one = classes == 1 and len(crops.labels) >= LEAST_BOXES
        found = "one class, so nothing to tell apart" if is_one else f"{len(crops.labels)} boxes of {classes} classes"
        expected = f"two classes of {LEAST_OF_CLASS} boxes, {LEAST_BOXES} in all"
        mend = "too few to be judged: look at the pictures of the batches"
        return judged(PART, question, False, not is_one, expected, found, mend)
    own, shuffled = recalls(crops, seed)
    sure = (own - shuffled.mean()) / max(float(shuffled.std()), 1e-9)
    enough = len(crops.labels) >= ENOUGH_OF_CLASS * classes
    return judged(
        PART,
        question,
        enough and sure < LIKELY,
        sure < SURE,
        f"more than the {shuffled.mean():.0%} of shuffled labels",
        f"{own:.0%} of the boxes of each class told by their look, {sure:.1f} standard deviations more",
        "the labels say nothing of the boxes: were they shuffled, or read in another order than the boxes?",
    )


def check_across(train: Crops, val: Crops, num_classes: int) -> Verdict:
    """Learned on train: do labels of val fit better when each is counted one higher or lower?"""
    guesses = Known.of(train.features).learn(train.labels)(val.features)
    share = {step: mean_recall(guesses, (val.labels + step) % num_classes) for step in (-1, 0, 1)}
    known = np.isin(val.labels, train.labels)
    best = max(share, key=lambda step: share[step])
    spread = 0.5 / max(1, int(known.sum())) ** 0.5
    is_off = best != 0 and share[best] - share[0] > SURE * spread
    found = f"{share[0]:.0%} of val told by what train has taught; "
    found += f"{share[1]:.0%} and {share[-1]:.0%} were each class one higher or lower"
    mend = "one part counts its classes from 0 and the other from 1, or the two list them in another order"
    return judged(
        PART,
        "Do train and val mean the same by a class?",
        is_off,
        False,
        "the most with the classes as they are",
        found,
        mend,
    )


# --- the classifier ---


def recalls(crops: Crops, seed: int) -> tuple[float, np.ndarray]:
    """Mean recall over the classes on images not seen: of the labels, and of SHUFFLES shuffled ones."""
    rng = np.random.default_rng([seed, 6])
    fold = rng.integers(FOLDS, size=int(crops.images.max()) + 1)[crops.images]
    tried = np.stack([crops.labels, *(rng.permutation(crops.labels) for _ in range(SHUFFLES))])
    guesses = np.empty_like(tried)
    for held in range(FOLDS):
        seen, unseen = fold != held, fold == held
        if seen.any() and unseen.any():
            known = Known.of(crops.features[seen])
            for row, labels in enumerate(tried):
                guesses[row, unseen] = known.learn(labels[seen])(crops.features[unseen])
    each = np.array([mean_recall(guess, labels) for guess, labels in zip(guesses, tried, strict=True)])
    return float(each[0]), each[1:]


@dataclass(frozen=True)
class Model:
    """Scores of each class are linear in the features."""

    mean: np.ndarray  # (F,)
    spread: np.ndarray  # (F,)
    weights: np.ndarray  # (F + 1, C)
    classes: np.ndarray  # (C,)

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """(N, F) -> (N,) labels."""
        found: np.ndarray = self.classes[(with_one((features - self.mean) / self.spread) @ self.weights).argmax(axis=1)]
        return found


@dataclass(frozen=True)
class Known:
    """Features of the boxes to learn from; many labellings of them can be learned."""

    mean: np.ndarray  # (F,)
    spread: np.ndarray  # (F,)
    rows: np.ndarray  # (N, F + 1)
    inverse: np.ndarray  # (F + 1, F + 1)

    @classmethod
    def of(cls, features: np.ndarray) -> "Known":
        """features: (N, F)."""
        mean, spread = features.mean(axis=0), features.std(axis=0) + 1e-6
        rows = with_one((features - mean) / spread)
        return cls(mean, spread, rows, np.linalg.inv(rows.T @ rows + RIDGE * np.eye(rows.shape[1])))

    def learn(self, labels: np.ndarray) -> Model:
        """labels: (N,); rare classes count as much as frequent ones."""
        classes, place, counts = np.unique(labels, return_inverse=True, return_counts=True)
        answers = (np.arange(len(classes)) == place[:, None]) / np.sqrt(counts)  # (N, C)
        return Model(self.mean, self.spread, self.inverse @ (self.rows.T @ answers), classes)


def with_one(features: np.ndarray) -> np.ndarray:
    """(N, F) -> (N, F + 1)."""
    return np.concatenate([features, np.ones((len(features), 1))], axis=1)


def mean_recall(guesses: np.ndarray, labels: np.ndarray) -> float:
    """The share of each class that was told, averaged over the classes: (N,), (N,)."""
    return float(np.mean([(guesses[labels == each] == each).mean() for each in np.unique(labels)]))


def frequent(crops: Crops) -> Crops:
    """Only classes of which there are enough to learn one."""
    classes, counts = np.unique(crops.labels, return_counts=True)
    rows = np.isin(crops.labels, classes[counts >= LEAST_OF_CLASS])
    return Crops(crops.features[rows], crops.labels[rows], crops.images[rows])


# --- what it sees of a box ---


def crops_of(dataset: CocoDataset, most: int, seed: int, progress: Progress | None) -> Crops:
    """Boxes of images drawn by chance, at most `most`; and no more images than that."""
    features, labels, images = [np.zeros((0, feature_count()))], [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    order = np.random.default_rng([seed, 5]).permutation(len(dataset))[:most]
    count = 0
    for index in order.tolist():
        try:
            picture = dataset.load(index)
        except UNREADABLE:
            continue  # named by the check of the files
        found = features_of(picture)
        features.append(found)
        labels.append(picture.labels)
        images.append(np.full(len(found), index))
        count += len(found)
        if progress:
            progress(min(count, most - 1), most)
        if count >= most:
            break
    if progress:
        progress(most, most)
    return Crops(*(np.concatenate(each) for each in (features, labels, images)))


def feature_count() -> int:
    return 3 * SIDE * SIDE + 4 * DIRECTIONS + 4


def features_of(picture: Picture) -> np.ndarray:
    """Colours of the crop, how strong its edges are in each direction by quarter, log size, place: (N, F)."""
    rows = [features_of_box(picture.image, box) for box in picture.boxes_xyxy_px]
    return np.stack(rows) if rows else np.zeros((0, feature_count()))


def features_of_box(image: np.ndarray, box_xyxy_px: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    x0, y0 = np.floor(box_xyxy_px[:2]).astype(int).clip(0, [width - 1, height - 1]).tolist()
    x1, y1 = np.ceil(box_xyxy_px[2:]).astype(int).clip([x0 + 1, y0 + 1], [width, height]).tolist()
    crop = image[y0:y1, x0:x1, :3]
    crop = np.broadcast_to(crop, (*crop.shape[:2], 3)) if crop.shape[2] == 1 else crop
    colours = cv2.resize(crop, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float64) / 255
    grey = cv2.resize(crop, (4 * SIDE, 4 * SIDE), interpolation=cv2.INTER_AREA).mean(axis=2) / 255
    size = np.log([max(1.0, x1 - x0) / width, max(1.0, y1 - y0) / height])
    place = [(x0 + x1) / 2 / width, (y0 + y1) / 2 / height]
    return np.concatenate([colours.reshape(-1), directions(grey), size, place])


def directions(grey: np.ndarray) -> np.ndarray:
    """Edges by direction in each quarter: (4 SIDE, 4 SIDE) -> (4 DIRECTIONS,)."""
    down, right = np.gradient(grey)
    strength, angle = np.hypot(down, right), np.arctan2(down, right) % np.pi
    which = np.minimum((angle / np.pi * DIRECTIONS).astype(int), DIRECTIONS - 1)
    half = len(grey) // 2
    quarters = [(slice(a, a + half), slice(b, b + half)) for a in (0, half) for b in (0, half)]
    return np.concatenate(
        [np.bincount(which[quarter].reshape(-1), strength[quarter].reshape(-1), DIRECTIONS) for quarter in quarters]
    )
