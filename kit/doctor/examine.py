"""All questions, one after the other; the user's data and weights are left as they are."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from kit.data.coco import columns_of
from kit.data.dataset import Batch, CocoDataset
from kit.data.picture import Size
from kit.dfine.detector import Detector
from kit.doctor import cost, edges, labels, loader, looks, overfit, rates, start
from kit.doctor.report import Report, judged
from kit.doctor.steps import Setting, batches_of, few_images, is_untrained, plain_batch
from kit.optimisation import Plan
from kit.predict import Progress

KEPT_BATCHES = 12
CLIP_NORM = 0.1  # while images are learned by heart
PLAIN_IMAGES = 40  # whose boxes are compared with the file
Bars = Callable[[str], Progress | None]  # of each step, by its name
RATE_BATCH = 4  # images of a step of the learning-rate range


@dataclass(frozen=True)
class Effort:
    """How far the doctor goes; by default some minutes on two cores."""

    overfit_images: int = 8
    overfit_size_hw: Size = (320, 320)
    overfit_steps: int = 120
    rate_steps: int = 80
    loader_s: float = 10.0
    files: int = 300  # images that are opened
    boxes: int = 1000  # that the plain classifier looks at, of each part
    trains: bool = True  # or looks at the data alone
    step_images: int = 2  # of the planned size, in the steps that are measured


def doctor(
    detector: Detector,
    train_set: CocoDataset,
    val_set: CocoDataset | None = None,
    *,
    plan: Plan,
    effort: Effort | None = None,
    bars: Bars | None = None,
) -> Report:
    """Is everything well before hours are spent? `kit.plots.write_doctor_page` makes a page of the answers.

    Looks at the loader, the labels as the model sees them, the loss at the start and the gradients, learns a few images
    by heart, and measures the learning-rate range, time and memory of a step. bars: makes a progress of each step.
    """
    return Examination(detector, train_set, val_set, plan, effort or Effort(), bars or no_bar).all()


def no_bar(what: str) -> Progress | None:
    return None


class Examination:
    """One call of `doctor`."""

    def __init__(
        self,
        detector: Detector,
        train_set: CocoDataset,
        val_set: CocoDataset | None,
        plan: Plan,
        effort: Effort,
        bars: Bars,
    ):
        self.detector, self.train_set, self.val_set = detector, train_set, val_set
        self.plan, self.effort, self.bars = plan, effort, bars
        about = f"{train_set.coco.path}: {len(train_set):,} images, D-FINE {detector.size.name}"
        self.report = Report(about, list(train_set.coco.names))

    def all(self) -> Report:
        if not len(self.train_set):
            raise ValueError(f"{self.train_set.coco.path}: expected images to train on, found none; check the file")
        self.data()
        self.places()
        loaded = self.batches()
        if self.effort.trains and not self.refuses_to_train():
            self.training(loaded)
        return self.report

    def data(self) -> None:
        """What needs no detector and no batch."""
        train_set, plan, effort, report = self.train_set, self.plan, self.effort, self.report
        report.verdicts += loader.check_order(train_set, plan)
        report.verdicts.append(loader.check_files(train_set, effort.files, plan.seed, self.bars("images")))
        report.verdicts += labels.check_annotations(train_set)
        report.verdicts.append(labels.check_sizes(train_set, plan.size_hw))

    def places(self) -> None:
        train_set, plan, effort, report = self.train_set, self.plan, self.effort, self.report
        verdicts, found = edges.check_place(train_set, effort.files, plan.seed, self.bars("boxes on edges"))
        report.verdicts += verdicts
        if found is not None:
            report.maps["place"] = found
        report.verdicts += looks.check_looks(
            train_set, self.val_set, effort.boxes, plan.seed, self.bars("labels and looks")
        )

    def batches(self) -> loader.Loaded:
        """What the loader gives, with augmentation; the report gets pictures of it."""
        train_set, plan, report = self.train_set, self.plan, self.report
        loaded = loader.load(train_set, plan, self.effort.loader_s, KEPT_BATCHES, self.bars("batches"))
        readable = report.of(loader.PART)[-1].mark == "well"
        if readable or loaded.batches:
            report.verdicts += loader.check_batches(loaded, train_set, plan)
        if readable:
            report.verdicts.append(labels.check_plain(train_set, plan.size_hw, PLAIN_IMAGES, plan.seed))
        report.verdicts += labels.check_targets(loaded, self.detector.num_classes, self.detector.size.queries)
        report.verdicts.append(labels.check_losses_of_boxes(loaded, train_set))
        report.images["batch"] = labels.images_of(loaded)
        return loaded

    def refuses_to_train(self) -> bool:
        """A label that no class of the model has would end the first step in the middle of an index."""
        classes = self.detector.num_classes
        most = int(columns_of(self.train_set.coco).labels.max(initial=-1))
        asked = [each for each in self.report.of(labels.PART) if each.question.startswith("Are the labels classes")]
        found = ""
        if most >= classes or any(each.mark == "wrong" for each in asked):
            found = "labels that the model does not have"
        elif not few_images(self.train_set, 1, self.effort.overfit_size_hw, self.plan.seed):
            found = "no image with a box that can be learned"
        if found:
            mend = "mend what is wrong above, and ask again"
            question = "Can a training be tried?"
            self.report.verdicts.append(judged(start.PART, question, True, True, "images to learn from", found, mend))
        return bool(found)

    def training(self, loaded: loader.Loaded) -> None:
        """What trains a little, each on a copy of its own."""
        plan, effort, report, detector = self.plan, self.effort, self.report, self.detector
        setting = Setting(plan.classification, plan.seed, effort.overfit_size_hw, CLIP_NORM)
        unclipped = replace(setting, clip_norm=None)
        indices = few_images(self.train_set, effort.overfit_images, setting.size_hw, setting.seed)
        batch = plain_batch(self.train_set, indices, setting.size_hw)
        begun, terms = start.check_start(detector, batch, setting, is_untrained(detector))
        gradients, parts = start.check_gradients(detector, batch, unclipped)
        report.verdicts += [begun, *gradients]
        report.tables |= {"loss": terms, "gradients": parts}
        bar, steps = self.bars("a few images by heart"), effort.overfit_steps
        learned, curves, images = overfit.check_overfit(detector, self.train_set, indices, setting, steps, bar)
        report.verdicts.append(learned)
        report.curves |= curves
        report.images["overfit"] = images
        few, planned = batches_of(self.train_set, indices, RATE_BATCH, setting.size_hw), plan.recipe
        setting = replace(setting, clip_norm=plan.clip_norm)
        rated, curve = rates.check_rates(detector, few, planned, setting, effort.rate_steps, self.bars("rates"))
        report.verdicts.append(rated)
        report.curves["rate"] = curve
        self.costs(loaded, indices)

    def costs(self, loaded: loader.Loaded, indices: list[int]) -> None:
        plan, effort = self.plan, self.effort
        most = max(1, min(effort.step_images, plan.batch_size // plan.accumulate))
        batch: Batch = plain_batch(self.train_set, list(np.resize(indices, most)), plan.size_hw)
        val_images = len(self.val_set) if self.val_set is not None else 0
        found = cost.measure(self.detector, batch, plan, len(self.train_set), val_images)
        self.report.verdicts += cost.check_cost(found, plan)
        if loaded.images:
            self.report.verdicts.append(loader.check_rate(loaded, found.rate, plan.workers))
