"""The promises of every event store, as checks that run against any store, including your own.

To check a store, pass a function that makes an empty place for it and cleans up afterwards::

    @asynccontextmanager
    async def make_store() -> AsyncIterator[StorePlace]:
        with TemporaryDirectory() as directory:

            async def open_store(event_registry: EventRegistry) -> EventStore:
                return MyEventStore(directory, event_registry)

            yield StorePlace(open_store)


    await check_event_store(make_store)

The checks hold for stores with one log and with several. In a store with several they expect the order of each log, and
that what needs one order of all events is refused: reading all after a position, and one last position.

To see each promise as a separate test, parametrize over `CONTRACT`; a check's docstring is its promise. The checks are
in one module for each subject: `places`, `expected_versions`, `reading` and so on.
"""

import asyncio

from uno_actors.testing.contract.closing import (
    a_closed_store_refuses,
    closing_finishes_what_was_begun,
    durable_stores_survive_reopening,
    leaving_the_store_closes_it,
)
from uno_actors.testing.contract.concurrency import (
    a_cancelled_append_is_recorded_whole_or_not_at_all,
    many_appends_leave_no_gap,
    one_of_many_wins,
    readers_see_a_prefix,
)
from uno_actors.testing.contract.conditions import (
    a_condition_and_a_version_must_both_hold,
    an_append_may_rest_on_any_events,
    conditions_of_one_commit_see_each_other,
    events_are_selected_by_types_tags_and_topics,
    impossible_conditions_are_refused,
    old_events_stand_against_conditions,
    one_of_many_conditional_appends_wins,
)
from uno_actors.testing.contract.expected_versions import (
    a_stream_can_be_required_to_exist,
    an_append_is_all_or_nothing,
    an_event_may_bring_its_version,
    expected_version_is_of_one_stream,
    expected_version_is_the_fence,
    requests_of_one_commit_stand_alone,
)
from uno_actors.testing.contract.following import (
    listeners_find_what_was_committed,
    listeners_hear_of_commits,
    one_stream_is_followed,
    subscriptions_end_with_the_store,
    subscriptions_go_from_history_to_live,
)
from uno_actors.testing.contract.leases import a_name_is_leased_once, closing_releases_leases
from uno_actors.testing.contract.limits import (
    progress_that_one_store_refuses_all_refuse,
    what_one_store_refuses_all_refuse,
)
from uno_actors.testing.contract.membership import (
    all_that_a_node_announces_comes_back,
    an_announcement_ends_unless_it_is_renewed,
    closing_withdraws_nodes,
    nodes_hear_of_others,
    nodes_see_each_other,
)
from uno_actors.testing.contract.moved_checkpoints import (
    a_checkpoint_moves_from_where_it_is_expected,
    checkpoints_of_one_commit_stand_alone,
    events_move_a_checkpoint,
    impossible_checkpoints_are_refused,
    of_two_consumers_one_records_each_event,
    progress_can_be_dropped,
)
from uno_actors.testing.contract.payloads import (
    an_unknown_type_is_named,
    big_events_come_back,
    every_kind_of_value_comes_back,
    old_events_are_upcast,
)
from uno_actors.testing.contract.places import (
    a_loop_of_appends_leaves_time_for_others,
    append_returns_what_readers_read,
    appending_nothing_changes_nothing,
    events_without_aggregate_stand_in_the_log_alone,
    impossible_ids_are_refused,
    odd_ids_never_meet,
    odd_types_never_meet,
    positions_only_grow,
    streams_are_named_by_type_and_id,
    versions_count_each_stream,
)
from uno_actors.testing.contract.progress import (
    checkpoints_move,
    dead_letters_are_listed_in_order,
    dead_letters_can_be_dropped,
    dead_letters_move_with_checkpoints,
    handlers_can_be_forgotten,
    handlers_can_be_renamed,
    views_are_read_in_order_and_keep_apart,
    views_can_be_dropped,
    views_change_with_checkpoints,
)
from uno_actors.testing.contract.reading import (
    an_ambiguous_id_is_refused,
    get_events_ends_at_a_version,
    get_events_narrows_by_time,
    get_events_narrows_by_version_and_limit,
    headings_are_those_of_the_log,
    one_stream_is_read_between_positions,
    read_all_goes_on_while_the_log_grows,
    streams_are_read_backward,
    streams_are_read_page_by_page,
    the_log_is_narrowed,
    the_log_is_read_page_by_page,
)
from uno_actors.testing.contract.snapshots import (
    one_snapshot_can_be_dropped,
    snapshots_are_kept_one_for_each_stream,
    snapshots_can_be_dropped,
)
from uno_actors.testing.contract.store_place import Check, MakeStore, StorePlace

