"""Images, videos and PDFs: one lazy stream of frames from any mix of them, and videos written.

Loose images and videos are turned upright, as viewers show them. A data set is not: its boxes refer to the pixels as
they are stored, so give `exif=False` for the images of one. What cannot be read raises Unreadable, a frame at a time.
"""

from kit.media.frame import Frame, Unreadable
from kit.media.images import read_picture
from kit.media.pdfs import pdf_pages
from kit.media.sources import Source, frame_count, frames, kind_of
from kit.media.videos import VideoAbout, VideoWriter, video_about, video_frames

__all__ = [
    "Frame",
    "Source",
    "Unreadable",
    "VideoAbout",
    "VideoWriter",
    "frame_count",
    "frames",
    "kind_of",
    "pdf_pages",
    "read_picture",
    "video_about",
    "video_frames",
]
