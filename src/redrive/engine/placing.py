"""Where an integration may be placed: what is clear of its URLs before a name is looked up."""

from collections.abc import Callable
from typing import Any

from redrive.domain.errors import Fault, InvalidPayload
from redrive.domain.integration import Integration
from redrive.domain.target import Target, parse_target

Judge = Callable[[str, Target], str | None]  # an integration_id and a target; why nothing is sent there


def check_places(judge: Judge, old: Integration | None, new: Integration, given: dict[str, Any]) -> None:
    """Raise InvalidPayload when *new*, which was *old*, names a place that deliveries may not go to.

    What it named already is not judged again: under a stricter configuration it can still be paused.
    """
    faults = [
        Fault(pointer, why)
        for pointer, url in _new_urls(old, new, given).items()
        if (why := judge(new.integration_id, parse_target(url, allow_http=True))) is not None
    ]
    if faults:
        raise InvalidPayload(*faults)


def _new_urls(old: Integration | None, new: Integration, given: dict[str, Any]) -> dict[str, str]:
    """By where they stand in what was *given*, whose credentials were found to be valid."""
    urls = {}
    if old is None or old.url != new.url:
        urls["/url"] = new.url
    if new.health_url is not None and (old is None or old.health_url != new.health_url):
        urls["/health_url"] = new.health_url
    if new.auth_mode == "oauth2" and given.get("credentials") is not None:
        urls["/credentials/token_url"] = given["credentials"]["token_url"]
    return urls
