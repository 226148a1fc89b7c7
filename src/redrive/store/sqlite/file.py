"""The file itself: made for its owner's eyes only, locked by one process, recognised again."""

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from redrive.store.port import StoreOwned, StoreUnavailable

LOCK: Final = ".lock"


def must_have_a_place(path: Path) -> None:
    """Raise StoreUnavailable unless there is a file at *path*, or one can be made there.

    None is made through a link to what is not there: that is a disk that was not mounted, or a mistake.
    """
    if path.is_dir():
        raise StoreUnavailable(f"{path} is a directory", fatal=True, advice="name a file in it")
    if path.exists() and not path.is_file():
        raise StoreUnavailable(f"{path} is no regular file", fatal=True, advice="check the path")
    if path.is_symlink() and not path.exists():
        wrong = f"{path} is a link to {path.readlink()}, which is not there"
        raise StoreUnavailable(wrong, fatal=True, advice="put back what it leads to, or remove the link")
    for directory in path.parents:
        if directory.is_dir():
            return
        if directory.is_symlink() or directory.exists():
            wrong = f"{path} cannot be: {directory} is no directory"
            raise StoreUnavailable(wrong, fatal=True, advice="check the path")


def located(path: Path) -> Path:
    """The file itself, by the one path that every alias of it leads to. As `must_have_a_place`."""
    must_have_a_place(path.absolute())
    return path.resolve()


def create(path: Path) -> None:
    """Make what is missing of directory and file; nobody else may read either."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with contextlib.suppress(FileExistsError), open(path, "xb", opener=_private):
        pass


@contextlib.contextmanager
def alone(directory: Path) -> Iterator[None]:
    """One set-up at a time: SQLite does not wait for another's switch of a new file to its log, it fails."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def take_lock(path: Path, command: str) -> int:
    """An advisory lock beside the file, in the name of *command*; closing the handle, or dying, frees it."""
    lock = os.open(_lock_of(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = _name(lock)
        os.close(lock)
        raise StoreOwned(
            f"{path} is in use by {owner}: one process owns a SQLite database."
            " Let that one end first or give this one another --database"
        ) from None
    sign(lock, command)
    return lock


def sign(lock: int, command: str) -> None:
    """Say in a lock of ours what this process does with the file."""
    signature = f"{command}, pid {os.getpid()}\n".encode()
    os.pwrite(lock, signature, 0)
    os.ftruncate(lock, len(signature))


def owner_of(path: Path) -> str | None:
    """Who holds the lock, None when nobody does. Ours is shared meanwhile, and gone at once."""
    try:
        lock = os.open(_lock_of(path), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        if Path(_lock_of(path)).is_symlink():
            raise  # a link to nothing, which nobody can lock
        return None
    try:
        if not stat.S_ISREG(os.fstat(lock).st_mode):
            raise OSError(errno.EINVAL, "no regular file", _lock_of(path))
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _name(lock)
    else:
        return None
    finally:
        os.close(lock)


def identity(path: Path) -> tuple[int, int] | None:
    """What tells this file from another that came to its place; None when there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


class OpenedFile:
    """The file that was at *path* when this was made."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._identity = identity(path)

    def check(self) -> None:
        """Raise StoreUnavailable, for good, unless it is there still."""
        if identity(self._path) != self._identity:
            raise StoreUnavailable(f"{self._path} was moved, deleted or replaced", fatal=True)

    @contextlib.contextmanager
    def explained(self) -> Iterator[None]:
        """Whatever fails because the file is not there any more says so."""
        try:
            yield
        except StoreUnavailable:
            self.check()
            raise


def _lock_of(path: Path) -> str:
    return f"{path}{LOCK}"


def _name(lock: int) -> str:
    first, _, _ = os.pread(lock, 64, 0).decode("ascii", "replace").partition("\n")
    return first.strip() or "another process"


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
