"""The D-FINE detector (arXiv 2410.13842): `detector.py` is the way in."""
