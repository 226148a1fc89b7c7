"""The one thread that writes: it takes all that queued while the last commit ran, and commits once."""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

import apsw

from redrive.store.port import StoreUnavailable
from redrive.store.sqlite.connection import BUSY_MILLISECONDS, connect, translated
from redrive.store.sqlite.file import OpenedFile

Done = TypeVar("Done")
Work = Callable[[apsw.Connection], Any]

MOST_PER_COMMIT = 512
CHECKPOINT_SECONDS = 0.5
WAL_PAGES_AT_MOST = 16_384  # 64 MiB: past that the writer itself waits for a checkpoint


class _Job:
    __slots__ = ("error", "future", "loop", "result", "work")

    def __init__(self, work: Work, loop: asyncio.AbstractEventLoop) -> None:
        self.work = work
        self.loop = loop
        self.future: asyncio.Future[Any] = loop.create_future()
        self.result: Any = None
        self.error: BaseException | None = None


class Writer:
    """Runs units of work one after another, many to a commit, each in a savepoint of its own."""

    def __init__(self, path: Path) -> None:
        self._file = OpenedFile(path)
        self._connection = connect(path)
        # What ROLLBACK TO may need goes to a file when it is more than 64 KiB, unless it stays in memory.
        self._connection.pragma("temp_store", "memory")
        self._connection.set_wal_hook(self._after_commit)
        self._checkpointing = connect(path)
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._wal_pages, self._most_pages = 0, WAL_PAGES_AT_MOST
        self._stopping = threading.Event()
        self._dirty = threading.Event()
        self._threads = [
            threading.Thread(target=self._write, name="redrive-writer", daemon=True),
            threading.Thread(target=self._checkpoint, name="redrive-checkpoint", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    async def run(self, work: Callable[[apsw.Connection], Done]) -> Done:
        """Run *work* in the next commit and return what it returned, once that is durable."""
        if self._stopping.is_set():
            raise StoreUnavailable("the store is closed")
        job = _Job(work, asyncio.get_running_loop())
        self._jobs.put(job)
        # Shielded: a caller that goes away does not take back what the thread may be committing.
        done: Done = await asyncio.shield(job.future)
        return done

    def close(self) -> None:
        """Finish what was handed over, then close the file."""
        self._stopping.set()
        self._dirty.set()
        self._jobs.put(None)
        for thread in self._threads:
            thread.join()
        while not self._jobs.empty():
            if job := self._jobs.get():
                job.error = StoreUnavailable("the store is closed")
                job.loop.call_soon_threadsafe(_settle, [job])
        self._checkpointing.close()
        self._connection.close()

    def _write(self) -> None:
        while (first := self._jobs.get()) is not None:
            jobs = [first]
            closing = False
            while len(jobs) < MOST_PER_COMMIT:
                try:
                    job = self._jobs.get_nowait()
                except Empty:
                    break
                if job is None:
                    closing = True
                    break
                jobs.append(job)
            self._commit(jobs)
            for loop in {job.loop for job in jobs}:
                loop.call_soon_threadsafe(_settle, [job for job in jobs if job.loop is loop])
            if self._wal_pages > self._most_pages:
                self._restart_wal()
            if closing:
                return

    def _commit(self, jobs: list[_Job]) -> None:
        connection = self._connection
        try:
            with self._file.explained(), translated():
                connection.execute("BEGIN IMMEDIATE")
                for job in jobs:
                    self._run(job, alone=len(jobs) == 1)
                connection.execute("COMMIT")
            self._file.check()  # acknowledge nothing that went into a file nobody will open again
        except BaseException as error:  # noqa: BLE001 - every job is told; nothing is swallowed
            for job in jobs:
                job.error = job.error or error
            if connection.in_transaction:
                try:
                    connection.execute("ROLLBACK")
                except apsw.Error as second:
                    for job in jobs:
                        job.error = StoreUnavailable(
                            f"a failed write could not be undone: {second}", fatal=True
                        )

    def _run(self, job: _Job, *, alone: bool) -> None:
        """One unit; what it raises undoes it alone, but a storage error undoes the whole commit."""
        connection = self._connection
        if not alone:
            connection.execute("SAVEPOINT unit")
        try:
            with translated():
                job.result = job.work(connection)
        except StoreUnavailable:
            raise
        except Exception as error:
            if alone:
                raise
            job.error = error
            connection.execute("ROLLBACK TO unit")
        if not alone:
            connection.execute("RELEASE unit")

    def _after_commit(self, _connection: apsw.Connection, _name: str, pages: int) -> int:
        self._wal_pages = pages
        self._dirty.set()
        return apsw.SQLITE_OK

    def _restart_wal(self) -> None:
        self._connection.set_busy_timeout(0)  # never wait for a reader: every caller would wait with us
        try:
            self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_RESTART)
        except apsw.Error:
            self._most_pages *= 2  # a reader holds it back, or the disk is full
        else:
            self._wal_pages, self._most_pages = 0, WAL_PAGES_AT_MOST
        finally:
            self._connection.set_busy_timeout(BUSY_MILLISECONDS)

    def _checkpoint(self) -> None:
        """Move the write-ahead log into the file, beside the writer, so that no commit waits for it."""
        while not self._stopping.wait(CHECKPOINT_SECONDS):
            self._dirty.wait()
            self._dirty.clear()
            try:
                self._checkpointing.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
            except apsw.Error:
                self._dirty.set()  # busy or full: once more, half a second on


def _settle(jobs: list[_Job]) -> None:
    for job in jobs:
        if job.future.cancelled():
            continue
        if job.error is not None:
            job.future.set_exception(job.error)
        else:
            job.future.set_result(job.result)
