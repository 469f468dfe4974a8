"""Detectors outside of torch: the runtimes, and what each of them needs."""
