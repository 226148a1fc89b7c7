"""redrive for the peers' bench: `redrive serve` on SQLite, one process, reached over its HTTP API.

bench.py puts `Base`, `until` and `http` into this module and runs it under any Python: standard library only.
"""

import json
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

PORT = 28200
QUEUES = "/platform/integrations/a/recovery/queue"


class Adapter(Base):  # noqa: F821 - bench.py's
    """Only worker 0 is a process of ours: one process owns a SQLite file."""

    def prepare(self):
        root = self.here.parents[2]
        self.python = str(root / ".venv" / "bin" / "python")
        self.file = self.work / "redrive.db"
        database = f"sqlite:///{self.file}"
        self.env.update(
            PYTHONPATH=f"{root / 'src'}:{self.env['PYTHONPATH']}",
            REDRIVE_DATABASE=database,
            REDRIVE_DATA_DIR=str(self.work),
            REDRIVE_PORT=str(PORT),
            REDRIVE_ALLOW_TARGETS="127.0.0.0/8",
            REDRIVE_ALLOW_HTTP="true",
            # Only W5 asks for another backoff than the default.
            REDRIVE_BASE_DELAY_SECONDS=self.env["BENCH_RETRY_BASE"],
            REDRIVE_MAX_ATTEMPTS=self.env["BENCH_MAX_ATTEMPTS"],
            **{f"REDRIVE_{name.upper()}": value for name, value in self.opts.items() if name == "slots"},
        )
        permissions = [f"--permission={name}" for name in ("deliver", "operate", "view")]
        token = self.run([self.python, "-m", "redrive", "token", "create", "--subject=bench", *permissions])
        self.env["BENCH_TOKEN"] = token.strip()
        self.env["BENCH_API"] = f"http://127.0.0.1:{PORT}"

    def workers(self, i):
        return [self.python, "-m", "redrive", "serve"] if i == 0 else ["sleep", "100000"]

    def after_workers(self):
        until(lambda: http("GET", "/readyz", port=PORT)[0] == 200, 20, what="redrive is ready")  # noqa: F821

    def producer(self):
        return [self.python, "producer.py"]

    def done(self):
        """Recorded for good: accepted, and neither at work nor dead. Survives a kill, as counters do not."""
        return self._count("delivery") - self._count("live") - self._count("dead")

    def dead(self):
        return self._count("dead")

    def list_dead(self):
        self.dead_ids, cursor = [], ""
        while cursor is not None:
            page = self._call("GET", f"{QUEUES}?status=dlq&limit=100{cursor}")
            self.dead_ids += [row["recovery_id"] for row in page["queue"]]
            cursor = page["next_cursor"] and f"&cursor={page['next_cursor']}"
        return len(self.dead_ids)

    def replay(self):
        body = json.dumps({"reason": "the receiver works again"})
        with ThreadPoolExecutor(16) as threads:
            list(threads.map(lambda one: self._call("POST", f"{QUEUES}/{one}/replay", body), self.dead_ids))

    def _call(self, method, path, body=None):
        headers = {"Authorization": f"Bearer {self.env['BENCH_TOKEN']}", "Content-Type": "application/json"}
        status, data = http(method, path, port=PORT, body=body, headers=headers)  # noqa: F821
        if status != 200:
            raise RuntimeError(f"{method} {path}: {status} {data[:300]!r}")
        return json.loads(data)

    def _count(self, table):
        connection = sqlite3.connect(f"file:{Path(self.file)}?mode=ro", uri=True, timeout=5)
        try:
            return connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
        finally:
            connection.close()
