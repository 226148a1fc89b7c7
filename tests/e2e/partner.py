"""A partner of many moods."""

import json
from collections import defaultdict

from tests.e2e.receiver import OK, Answer, Script, Sent


def a_mixed_partner(*, hangs_seconds: float = 0.0) -> Script:
    """Well, wrong, broken for a while or for good, slow, hanging: as the number in the payload says."""
    seen: dict[tuple[str, str], int] = defaultdict(int)

    def script(sent: Sent) -> Answer:
        seen[sent.webhook_id, sent.request_id] += 1
        nth = seen[sent.webhook_id, sent.request_id]
        is_first_cycle = not sent.request_id.startswith("replay-")
        number = json.loads(sent.body or b"")["n"]
        if hangs_seconds and number % 50 == 11 and nth == 1:
            return Answer(200, after=hangs_seconds)
        match number % 10:
            case 4:
                return Answer(503) if nth == 1 else OK
            case 5:
                return Answer(503) if is_first_cycle else OK
            case 6:
                return Answer(404)
            case 7:
                return Answer(200, after=0.2)
            case 8:
                return Answer(429, headers={"Retry-After": "0"}) if nth < 3 else OK
            case 9:
                return Answer(500, after=0.05)
            case _:
                return OK

    return script
