"""A handler that raises `RetryLater` gets the same event again, and the event is not to blame."""

from collections.abc import Callable
from typing import Any

import pytest

from uno_actors import ActorSystem, Backoff, DomainEvent, RetryLater, Supervisor
from uno_actors.handlers.spec import HandlerSpec
from uno_actors.supervision.policy import RestartGroup, SupervisorState
from uno_actors.supervision.spec import ChildSpec, Directive

QUICK = Backoff(initial=0.001, max=0.01)


class Parcel(DomainEvent):
    number: int


class Post:
    """Away for the first ``times`` calls; then it takes what comes, but refuses the parcel ``bad``."""

    def __init__(self, times: int = 6, bad: int | None = None) -> None:
        self.times = times
        self.bad = bad
        self.taken: list[int] = []

    def take(self, *parcels: Parcel) -> None:
        if self.times:
            self.times -= 1
            raise RetryLater("the post is closed")
        if self.bad in [parcel.number for parcel in parcels]:
            raise ValueError("damaged")
        self.taken += [parcel.number for parcel in parcels]

    async def one(self, event: Parcel) -> None:
        self.take(event)

    def plain(self, event: Parcel) -> None:
        self.take(event)

    async def many(self, events: list[Parcel]) -> None:
        self.take(*events)


WAYS: dict[str, tuple[Callable[[Post], Any], dict[str, Any]]] = {
    "one by one": (lambda post: post.one, {}),
    "with a time limit": (lambda post: post.one, {"timeout": 30.0}),
    "on a thread": (lambda post: post.plain, {}),
    "in batches": (lambda post: post.many, {"batch": 3}),
    "several at once": (lambda post: post.one, {"concurrency": 3}),
    "in partitions": (lambda post: post.one, {"partitioned": 2}),
}


async def run(
    post: Post, way: str, directives: dict[type[BaseException], Directive] | None = None
) -> list[int]:
    """The positions of the dead letters, after five parcels."""
    target, options = WAYS[way]
    spec = HandlerSpec("post", target(post), Parcel, max_attempts=2, **options)
    supervisor = Supervisor("team", [spec], max_restarts=None, backoff=QUICK, directives=directives or {})
    async with ActorSystem(handlers=[], supervisors=[supervisor]) as system:
        await system.publisher.publish(
            *(Parcel(number=each, aggregate_id=f"p{each}", aggregate_type="Parcel") for each in range(1, 6))
        )
        await system.settled()
        (info,) = await system.handlers()
        assert info.failures is not None
        assert info.failures >= 6
        return [letter.position for letter in await system.store.dead_letters()]


@pytest.mark.parametrize("way", WAYS)
async def test_no_event_becomes_a_dead_letter_because_a_server_is_away(way: str) -> None:
    post = Post()
    assert await run(post, way) == []
    assert sorted(post.taken) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("way", WAYS)
async def test_an_event_that_is_to_blame_is_set_aside_all_the_same(way: str) -> None:
    post = Post(bad=3)
    assert await run(post, way) == [3]
    assert sorted(post.taken) == [1, 2, 4, 5]


async def test_the_event_is_not_left_out_when_the_supervisor_lets_the_handler_continue() -> None:
    post = Post(times=6)
    assert await run(post, "one by one", {RetryLater: "resume"}) == []
    assert post.taken == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("after", "streak", "delay"),
    [
        (None, 0, 1.0),
        (None, 9, 8.0),  # the back-off grows as for other failures
        (5.0, 0, 5.0),
        (5.0, 9, 8.0),
        (10**9, 0, RetryLater.LONGEST_WAIT),
        (-1.0, 0, 1.0),
    ],
)
def test_the_back_off_is_not_shorter_than_what_the_error_asks_for(
    after: float | None, streak: int, delay: float
) -> None:
    rules = Supervisor("team", backoff=Backoff(initial=1, max=8, factor=2, jitter=0), max_restarts=None)
    state = SupervisorState(rules).added("post", ChildSpec(print, name="post"), 0.0)
    _, decision = state.failed("post", RetryLater("closed", after), 1.0, 0.0, streak)
    assert isinstance(decision, RestartGroup)
    assert decision.delay == delay
