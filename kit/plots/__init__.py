"""Pictures of data, training, results and mistakes: each function returns a figure and shows nothing by itself."""

from kit.plots.canvas import class_colour, save_figure
from kit.plots.mistakes import plot_confusion, plot_error_causes, plot_scores_by, show_worst_images
from kit.plots.pictures import Shot, show_batch, show_detections, show_images, show_mistakes, show_sample, show_shots
from kit.plots.results import plot_f1_curves, plot_history, plot_precision_recall, plot_thresholds
from kit.plots.statistics import (
    plot_box_sizes,
    plot_cameras,
    plot_class_counts,
    plot_comparison,
    plot_objects_per_image,
    plot_positions,
    plot_radius,
)

__all__ = [
    "Shot",
    "class_colour",
    "plot_box_sizes",
    "plot_cameras",
    "plot_class_counts",
    "plot_comparison",
    "plot_confusion",
    "plot_error_causes",
    "plot_f1_curves",
    "plot_history",
    "plot_objects_per_image",
    "plot_positions",
    "plot_precision_recall",
    "plot_radius",
    "plot_scores_by",
    "plot_thresholds",
    "save_figure",
    "show_batch",
    "show_detections",
    "show_images",
    "show_mistakes",
    "show_sample",
    "show_shots",
    "show_worst_images",
]
