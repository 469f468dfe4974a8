"""An HTML gallery of a data set: one folder, no server. Images as stored, as the model gets them, and what is wrong."""

from kit.plots.gallery.draws import DrawnSet, show_draws, training_draws, training_sampler
from kit.plots.gallery.folder import Gallery, write_gallery
from kit.plots.gallery.shown import Part, find_parts

__all__ = [
    "DrawnSet",
    "Gallery",
    "Part",
    "find_parts",
    "show_draws",
    "training_draws",
    "training_sampler",
    "write_gallery",
]
