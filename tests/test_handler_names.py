"""The one rule for the names under which stores keep the data of handlers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uno_actors.handlers.requests import PAUSED, RESET, RETRY
from uno_actors.store.handler_names import CONTROL, DIRECTORY, REPORTED, handler_of, handlers_of, view_name
from uno_actors.store.view_keys import pack_key

names = st.text(min_size=1, max_size=20).filter(lambda name: not {"@", "\0"} & set(name))


@given(names, st.integers(0, 2**31), st.integers(0, 2**31))
def test_the_handler_is_found_in_each_name_derived_from_its_own(name: str, version: int, builds: int) -> None:
    view = view_name(name, version, builds)
    assert handler_of(view) == handler_of(name) == name
    assert view != name


@given(names, names, st.integers(0, 9), st.integers(0, 9))
def test_views_of_different_handlers_or_versions_have_different_names(
    one: str, other: str, version: int, builds: int
) -> None:
    assert (view_name(one, version, builds) == view_name(other, 3)) == (
        (one, version, builds) == (other, 3, 0)
    )


@pytest.mark.parametrize(
    ("kept", "entries", "handlers"),
    [
        (["sum"], [], {"sum"}),
        (["sum@1", "sum@2.1", "mail"], [], {"sum", "mail"}),
        ([], [("sum@1", b"k"), ("sum@1", b"l")], {"sum"}),
        ([], [("totals", b"k")], {"totals"}),  # a view of that name, made by hand
        ([], [(DIRECTORY, pack_key("sum"))], {"sum"}),
        ([], [(CONTROL, pack_key(("sum", REPORTED)))], {"sum"}),
        # Anybody may ask for these, whoever has the lease.
        ([], [(CONTROL, pack_key(("sum", PAUSED)))], set()),
        ([], [(CONTROL, pack_key(("sum", RESET)))], set()),
        ([], [(CONTROL, pack_key(("sum", RETRY, 7)))], set()),
        ([], [(CONTROL, b"\x02no key"), (CONTROL, b"\x07"), (DIRECTORY, b"\x01\x02")], set()),
    ],
)
def test_what_is_written_stands_under_the_leases_of(
    kept: list[str], entries: list[tuple[str, bytes]], handlers: set[str]
) -> None:
    assert handlers_of(kept, entries) == handlers
