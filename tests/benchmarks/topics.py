"""Topics matched against many patterns."""

import time

from tests.benchmarks.measuring import Measured, rate
from uno_actors.topics import TopicPattern, TopicTrie


async def topics(count: int = 50_000) -> list[Measured]:
    def matches(patterns: int) -> float:
        trie: TopicTrie[int] = TopicTrie()
        for number in range(patterns):
            trie.add(TopicPattern(f"a{number}.*.done"), number)
        started = time.perf_counter()
        for number in range(count):
            trie.match(f"a{number % patterns}.x.done")
        return rate(count, started)

    return [Measured("topics/s matched against 10,000 patterns", matches(10_000), "against 10", matches(10))]
