"""httpbin as it is, and under /as-get its pages that answer only to GET (such as /drip) for a POST."""

from collections.abc import Callable, Iterable
from typing import Any

from httpbin import app as httpbin  # type: ignore[import-untyped]  # it has no types

_AS_GET = "/as-get"


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """The WSGI application."""
    if environ["PATH_INFO"].startswith(f"{_AS_GET}/"):
        environ = {
            **environ,
            "PATH_INFO": environ["PATH_INFO"].removeprefix(_AS_GET),
            "REQUEST_METHOD": "GET",
        }
    answer: Iterable[bytes] = httpbin(environ, start_response)
    return answer
