"""Why something is not done: each situation is brought about, and the answer is what people read."""

from pathlib import Path

import pytest

from tests.why_situations import SITUATIONS, Situation, normalised


@pytest.mark.parametrize("found", SITUATIONS, ids=lambda found: found.name)
async def test_the_answer_says_why_and_what_mends_it(found: Situation, tmp_path: Path) -> None:
    assert normalised(await found.make(tmp_path)) == found.expected
