"""Answers an inquiry: gathers the facts, and puts the findings together."""

from collections.abc import Callable, Iterable
from difflib import get_close_matches
from functools import partial

from uno_actors.handlers.partitions import whole_name
from uno_actors.inquiry.aggregates import of_aggregates
from uno_actors.inquiry.children import of_children
from uno_actors.inquiry.commands import of_command
from uno_actors.inquiry.events import of_correlation, of_event_id
from uno_actors.inquiry.explanation import Explanation, Finding, Kind
from uno_actors.inquiry.facts import Facts
from uno_actors.inquiry.gathering import PATIENCE, SEARCH, Place, gather, searched_in
from uno_actors.inquiry.handlers import is_internal, of_handler
from uno_actors.inquiry.remedies import Remedies
from uno_actors.inquiry.schedules import of_schedules

SIMILAR = 3
"""Names that are shown if one is not found."""

_SUBJECTS: tuple[tuple[Kind, Callable[[Facts, Remedies], Iterable[Finding]]], ...] = (
    ("handler", of_handler),
    ("actor", partial(of_children, kind="actor")),
    ("supervisor", partial(of_children, kind="supervisor")),
    ("schedule", of_schedules),
    ("command", of_command),
    ("event", of_event_id),
    ("aggregate", of_aggregates),
    ("correlation", of_correlation),
)


async def inquire(
    place: Place, wanted: str, *, patience: float = PATIENCE, searching: float = SEARCH
) -> Explanation:
    """Why something is not done, or what became of it.

    Args:
        place: Where to look.
        wanted: The id of a command, an event, a correlation, an aggregate (``Type/id`` or the id) or a schedule, or
            the name of a handler, a view, an actor or a supervisor.
        patience: Seconds within which each fact is gathered. What cannot be asked by then, the answer says.
        searching: Seconds for which the log is searched, from its end.
    """
    return explanation_of(await gather(place, wanted, patience=patience, searching=searching), place.url)


def explanation_of(facts: Facts, url: str | None) -> Explanation:
    """The answer that follows from the facts.

    Args:
        facts: The facts.
        url: URL of the store, for the commands that mend; ``None`` if no command reaches it.
    """
    remedies = Remedies(url)
    kinds: list[Kind] = []
    findings: list[Finding] = []
    for kind, of_kind in _SUBJECTS:
        found = list(of_kind(facts, remedies))
        if found:
            kinds.append(kind)
            findings += found
    if findings:
        return Explanation(facts.id, kinds[0], tuple(findings), facts.missing)
    return Explanation(facts.id, "unknown", (_unknown(facts, remedies),), facts.missing)


def _unknown(facts: Facts, remedies: Remedies) -> Finding:
    says = (
        f"Nothing is known of {facts.id!r} here. Looked through: {searched_in(facts)}. A command that was rejected, or"
        " that recorded nothing, is not in the log; processes keep their latest steps."
    )
    names = [whole_name(each.name) for each in facts.handlers if not is_internal(each.name)]
    near = get_close_matches(facts.id, dict.fromkeys([*names, *facts.names]), SIMILAR)
    # Handlers have the modules of their functions and classes in their default names.
    short = [name for name in names if name.rpartition(".")[2].casefold() == facts.id.casefold()]
    meant = list(dict.fromkeys([*facts.log.similar, *short, *near]))[:SIMILAR]
    below = [
        Finding(
            "Ids are those of a command, an event or a correlation (32 hexadecimal digits, or your own), Type/id of an"
            " aggregate, the key of a schedule, or the name of a handler, a view, an actor or a supervisor."
        )
    ]
    if meant:
        below.insert(0, Finding(f"Did you mean {' or '.join(meant)}?", remedies=(remedies.why(meant[0]),)))
    return Finding(says, "note", below=tuple(below))
