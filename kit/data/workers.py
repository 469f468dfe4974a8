"""What a worker of a loader settles when it starts: threads, and memory that stays as it is over many epochs."""

import ctypes
import gc
import time
from threading import Thread

import cv2
from threadpoolctl import threadpool_limits

REST_S = 1.0  # a worker that computed nothing for so long waits


def one_thread_each(_worker: int) -> None:
    """The workers are the parallelism. BLAS with threads of its own would also fill 64 MiB of buffers in each."""
    cv2.setNumThreads(0)
    threadpool_limits(1, user_api="blas")


def settle_worker(worker: int) -> None:
    """For `worker_init_fn` of a loader."""
    one_thread_each(worker)
    gc.freeze()  # the collector writes to every object it looks at: a copy of all that is shared with the main process
    library = ctypes.CDLL(None)
    if hasattr(library, "malloc_trim"):  # glibc
        Thread(target=give_back_at_rest, args=[library], daemon=True).start()


def give_back_at_rest(library: ctypes.CDLL) -> None:
    """Freed memory returns to the system whenever the worker waits, and only then: to get it anew costs a sixth."""
    given_back_s = 0.0
    while True:
        before_s = time.process_time()
        time.sleep(REST_S)
        now_s = time.process_time()
        if now_s - before_s < 0.01 * REST_S and now_s - given_back_s > 0.01 * REST_S:
            library.malloc_trim(0)
            given_back_s = time.process_time()
