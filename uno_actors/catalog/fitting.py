"""Which values of an old type a new type reads: the rules of schema evolution, on plain data.

A payload is written field by field in a plain form, and with the names of classes where the plain form would not read
back exactly: see `uno_actors.domain.payloads`. So a type is *plain* if its values can be distinguished without such
names. Plain types may change in the ways listed in `Fit`; any other type is read only by the same type. When in doubt,
the answer is that it does not fit.

Two things cannot be seen from a type. An integer beyond 64 bits, and an instance of a subclass of the annotated model,
are recorded with the names of the classes around them; those classes must stay as they are.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from uno_actors.catalog.shapes import NATIVE, SCALARS, allows_none, alternatives, parts_of, text_of
from uno_actors.catalog.values import ModelEntry, Shape

Models = Mapping[str, ModelEntry]


class Fit:
    """Says where values of an old program do not fit the types of a new one.

    These changes fit: ``None`` becomes allowed; an ``int`` becomes a ``float``; an alternative joins a union of
    ``bool``, ``int``, ``float`` and ``str``; an enum or a literal gets more values; a model gets a field with a
    default, or loses one and ignores it. They also fit inside of lists, sets, tuples, dicts and models.

    Args:
        old: The models of the old program.
        new: The models of the new program.
        judged: Whether constraints and validators judge the values. They judge commands; an event's payload is not
            judged again when it is read.
    """

    def __init__(self, old: Models, new: Models, *, judged: bool) -> None:
        self._old, self._new = old, new
        self._judged = judged
        self._within: set[tuple[str, str]] = set()

    def faults(self, old: ModelEntry, new: ModelEntry) -> Iterator[tuple[str, str]]:
        """The fields of ``old`` and ``new`` that do not fit, each with the reason; ``""`` stands for the whole."""
        if (old.serializers or new.serializers) and self._in_full(old, self._old) != self._in_full(
            new, self._new
        ):
            yield "", "serializers of the class write it, so that only the same class reads it for sure"
            return
        if self._judged and (added := set(new.rules) - set(old.rules)):
            yield "", f"the new validator {', '.join(sorted(added))} may refuse it"
        if old.extra == "allow" and new.extra == "forbid":
            yield "", "it may hold fields that the class does not name, and they are now forbidden"
        for name, field in old.fields.items():
            if name not in new.fields:
                if new.extra == "forbid":
                    yield name, "the field is gone, and old payloads have it"
            elif reason := self.fault(field.shape, new.fields[name].shape):
                yield name, reason
            elif new.fields[name].required and not field.required:
                yield name, f"its default is gone, and {self._without_it}"
        for name in new.fields.keys() - old.fields.keys():
            if new.fields[name].required:
                yield name, "the field is new and has no default"
            elif old.extra == "allow":
                yield name, "the field is new, and old payloads may hold any value of this name"

    @property
    def _without_it(self) -> str:
        """Which payloads may lack a field that has a default."""
        return (
            "senders may leave it out"
            if self._judged
            else "what was recorded before the field was there does not have it"
        )

    def fault(self, old: Shape, new: Shape) -> str:
        """Why a value of type ``old`` may not be read as ``new``; empty if it always is."""
        if reason := self._rule(old, new):
            return reason
        if new.get("forms") or not self._is_plain(old):
            fits = self._is_same(old, new) or self._is_same_or_none(old, new)
            return "" if fits else _changed(old, new)
        return self._of_plain(old, new)

    def _of_plain(self, old: Shape, new: Shape) -> str:
        before, after = alternatives(old), alternatives(new)
        if allows_none(old) and not allows_none(new):
            return f"{_changed(old, new)}: None is not allowed any more"
        if new["is"] == "any":
            fits = _is_native(old)
        elif len(before) == len(after) == 1:
            return self._of_one(before[0], after[0])
        else:
            is_native = all(part["is"] in NATIVE for part in (*before, *after))
            fits = not before or (is_native and all(part in after for part in before))
        return "" if fits else _changed(old, new)

    def is_same(self, old: Shape, new: Shape) -> bool:
        """Whether the types are equal, down to the fields of their models."""
        return self._is_same(old, new)

    def _rule(self, old: Shape, new: Shape) -> str:
        added = set(new.get("rules", ())) - set(old.get("rules", ())) if self._judged else set[str]()
        return f"the new rule {', '.join(sorted(added))} may refuse it" if added else ""

    def _of_one(self, old: Shape, new: Shape) -> str:
        """As `fault`, of two types neither of which is a union."""
        if reason := self._rule(old, new):
            return reason
        if (old["is"], new["is"]) == ("int", "float"):
            return ""
        if _outline(old) != _outline(new):
            return _changed(old, new)
        if old["is"] == "model":
            return self._of_models(old["name"], new["name"])
        if lost := [value for value in old.get("values", ()) if value not in new["values"]]:
            return f"{', '.join(lost)} is not among its values any more"
        faults = (self.fault(one, other) for one, other in zip(parts_of(old), parts_of(new), strict=True))
        return next(filter(None, faults), "")

    def _of_models(self, old: str, new: str) -> str:
        if (old, new) in self._within:  # a model within itself fits if the rest does
            return ""
        self._within.add((old, new))
        try:
            for field, reason in self.faults(self._old[old], self._new[new]):
                return f"{'.'.join(filter(None, (new.rpartition('.')[2], field)))}: {reason}"
            return ""
        finally:
            self._within.discard((old, new))

    def _is_same_or_none(self, old: Shape, new: Shape) -> bool:
        after = alternatives(new)
        return (
            new["is"] == "union" and "forms" not in new and len(after) == 1 and self._is_same(old, after[0])
        )

    def _is_same(self, old: Shape, new: Shape) -> bool:
        return old == new and self._below(old, self._old) == self._below(new, self._new)

    def _in_full(self, model: ModelEntry, models: Models) -> Any:
        below = [self._below(field.shape, models) for field in model.fields.values()]
        return _compared(model), below

    def _below(self, shape: Shape, models: Models) -> dict[str, Any]:
        """The models that a type refers to, in the parts that count."""
        found: dict[str, Any] = {}
        waiting = [shape]
        while waiting:
            each = waiting.pop()
            waiting += parts_of(each)
            if each["is"] == "model" and each["name"] not in found:
                model = models[each["name"]]
                found[each["name"]] = _compared(model)
                waiting += [field.shape for field in model.fields.values()]
        return found

    def _is_plain(self, shape: Shape, within: frozenset[str] = frozenset()) -> bool:
        """Whether the values of an old type can be distinguished without the names of classes."""
        kind = shape["is"]
        if kind == "model":
            return shape["name"] in within or self._is_plain_model(shape, within | {shape["name"]})
        if not _is_plain_in_itself(shape):
            return False
        return all(self._is_plain(part, within) for part in parts_of(shape))

    def _is_plain_model(self, shape: Shape, within: frozenset[str]) -> bool:
        model = self._old[shape["name"]]
        is_open = shape.get("forms") or model.serializers or model.extra == "allow"
        return not is_open and all(self._is_plain(field.shape, within) for field in model.fields.values())


def _changed(old: Shape, new: Shape) -> str:
    before, after = text_of(old), text_of(new)
    return f"{after} has changed" if before == after else f"{before} has become {after}"


def _outline(shape: Shape) -> object:
    """What two types have in common if the types in them decide whether they fit."""
    keys = shape["of"][0] if shape["is"] == "dict" else None
    return shape["is"], len(shape.get("of", ())), shape.get("open"), keys


def _is_plain_in_itself(shape: Shape) -> bool:
    kind, several = shape["is"], alternatives(shape)
    if shape.get("forms"):
        return False
    match kind:
        case "enum" | "literal":
            return bool(shape["plain"])
        case "union":
            return len(several) < 2 or all(part["is"] in NATIVE for part in several)
        case "dict":
            return shape["of"][0]["is"] in ("str", "int")
    return kind in _PLAIN_KINDS


_PLAIN_KINDS = SCALARS | {"None", "list", "set", "frozenset", "tuple", "dict"}


def _is_native(shape: Shape) -> bool:
    """Whether ``Any`` reads the value that was written."""
    if shape["is"] not in NATIVE | {"None", "list", "dict", "union"}:
        return False
    return all(map(_is_native, parts_of(shape)))


def _compared(model: ModelEntry) -> Any:
    fields = {name: (field.shape, field.required) for name, field in model.fields.items()}
    return model.extra, model.serializers, model.rules, fields
