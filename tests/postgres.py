"""The PostgreSQL of these tests: one server for a process, with a schema for each test that wants one."""

import atexit
from functools import cache

from uno_actors.testing.postgres import PostgresServer


@cache
def postgres() -> PostgresServer:
    """The server of this run, started when it is first wanted."""
    server = PostgresServer(sync=False)
    atexit.register(server.remove)
    return server
