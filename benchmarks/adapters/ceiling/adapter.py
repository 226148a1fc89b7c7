"""The peers' ceiling with our caller before it, so that both are asked by the same.

bench.py puts `Base`, `until` and `http` into this module and runs it under any Python: standard library only.
"""

import json
from pathlib import Path

PORT = 28100


class Adapter(Base):  # noqa: F821 - bench.py's
    """One process, which is the peers' own."""

    def prepare(self):
        peers, caller = Path(self.env["PYTHONPATH"]).parent, self.here.parent
        self.worker = peers / "adapters" / "ceiling" / "worker.py"
        self.env["PYTHONPATH"] += f":{caller}"

    def workers(self, i):
        return ["sleep", "100000"] if i else [self.py, str(self.worker)]

    def after_workers(self):
        until(lambda: http("GET", "/status", port=PORT)[0] == 200, 10)  # noqa: F821 - bench.py's

    def producer(self):
        return [self.py, "producer.py"]

    def done(self):
        return json.loads(http("GET", "/status", port=PORT)[1])["done"]  # noqa: F821 - bench.py's
