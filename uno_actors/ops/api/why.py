"""The page Why: why something is not done; ``uno-actors why`` asks the same."""

from pydantic import Field

from uno_actors.inquiry.explanation import Finding, Kind, State
from uno_actors.inquiry.gathering import SEARCH
from uno_actors.inquiry.inquiry import inquire
from uno_actors.ops.api.endpoint import Answered, Asked, Observed


class RemedyShown(Answered):
    """What mends something.

    Attributes:
        purpose: What it does.
        command: The command of a shell, or the call in a program.
    """

    purpose: str
    command: str


class FindingShown(Answered):
    """Something that was found out.

    Attributes:
        says: In words.
        state: ``done``, ``waits``, ``stuck``, ``failed`` or ``note``; see `uno_actors.inquiry.explanation.State`.
        subject: Of what it is, such as the name of a handler; empty if it is of the whole.
        remedies: What mends it.
        below: Findings that explain this one.
    """

    says: str
    state: State
    subject: str
    remedies: list[RemedyShown]
    below: "list[FindingShown]"


class Why(Answered):
    """Why something is not done, or what became of it.

    Attributes:
        id: What was asked for.
        kind: What it is; ``unknown`` if nothing is known of it.
        state: The gravest state of all findings.
        findings: What was found out.
        unasked: The parts that could not be asked, each with the reason.
    """

    id: str
    kind: Kind
    state: State
    findings: list[FindingShown]
    unasked: list[str]


class AskedWhy(Asked):
    """The question of a user of the page.

    Attributes:
        id: The id of a command, an event, a correlation, an aggregate or a schedule, or a name.
        seconds: For how long the log is searched.
    """

    id: str = Field(min_length=1, max_length=1_000)
    seconds: float = Field(default=SEARCH, ge=0, le=60)


async def why(observed: Observed, asked: AskedWhy) -> Why:
    """Why something is not done, or what became of it."""
    found = await inquire(observed.source, asked.id, searching=asked.seconds)
    return Why(
        id=found.id,
        kind=found.kind,
        state=found.state,
        findings=[_shown(finding) for finding in found.findings],
        unasked=list(found.unasked),
    )


def _shown(finding: Finding) -> FindingShown:
    return FindingShown(
        says=finding.says,
        state=finding.state,
        subject=finding.subject,
        remedies=[RemedyShown(purpose=each.purpose, command=each.command) for each in finding.remedies],
        below=[_shown(each) for each in finding.below],
    )
