"""Decision models: the state that one decision needs, made of events of any streams.

Nothing here knows stores: to test a decision, make a model, replay events, and call the function that decides.
"""

from collections.abc import Iterable
from typing import Any, ClassVar, Self

from uno_actors.causality import current_cause
from uno_actors.domain.events import DomainEvent, check_metadata
from uno_actors.domain.methods import apply_methods, event_key
from uno_actors.domain.payloads import mark_exact, own_copy
from uno_actors.errors import ApplyFailed, InvalidAggregate, InvalidDecision, MissingApply, UnoError, describe


class DecisionModel:
    """What a function marked with `decides` decides on: state that selected events make, and the events it registers.

    Subclasses set their initial state in ``__init__(self)`` and change it in ``apply_<event>`` methods, which are named
    as those of an `AggregateRoot`. A model has no id and no stream, and lives for one decision.

    Raises:
        InvalidDecision: At class definition: two methods for one event, or one that is async.
    """

    _applies: ClassVar[dict[str, str]] = {}
    _pending: list[DomainEvent] | None = None
    _applying = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        try:
            cls._applies = apply_methods(cls)
        except InvalidAggregate as invalid:
            raise InvalidDecision(cls.__name__, invalid.reason) from None

    def register_event(self, event: DomainEvent) -> None:
        """Keep ``event`` to be recorded, with the command being decided as its cause, and apply it.

        It is recorded in the log alone, unless it has an ``aggregate_id``. The model need not have a method for it.

        Raises:
            EventNotSerializable: The event would not read back as it is; see `uno_actors.domain.payloads`.
            InvalidDecision: An ``apply_`` method calls this method; a replay must not register events.
            ApplyFailed: The ``apply_`` method raised an error that is not a `UnoError`.
        """
        if self._applying:
            reason = f"an apply_ method registers {type(event).__name__}, and a replay runs it too"
            raise InvalidDecision(type(self).__name__, f"{reason}: it may only change state")
        given: Any = event
        if not isinstance(given, DomainEvent):
            reason = (
                f"register_event takes an event, as in register_event(AddressTaken(...)); found {given!r}"
            )
            raise InvalidDecision(type(self).__name__, reason)
        check_metadata(event)
        correlation_id, causation_id = event.correlation_id, event.causation_id
        if (cause := current_cause()) is not None:
            correlation_id, causation_id = cause.fill(correlation_id, causation_id)
        stamped = event.stamped(correlation_id=correlation_id, causation_id=causation_id)
        applied = stamped
        if not mark_exact(stamped):
            stamped = own_copy(stamped)
            applied = own_copy(stamped)  # a method may keep and change parts of it
        self._pending = [*(self._pending or ()), stamped]
        if (method := self._method(type(event))) is not None:
            self._apply(method, applied)

    @property
    def pending_events(self) -> tuple[DomainEvent, ...]:
        """The registered events, oldest first."""
        return tuple(self._pending or ())

    def replay(self, events: Iterable[DomainEvent]) -> Self:
        """Apply recorded events in order.

        Raises:
            MissingApply: The class has no method for one of the events.
            ApplyFailed: The method raised an error.
        """
        for event in events:
            method = self._method(type(event))
            if method is None:
                name = type(event).__name__
                expected = f"apply_{event_key(name)}"
                raise MissingApply(type(self).__name__, name, expected, self._applies.values())
            self._apply(method, event)
        return self

    @classmethod
    def _method(cls, event: type[DomainEvent]) -> str | None:
        keys = (event_key(base.__name__) for base in event.__mro__)
        return next((cls._applies[key] for key in keys if key in cls._applies), None)

    def _apply(self, method: str, event: DomainEvent) -> None:
        self._applying = True
        try:
            getattr(self, method)(event)
        except UnoError:
            raise
        except Exception as error:
            raise ApplyFailed(type(self).__name__, method, str(event), describe(error)) from error
        finally:
            self._applying = False
