"""`python -m benchmarks.scaling` computes `docs/scaling.md`: what one server carries, and what comes next.

Rates and sizes come from the measurements in `docs/benchmarks/`; limits of services come from their
vendors' documentation, which is linked; the workload below is an assumption, and is printed with the result.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .report import DOCS, load

EVENTS_A_TURN = 4
"""A question, a call of a tool, its result, an answer."""
TURNS_A_SESSION = 10
TURNS_A_MINUTE = 1
"""Of somebody who is in the middle of a conversation."""
FULL = 0.7
"""How full a server should be at most."""
GB = 10**9


@dataclass
class Server:
    """One server, and its maker's ways to go beyond it."""

    title: str
    size: float
    what: str
    breaks: str
    beyond: str


SERVERS = {
    "sqlite": Server(
        "SQLite", 1000 * GB, "a disk of 1 TB",
        "One writer at a time, on one machine: the disk's time to make a commit durable is the limit, and"
        " writers of one process share it. Several processes take turns. A network file system will not do"
        " ([WAL](https://www.sqlite.org/wal.html)).",
        "`synchronous=NORMAL` in the session URI, if a power cut may cost the last moments. Then another"
        " backend: `sessions export` and `sessions import` carry the sessions over.",
    ),
    "redis": Server(
        "Redis or Valkey", 64 * GB, "64 GB of memory",
        "Memory first: everything is in it. Then the one core that runs all scripts.",
        "A cluster: `cluster=true` in the session URI. All keys of a user hash to one of 16,384 slots, so"
        " load spreads by users, and only one who alone fills a node is a problem"
        " ([specification](https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/))."
        " A short `ttl` is the cheapest memory.",
    ),
    "postgres": Server(
        "PostgreSQL", 1000 * GB, "a disk of 1 TB",
        "Commits: each append is one, and waits for the disk. Then vacuum: the row of a session is updated"
        " by every append.",
        "`synchronous_commit=off` for the role, if a crash of the server may cost the last moments; a pooler in"
        " front of many processes; partitions of the events by hash of the session"
        " ([partitioning](https://www.postgresql.org/docs/current/ddl-partitioning.html)). Standbys serve"
        " other readers; sessions must be read where they are written, or a turn begins with an old one.",
    ),
    "hybrid": Server(
        "PostgreSQL and Redis", 1000 * GB, "a disk of 1 TB",
        "Where PostgreSQL breaks: every event is committed there.",
        "As for PostgreSQL; Redis holds copies only and can be of any size.",
    ),
    "mongodb": Server(
        "MongoDB", 1000 * GB, "a disk of 1 TB",
        "The primary: all writes go there.",
        "Shards by user ([sharding](https://www.mongodb.com/docs/manual/sharding/)), so that the list of a"
        " user's sessions stays on one.",
    ),
}  # fmt: skip

SERVICES = """
## Services without a server

| | where it breaks | what comes next |
|---|---|---|
| DynamoDB | a partition takes 1,000 write units a second, one for each KB of an item, twice that in a transaction ([partitions](https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/bp-partition-key-design.html)) | nothing to do: keys are spread, tables split by themselves, and one conversation never comes near |
| Google Cloud Storage | an object takes one write a second, and a bucket begins with about 1,000 writes a second ([rates](https://cloud.google.com/storage/docs/request-rate)) | it grows by itself when the rate rises slowly; a conversation that is faster than that wants a database |
"""


def main() -> None:
    """Write the page."""
    results = {name: load(name) for name in SERVERS}
    page = "\n".join(lines({name: result for name, result in results.items() if result}))
    (DOCS.parent / "scaling.md").write_text(page + "\n", "utf-8")


def lines(results: dict[str, dict[str, Any]]) -> Iterator[str]:
    """Yield the page."""
    events = EVENTS_A_TURN * TURNS_A_SESSION
    yield "# What one server carries\n"
    yield (
        f"Computed by `python -m benchmarks.scaling` from [measurements](benchmarks/README.md). Assumed: a turn has"
        f" {EVENTS_A_TURN} events, a session {TURNS_A_SESSION} turns, somebody in the middle of a conversation takes"
        f" {TURNS_A_MINUTE} a minute, and a server is {FULL:.0%} full at most. Appends a second are those of one client"
        " process with 32 writers that shared the machine of the measurements with the server, so a server of its"
        " own carries more: take the numbers as what is certain, and measure yours with `make bench` in your project.\n"
    )
    yield "| | appends a second | conversations at once | bytes an event | a session | sessions, kept | on |"
    yield "|---|---:|---:|---:|---:|---:|---|"
    for name, result in results.items():
        server, facts = SERVERS[name], result["facts"]
        appends = facts["appends a second, 32 writers"]["ours"]
        at_once = FULL * appends / (EVENTS_A_TURN * TURNS_A_MINUTE / 60)
        event = facts["stored bytes an event"]
        session = facts["stored bytes a session"] + events * event
        yield (
            f"| {server.title} | {appends:,.0f} | {rounded(at_once)} | {event:,} | {session / 1000:,.0f} KB"
            f" | {rounded(FULL * server.size / session)} | {server.what} |"
        )
    yield "\n## Where it breaks, and what comes next\n"
    for server in SERVERS.values():
        yield f"**{server.title}.** {server.breaks}\n\nNext: {server.beyond}\n"
    yield SERVICES.strip()


def rounded(number: float) -> str:
    """Return a number with two digits that count: more would be a promise."""
    digits = len(str(int(number))) - 2
    return f"{round(number, -digits):,.0f}"


if __name__ == "__main__":
    main()
