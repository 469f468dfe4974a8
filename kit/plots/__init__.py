"""Pictures of data, training, results and mistakes: each function returns a figure and shows nothing by itself."""

from kit.plots.augmented import plot_road_regions, show_pasted, show_pictures
from kit.plots.bench import plot_bench
from kit.plots.canvas import class_colour, save_figure
from kit.plots.census import plot_camera_positions, plot_counts, plot_crowding, plot_folds
from kit.plots.doctor import write_doctor_page
from kit.plots.final_score import plot_final_scores
from kit.plots.gains import plot_gains, show_changes
from kit.plots.label_mistakes import show_label_mistakes
from kit.plots.mistakes import plot_confusion, plot_error_causes, plot_scores_by, show_worst_images
from kit.plots.parity import plot_parity
from kit.plots.pictures import Shot, show_batch, show_detections, show_images, show_mistakes, show_sample, show_shots
from kit.plots.pseudo import plot_added, plot_agreement, plot_label_scores, plot_worth, show_pseudo_labels
from kit.plots.results import plot_f1_curves, plot_history, plot_precision_recall, plot_thresholds
from kit.plots.stage2 import plot_candidates, plot_pseudo_gain, plot_soup, plot_stage2
from kit.plots.statistics import (
    plot_box_sizes,
    plot_cameras,
    plot_class_counts,
    plot_comparison,
    plot_objects_per_image,
    plot_positions,
    plot_radius,
)
from kit.plots.suspects import closest, plot_nearest, plot_suspects, show_suspects, show_twins

__all__ = [
    "Shot",
    "class_colour",
    "closest",
    "plot_added",
    "plot_agreement",
    "plot_bench",
    "plot_box_sizes",
    "plot_camera_positions",
    "plot_cameras",
    "plot_candidates",
    "plot_class_counts",
    "plot_comparison",
    "plot_confusion",
    "plot_counts",
    "plot_crowding",
    "plot_error_causes",
    "plot_f1_curves",
    "plot_final_scores",
    "plot_folds",
    "plot_gains",
    "plot_history",
    "plot_label_scores",
    "plot_nearest",
    "plot_objects_per_image",
    "plot_parity",
    "plot_positions",
    "plot_precision_recall",
    "plot_pseudo_gain",
    "plot_radius",
    "plot_road_regions",
    "plot_scores_by",
    "plot_soup",
    "plot_stage2",
    "plot_suspects",
    "plot_thresholds",
    "plot_worth",
    "save_figure",
    "show_batch",
    "show_changes",
    "show_detections",
    "show_images",
    "show_label_mistakes",
    "show_mistakes",
    "show_pasted",
    "show_pictures",
    "show_pseudo_labels",
    "show_sample",
    "show_shots",
    "show_suspects",
    "show_twins",
    "show_worst_images",
    "write_doctor_page",
]
