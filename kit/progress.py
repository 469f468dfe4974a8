"""How far a long loop is: a bar with the time to go in the notebook, and a file for whoever watches from outside."""

import sys
import time
from pathlib import Path

from tqdm import tqdm

from kit.files import progress_file

LEAST_S = 1.0  # between two states of a bar, and
SHARE = 0.02  # of the time it has run: an executed notebook keeps them all, of a run of days too


class Bar:
    """Callable with (done, total). path: of the file that `kit.pipeline` looks at, where nothing else writes one."""

    def __init__(self, what: str, path: Path | None = None):
        self.what = what
        self.write = None if path is None else progress_file(path, what)
        self.bar: tqdm | None = None
        self.started = self.shown = 0.0

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if self.write:
            self.write(done, total)
        if self.bar is None:  # what was done before is not of its time
            self.started = now
            self.bar = tqdm(desc=self.what, total=total, initial=max(done - 1, 0), mininterval=0, file=sys.stdout)
        elif now - self.shown < max(LEAST_S, SHARE * (now - self.started)) and done < total:
            return
        self.shown = now
        self.bar.update(done - self.bar.n)
        if done >= total:
            self.bar.close()
            self.bar = None

    def say(self, text: str) -> None:
        """A line that stays, above the bar."""
        tqdm.write(text, file=sys.stdout)
