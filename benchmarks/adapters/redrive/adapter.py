"""redrive for the peers' bench, reached over its HTTP API: `redrive` on SQLite, `redrive:postgres`.

bench.py puts `Base`, `until` and `http` into this module and runs it under any Python: standard library only.
"""

import json
import signal
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from threading import local

FIRST_PORT = 28200
CONNECTIONS = 32  # that replays go over
QUEUES = "/platform/integrations/a/recovery/queue"
COUNT = "SELECT (SELECT count(*) FROM delivery), (SELECT count(*) FROM live), (SELECT count(*) FROM dead)"

TOLD = """
SELECT json_build_object('wal_bytes', pg_current_wal_lsn() - '0/0',
                         'statements', json_object_agg(query, facts))
  FROM (SELECT query, json_build_object('calls', sum(calls), 'ms', sum(total_exec_time),
                                        'wal_bytes', sum(wal_bytes)) AS facts
          FROM pg_stat_statements WHERE toplevel GROUP BY query) AS statement
"""


class Adapter(Base):  # noqa: F821 - bench.py's
    """One process owns a SQLite file, so only worker 0 is ours."""

    processes = 1

    def prepare(self):
        root = self.here.parents[2]
        self.python = str(root / ".venv" / "bin" / "python")
        self.ports = [FIRST_PORT + i for i in range(self.processes)]
        self.env.update(
            PYTHONPATH=f"{root / 'src'}:{self.here.parent}:{self.env['PYTHONPATH']}",
            REDRIVE_DATABASE=self.database(),
            REDRIVE_DATA_DIR=str(self.work),
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
        self.env["BENCH_APIS"] = " ".join(f"http://127.0.0.1:{port}" for port in self.ports)

    def database(self):
        self.file = self.work / "redrive.db"
        return f"sqlite:///{self.file}"

    def workers(self, i):
        if i >= self.processes:
            return ["sleep", "100000"]
        return [self.python, "-m", "redrive", "serve", f"--port={self.ports[i]}"]

    def after_workers(self):
        for port in self.ports:
            until(lambda port=port: http("GET", "/readyz", port=port)[0] == 200, 20, what="redrive is ready")  # noqa: F821

    def producer(self):
        return [self.python, "producer.py"]

    def done(self):
        """Recorded for good: accepted, and neither at work nor dead. Survives a kill, as counters do not."""
        delivered, live, dead = self.count()
        return delivered - live - dead

    def dead(self):
        return self.count()[2]

    def count(self):
        connection = sqlite3.connect(f"file:{self.file}?mode=ro", uri=True, timeout=5)
        try:
            return connection.execute(COUNT).fetchone()
        finally:
            connection.close()

    def list_dead(self):
        api = Api(self.ports[0], self.env["BENCH_TOKEN"])
        self.dead_ids, cursor = [], ""
        while cursor is not None:
            page = api.call("GET", f"{QUEUES}?status=dlq&limit=200{cursor}")
            self.dead_ids += [row["recovery_id"] for row in page["queue"]]
            cursor = page["next_cursor"] and f"&cursor={page['next_cursor']}"
        return len(self.dead_ids)

    def replay(self):
        """One by one, as a person's program would, over connections that are kept."""
        ports, mine = iter(self.ports * CONNECTIONS), local()
        body = json.dumps({"reason": "the receiver works again"})

        def connect():
            mine.api = Api(next(ports), self.env["BENCH_TOKEN"])

        def replay(one):
            mine.api.call("POST", f"{QUEUES}/{one}/replay", body)

        with ThreadPoolExecutor(CONNECTIONS, initializer=connect) as threads:
            list(threads.map(replay, self.dead_ids))


class Postgres(Adapter):
    """Two processes share the work. What the database did is left in `database.jsonl`, a line a look."""

    infra = ("pg",)
    processes = 2

    def database(self):
        # The only count of what was asked that is exact; it needs the server to start with it.
        self.sql("ALTER SYSTEM SET shared_preload_libraries = 'pg_stat_statements'")
        [server] = self.infra_obj.procs
        server.stop(signal.SIGINT)
        server.start()
        self.run(["sh", "-c", "until pg_isready --quiet; do sleep 0.1; done"], timeout=20)
        self.sql("CREATE EXTENSION pg_stat_statements")
        return self.env["BENCH_PG"]

    def count(self):
        *counts, told = self.sql(f"{COUNT}, ({TOLD})").split("|", 3)
        with (self.work / "database.jsonl").open("a") as notes:
            notes.write(told + "\n")
        return list(map(int, counts))


class Api:
    """A connection to one process, kept."""

    def __init__(self, port, token):
        self.connection = HTTPConnection("127.0.0.1", port, timeout=20)
        self.headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}

    def call(self, method, path, body=None):
        self.connection.request(method, path, body, self.headers)
        answer = self.connection.getresponse()
        data = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{method} {path}: {answer.status} {data[:300]!r}")
        return json.loads(data)


VARIANTS = {"postgres": Postgres}
