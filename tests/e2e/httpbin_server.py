"""httpbin under gunicorn: a receiver and a server that no one here wrote."""

import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.e2e.waiting import until

ROOT = Path(__file__).parents[2]
_LISTENING = re.compile(r"Listening at: (http://127\.0\.0\.1:[0-9]+)")


@contextmanager
def httpbin() -> Iterator[str]:
    """Its address, while it runs."""
    said: list[str] = []
    words = "--bind 127.0.0.1:0 --worker-class gthread --threads 32 --keep-alive 30 --no-control-socket"
    process = subprocess.Popen(
        [sys.executable, "-m", "gunicorn", *words.split(), "tests.e2e.posted_httpbin:app"],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    reader = threading.Thread(target=said.extend, args=(process.stderr,))
    reader.start()
    try:
        yield until(
            lambda: next((match[1] for match in map(_LISTENING.search, list(said)) if match), None),
            ("gunicorn listens", said),
        )
    finally:
        process.terminate()
        process.wait()
        reader.join()
        process.stderr.close()
