"""Data: COCO files, their check, augmentation, data sets and loaders, and the scenes that kit draws itself."""
