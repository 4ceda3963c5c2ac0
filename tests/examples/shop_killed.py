"""The shop takes its orders, killed with SIGKILL after a given number of writes to the log.

Usage: shop_killed.py WRITES, 0 for no kill; SHOP_STORE and the like say where. It prints the state of each order.
"""

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

from uno_stores.lmdb.writer import Writer

sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "shop"))
kill_after = int(sys.argv[1])
submit = Writer.submit
writes = 0


async def submit_and_perhaps_die(self: Writer, work: Any) -> Any:
    global writes  # noqa: PLW0603
    result = await submit(self, work)
    writes += 1
    if writes == kill_after:  # it is on disk, and no caller knows
        os.kill(os.getpid(), signal.SIGKILL)
    return result


async def main() -> None:
    from shop.orders import CancelOrder, Order, PayOrder, PlaceOrder
    from shop.service import make_system
    from shop.stock import Deliver, Stock

    async with make_system() as system:
        await system.aggregate(Stock, "dune").ask(Deliver(command_id="delivery", copies=5))
        for name, copies in ("paid", 2), ("dropped", 3), ("late", 1), ("greedy", 9):
            placing = PlaceOrder(command_id=f"place-{name}", book="dune", copies=copies, email="ann@x.org")
            await system.aggregate(Order, name).ask(placing)
            await system.settled()
        await system.aggregate(Order, "paid").ask(PayOrder(command_id="pay"))
        await system.aggregate(Order, "dropped").ask(CancelOrder(command_id="cancel"))
        await system.settled()
        names = "paid", "dropped", "late", "greedy"
        orders = [await system.store.get_events(name, aggregate_type="Order") for name in names]
        print("orders", [events[-1].event_type for events in orders])
        stock = await system.store.get_events("dune", aggregate_type="Stock")
        print("stock", [event.event_type for event in stock])
        print("due", [entry.command.aggregate_id for entry in await system.schedules()])


Writer.submit = submit_and_perhaps_die  # type: ignore[method-assign]
asyncio.run(main())
