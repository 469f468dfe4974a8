"""Data sets as others lay them out: read into COCO entries as they stand, and written from them.

The readers are our own because libraries that read many formats round boxes to whole pixels or to float32, take
polygons out of masks, or leave out images without boxes and say nothing of it.
"""