DEADLINE = 60.0
"""Seconds that one check may take before it counts as hanging."""


async def check_event_store(make_store: MakeStore) -> None:
    """Run every check of `CONTRACT`, each on a fresh store.

    Raises:
        AssertionError: A promise is not kept; its text names the check and the promise.
    """
    for check in CONTRACT:
        try:
            await asyncio.wait_for(check(make_store), DEADLINE)
        except Exception as error:
            raise AssertionError(
                f"{check.__name__}: {check.__doc__} Found {type(error).__name__}: {error}"
            ) from error


CONTRACT: tuple[Check, ...] = (
    positions_only_grow,
    append_returns_what_readers_read,
    appending_nothing_changes_nothing,
    versions_count_each_stream,
    streams_are_named_by_type_and_id,
    odd_ids_never_meet,
    odd_types_never_meet,
    impossible_ids_are_refused,
    what_one_store_refuses_all_refuse,
    progress_that_one_store_refuses_all_refuse,
    a_loop_of_appends_leaves_time_for_others,
    events_without_aggregate_stand_in_the_log_alone,
    expected_version_is_the_fence,
    a_stream_can_be_required_to_exist,
    expected_version_is_of_one_stream,
    an_append_is_all_or_nothing,
    an_event_may_bring_its_version,
    requests_of_one_commit_stand_alone,
    an_append_may_rest_on_any_events,
    events_are_selected_by_types_tags_and_topics,
    conditions_of_one_commit_see_each_other,
    a_condition_and_a_version_must_both_hold,
    one_of_many_conditional_appends_wins,
    old_events_stand_against_conditions,
    impossible_conditions_are_refused,
    get_events_narrows_by_version_and_limit,
    get_events_ends_at_a_version,
    get_events_narrows_by_time,
    an_ambiguous_id_is_refused,
    streams_are_read_page_by_page,
    streams_are_read_backward,
    the_log_is_read_page_by_page,
    headings_are_those_of_the_log,
    the_log_is_narrowed,
    one_stream_is_read_between_positions,
    one_stream_is_followed,
    subscriptions_go_from_history_to_live,
    subscriptions_end_with_the_store,
    read_all_goes_on_while_the_log_grows,
    every_kind_of_value_comes_back,
    big_events_come_back,
    an_unknown_type_is_named,
    old_events_are_upcast,
    checkpoints_move,
    events_move_a_checkpoint,
    a_checkpoint_moves_from_where_it_is_expected,
    checkpoints_of_one_commit_stand_alone,
    impossible_checkpoints_are_refused,
    of_two_consumers_one_records_each_event,
    progress_can_be_dropped,
    dead_letters_move_with_checkpoints,
    dead_letters_are_listed_in_order,
    dead_letters_can_be_dropped,
    views_are_read_in_order_and_keep_apart,
    views_change_with_checkpoints,
    views_can_be_dropped,
    handlers_can_be_renamed,
    handlers_can_be_forgotten,
    snapshots_are_kept_one_for_each_stream,
    snapshots_can_be_dropped,
    one_snapshot_can_be_dropped,
    listeners_hear_of_commits,
    listeners_find_what_was_committed,
    a_name_is_leased_once,
    closing_releases_leases,
    nodes_see_each_other,
    all_that_a_node_announces_comes_back,
    an_announcement_ends_unless_it_is_renewed,
    closing_withdraws_nodes,
    nodes_hear_of_others,
    one_of_many_wins,
    many_appends_leave_no_gap,
    readers_see_a_prefix,
    a_cancelled_append_is_recorded_whole_or_not_at_all,
    a_closed_store_refuses,
    closing_finishes_what_was_begun,
    leaving_the_store_closes_it,
    durable_stores_survive_reopening,
)
"""The promises of `uno_actors.store.port.EventStore`, one check each."""

__all__ = ["CONTRACT", "DEADLINE", "Check", "MakeStore", "StorePlace", "check_event_store"]
