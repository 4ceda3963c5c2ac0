"""A load test: many concurrent customers over HTTP, and a check of the books at the end.

    python examples/bank/load.py [URL] [--accounts 50] [--seconds 10] [--clients 32]

Without a URL it starts a service of its own on a free port, in an empty directory.
"""

import argparse
import asyncio
import contextlib
import os
import random
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

HERE = Path(__file__).parent
OPENING = 100_000
NO_AUTHORITIES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For plain HTTP: to read the certificates of all authorities takes each client longer than many requests."""
PATIENCE = 30.0
"""Maximum seconds for the service to start."""


@contextlib.contextmanager
def service(
    directory: str, port: int | None = None, *, workers: int = 1
) -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
    """The bank as a process of its own, on 127.0.0.1: its address, once it answers, and the process."""
    port = port or free_port()
    url = f"http://127.0.0.1:{port}"
    command = [
        sys.executable,
        "-m",
        "uvicorn",
        "bank.service:app",
        "--port",
        str(port),
        "--workers",
        str(workers),
        "--log-level",
        "warning",
    ]
    places = {"BANK_STORE": f"lmdb:{directory}/store", "BANK_OUTBOX": f"{directory}/outbox.jsonl"}
    with subprocess.Popen(command, cwd=HERE, env=os.environ | places) as process:  # noqa: S603 - our own program
        try:
            deadline = time.monotonic() + PATIENCE
            while not _answers(url):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"the service does not start; it ended with {process.poll()}")
                time.sleep(0.05)
            yield url, process
        finally:
            process.terminate()
            process.wait(PATIENCE)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", verify=NO_AUTHORITIES).is_success
    except httpx.TransportError:
        return False


async def load(url: str, accounts: int, seconds: float, clients: int, at_least: int = 0) -> dict[str, float]:
    """Move money about at random for ``seconds``, and until ``at_least`` so many requests are answered.

    Returns rates, latencies in milliseconds, and what is in the books.
    """
    chance = random.Random()  # noqa: S311 - for variety, not for secrets
    names = [f"load-{chance.randrange(1 << 30)}-{n}" for n in range(accounts)]
    balance = OPENING * accounts
    latencies: list[float] = []
    transfers: list[str] = []

    def new_client() -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=url, timeout=60, verify=NO_AUTHORITIES)

    async def customer(end: float) -> None:
        nonlocal balance
        async with new_client() as http:  # one for all of them would be slower
            while time.monotonic() < end or len(latencies) < at_least:
                name, amount = chance.choice(names), chance.randint(1, 500)
                begun = time.perf_counter()
                match chance.randrange(4):
                    case 0:
                        answer = await http.post(f"/accounts/{name}/deposits", json={"amount": amount})
                        answer.raise_for_status()
                        balance += amount
                    case 1:
                        answer = await http.post(f"/accounts/{name}/withdrawals", json={"amount": amount})
                        balance -= amount if answer.is_success else 0
                    case 2:
                        source, target = chance.sample(names, 2)
                        wish = {"source": source, "target": target, "amount": amount}
                        answer = await http.post("/transfers", json=wish)
                        transfers.append(answer.raise_for_status().json()["id"])
                    case _:
                        (await http.get(f"/accounts/{name}")).raise_for_status()
                latencies.append((time.perf_counter() - begun) * 1000)

    async with new_client() as http:
        for name in names:
            (await http.post("/accounts", json={"id": name, "owner": name})).raise_for_status()
            (await http.post(f"/accounts/{name}/deposits", json={"amount": OPENING})).raise_for_status()
        begun = time.monotonic()
        await asyncio.gather(*(customer(begun + seconds) for _ in range(clients)))
        took = time.monotonic() - begun
        for transfer in transfers:
            while (await http.get(f"/transfers/{transfer}")).json()["outcome"] == "under way":  # noqa: ASYNC110 - HTTP
                await asyncio.sleep(0.05)
        found = [(await http.get(f"/accounts/{name}")).json()["balance"] for name in names]
    latencies.sort()
    return {
        "requests": len(latencies),
        "requests/s": len(latencies) / took,
        "median ms": statistics.median(latencies),
        "p99 ms": latencies[int(len(latencies) * 0.99)],
        "transfers": len(transfers),
        "in the books": sum(found),
        "expected": balance,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("url", nargs="?")
    parser.add_argument("--accounts", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--clients", type=int, default=32)
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        url = options.url
        if url is None:
            directory = stack.enter_context(tempfile.TemporaryDirectory())
            url, _ = stack.enter_context(service(directory))
        figures = asyncio.run(load(url, options.accounts, options.seconds, options.clients))
    for name, figure in figures.items():
        print(f"{name:14} {figure:,.1f}" if figure % 1 else f"{name:14} {figure:,.0f}")
    if figures["in the books"] != figures["expected"]:
        sys.exit("the books are wrong")


if __name__ == "__main__":
    main()
