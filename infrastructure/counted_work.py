"""Work in several processes, which count what they have done into what their starter shows."""

import multiprocessing
import os
import threading
from collections.abc import Callable
from concurrent.futures import (
    FIRST_COMPLETED,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)
from multiprocessing import connection as waiting_for
from typing import Any, Final, TypeVar

Result = TypeVar("Result")
LOOK_SECONDS: Final = 0.2

_counted: Any = None


def new_count(done: int = 0) -> Any:
    """A number that the processes of one piece of work share."""
    return multiprocessing.get_context("spawn").Value("q", done)


def count(done: int) -> None:
    """So much more is done, by this process."""
    if _counted is not None:
        with _counted.get_lock():
            _counted.value += done


def executor(workers: int, counted: Any) -> Executor:
    """Processes of their own, but for a single worker, which needs none."""
    if workers == 1:
        return ThreadPoolExecutor(1, initializer=_count_in, initargs=(counted,))
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(
        workers, mp_context=context, initializer=_begin_process, initargs=(counted,)
    )


def all_of(pool: Executor, waiting: set[Future[Result]], look: Callable[[], None]) -> list[Result]:
    """The results, in the order of their ends; `look` is called while they are waited for. Nothing more
    is begun once one has failed."""
    results = []
    try:
        while waiting:
            ended, waiting = wait(waiting, LOOK_SECONDS, return_when=FIRST_COMPLETED)
            results += [future.result() for future in ended]
            look()
    except BaseException:
        pool.shutdown(cancel_futures=True)
        raise
    return results


def _count_in(counted: Any) -> None:
    """The number of what is done, which the workers share."""
    global _counted  # noqa: PLW0603 - how a pool's processes are given something to share
    _counted = counted


def _begin_process(counted: Any) -> None:
    """A process of a pool does not learn by itself that whom it works for was killed."""
    _count_in(counted)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        waiting_for.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
