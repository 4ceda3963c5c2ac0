"""The dependency on the running system."""

from typing import Annotated

from fastapi import Depends
from starlette.requests import HTTPConnection

from uno_actors.fastapi.hosting import hosted_of
from uno_actors.system.system import ActorSystem


async def needs_system(connection: HTTPConnection) -> ActorSystem:
    """The dependency behind `System`."""
    return hosted_of(connection).system


System = Annotated[ActorSystem, Depends(needs_system)]
"""The running system, of a path operation or a websocket."""
