"""Stages that work at the same time: each goes on while the next one is busy, but only so far ahead.

Nothing here waits on a queue, so whoever stops early leaves no thread behind: pieces that have not begun are cancelled.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from types import TracebackType
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")


def ahead(items: Generator[T, None, None], depth: int) -> Generator[T, None, None]:
    """The same items, from a thread that keeps up to `depth` of them ready; the generator is closed at the end."""
    end = object()
    with closing(items), ThreadPoolExecutor(1) as pool:
        ready: deque[Future[Any]] = deque(pool.submit(next, items, end) for _ in range(depth))
        try:
            while (item := ready.popleft().result()) is not end:
                ready.append(pool.submit(next, items, end))
                yield item
        finally:
            for each in ready:
                each.cancel()


def in_order(pool: Executor, work: Callable[[T], R], items: Iterator[T], depth: int) -> Generator[R, None, None]:
    """What work makes of each item, in the order of the items, with up to `depth` of them under way."""
    under_way: deque[Future[R]] = deque()
    try:
        for item in items:
            under_way.append(pool.submit(work, item))
            if len(under_way) >= depth:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    finally:
        for each in under_way:
            each.cancel()


class Bounded:
    """Work for threads, of which nobody awaits a result; with `depth` pieces under way, the next one has to wait.

    A context manager. An error of a piece comes out when a later one is handed over, or at the end.
    """

    def __init__(self, threads: int, depth: int):
        self.pool = ThreadPoolExecutor(threads)
        self.depth = depth
        self.under_way: deque[Future[Any]] = deque()

    def __call__(self, work: Callable[..., Any], *arguments: Any) -> None:
        if len(self.under_way) >= self.depth:
            self.under_way.popleft().result()
        self.under_way.append(self.pool.submit(work, *arguments))

    def wait(self) -> None:
        while self.under_way:
            self.under_way.popleft().result()

    def __enter__(self) -> "Bounded":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self.wait()
        finally:
            self.pool.shutdown(cancel_futures=True)


class Clock:
    """Seconds that each stage has worked, in all threads together."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.lock = threading.Lock()

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            with self.lock:
                self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - began

    def each(self, stage: str, items: Generator[T, None, None]) -> Generator[T, None, None]:
        """The same items; what it takes to make them belongs to the stage."""
        end: Any = object()
        try:
            while True:
                with self(stage):
                    item = next(items, end)
                if item is end:
                    return
                yield item
        finally:
            items.close()
