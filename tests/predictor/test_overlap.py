import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from kit.params import ROOT
from kit.predictor.overlap import Bounded, Clock, ahead, in_order


class Counted:
    """Counts what has been made, and remembers that it was closed."""

    def __init__(self, count: int):
        self.count, self.made, self.is_closed = count, 0, False

    def items(self) -> Iterator[int]:
        try:
            for number in range(self.count):
                self.made += 1
                yield number
        finally:
            self.is_closed = True


def wait_until(is_so: Callable[[], bool]) -> None:
    """At most 20 s; then a moment longer, in which more could happen than should."""
    end = time.monotonic() + 20
    while not is_so() and time.monotonic() < end:
        time.sleep(0.01)
    time.sleep(0.05)


def test_items_come_in_order_and_all_of_them():
    assert list(ahead(Counted(100).items(), 3)) == list(range(100))
    assert list(ahead(Counted(0).items(), 3)) == []


def test_the_thread_runs_only_so_far_ahead():
    source = Counted(100)
    items = ahead(source.items(), 4)
    assert next(items) == 0
    wait_until(lambda: source.made >= 5)
    assert source.made == 5  # one is taken, four are ready
    items.close()


def test_who_stops_early_leaves_no_thread_and_the_source_is_closed():
    before = threading.active_count()
    source = Counted(100)
    for item in ahead(source.items(), 4):
        if item == 2:
            break
    assert threading.active_count() == before
    assert source.is_closed and source.made < 100


def test_an_error_of_the_source_comes_out_in_its_place():
    def failing() -> Iterator[int]:
        yield 1
        raise OSError("the disk is gone")

    items = ahead(failing(), 4)
    assert next(items) == 1
    with pytest.raises(OSError, match="the disk is gone"):
        next(items)


def test_stages_one_behind_the_other_stop_together():
    before = threading.active_count()
    source = Counted(100)
    items = ahead(ahead(source.items(), 2), 2)
    assert next(items) == 0
    items.close()
    assert threading.active_count() == before
    assert source.is_closed


def test_work_in_a_pool_keeps_the_order():
    def slower_at_first(number: int) -> int:
        time.sleep(0.02 if number % 3 == 0 else 0)
        return number * number

    with ThreadPoolExecutor(4) as pool:
        assert list(in_order(pool, slower_at_first, iter(range(20)), 8)) == [number**2 for number in range(20)]
        assert list(in_order(pool, slower_at_first, iter(range(3)), 8)) == [0, 1, 4]


def test_a_pool_is_given_only_so_much_at_once():
    source = Counted(100)
    with ThreadPoolExecutor(4) as pool:
        squares = in_order(pool, lambda number: number**2, source.items(), 5)
        assert [next(squares), next(squares)] == [0, 1]
        assert source.made == 6
        squares.close()


def test_bounded_work_waits_for_a_free_place():
    gate, begun = threading.Event(), []

    def work(number: int) -> None:
        begun.append(number)
        gate.wait(10)

    with Bounded(threads=1, depth=2) as pool:
        pool(work, 1)
        pool(work, 2)
        third = threading.Thread(target=pool, args=(work, 3))
        third.start()
        third.join(0.1)
        assert third.is_alive()  # two are under way
        gate.set()
        third.join(10)
    assert begun == [1, 2, 3]


def test_an_error_of_bounded_work_is_not_lost():
    def fail() -> None:
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"), Bounded(threads=1, depth=4) as pool:
        pool(fail)


def test_after_an_error_what_has_not_begun_is_left_undone():
    gate, done = threading.Event(), []

    def first() -> None:
        gate.wait(10)

    with pytest.raises(KeyError), Bounded(threads=1, depth=10) as pool:
        pool(first)
        for number in range(5):
            pool(done.append, number)
        threading.Thread(target=lambda: (wait_until(pool.under_way[-1].cancelled), gate.set())).start()
        raise KeyError("stop")
    assert done == []


def test_a_clock_adds_up_by_stage_and_over_threads():
    clock = Clock()

    def work(_: int) -> None:
        with clock("sleeping"):
            time.sleep(0.02)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert list(clock.seconds) == ["sleeping"]
    assert clock.seconds["sleeping"] >= 4 * 0.019


def test_making_the_items_counts_and_using_them_does_not(monkeypatch: pytest.MonkeyPatch):
    now = [0.0]

    def slow() -> Iterator[int]:
        for number in range(2):
            now[0] += 3
            yield number

    monkeypatch.setattr("kit.predictor.overlap.time.perf_counter", lambda: now[0])
    clock = Clock()
    for _ in clock.each("making", slow()):
        now[0] += 100
    assert clock.seconds == {"making": 6}


def test_a_program_ends_though_a_stream_is_still_held():
    code = """
import importlib.util, sys
overlap = importlib.util.module_from_spec(spec := importlib.util.spec_from_file_location("overlap", sys.argv[1]))
spec.loader.exec_module(overlap)
held = overlap.ahead(overlap.ahead((number for number in range(1000)), 2), 2)
print(next(held))
"""
    file = str(ROOT / "kit" / "predictor" / "overlap.py")
    done = subprocess.run([sys.executable, "-c", code, file], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "0\n", "")
