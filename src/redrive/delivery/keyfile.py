"""The file of keys: beside the database, never in it, for its owner's eyes only."""

import fcntl
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkstemp
from typing import Final

from redrive.delivery.sealing import BadKeys, Key, format_keys, new_key, parse_keys

MOST_BYTES: Final = 64 * 1024
_UNFINISHED: Final = ".unfinished"  # what is no whole file yet; a person's own copies are called otherwise
_HEAD = """\
# The keys of this redrive database. Its secrets open with these and with nothing else: keep a copy, but not
# beside the backups of the database. The first key seals; the others still open older backups.
"""


def read_keys(path: Path) -> list[Key] | None:
    """The keys of *path*; None when there is no such file, BadKeys when it cannot be used."""
    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):
            raise BadKeys(f"the key file {path} cannot be read: it is no file")
        if about.st_size > MOST_BYTES:
            raise BadKeys(f"the key file {path} is larger than any file of keys")
        text = path.read_text("ascii")
    except FileNotFoundError:
        return None
    except PermissionError as error:
        who = f"this runs as user {os.geteuid()}"
        raise BadKeys(f"the key file {path} cannot be read: {error.strerror} ({who})") from error
    except OSError as error:
        raise BadKeys(f"the key file {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BadKeys(f"the key file {path} is not text") from error
    try:
        return parse_keys(text)
    except BadKeys as error:
        raise BadKeys(f"the key file {path}: {error}") from error


def read_or_make(path: Path) -> list[Key]:
    """As `read_keys`, but make one where there is none; of several that try at once one makes it."""
    found = read_keys(path)
    if found is None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _write(path, [new_key()], replaces=False)
        except FileExistsError:
            pass  # another process did, and all of it is there
        except OSError as error:
            raise BadKeys(
                f"the key file {path} cannot be made: {error.strerror};"
                " `redrive key new` prints what belongs into it"
            ) from error
        found = read_keys(path)
    if found is None:
        raise BadKeys(f"the key file {path} was taken away while it was read")
    return found


def write_keys(path: Path, keys: Sequence[Key]) -> None:
    """Replace what is in the file, which stays whose it is; OSError when it cannot be done, and is not."""
    _write(path, keys, replaces=True)


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Nobody else changes the file meanwhile. Its directory is locked: the file itself is replaced."""
    handle = os.open(path.resolve().parent, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def is_open_to_others(path: Path) -> bool:
    """Whether everyone on this machine may read it, or others than its owner write to it."""
    return bool(path.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH | stat.S_IWGRP))


def _write(path: Path, keys: Sequence[Key], *, replaces: bool) -> None:
    """All of it or nothing, on the disk when this returns."""
    path = path.resolve()
    for left in path.parent.iterdir() if replaces else ():
        if left.name.startswith(f".{path.name}.") and left.suffix == _UNFINISHED:
            left.unlink()  # by one who was killed meanwhile: only who holds the file replaces it
    handle, name = mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=_UNFINISHED)  # its owner's alone
    beside = Path(name)
    try:
        if replaces and path.exists():
            old = path.stat()
            os.fchown(handle, old.st_uid, old.st_gid)
            os.fchmod(handle, stat.S_IMODE(old.st_mode))
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(_HEAD + format_keys(keys))
            file.flush()
            os.fsync(file.fileno())
        if replaces:
            beside.replace(path)
        else:
            os.link(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
