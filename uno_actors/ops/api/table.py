"""All endpoints of the API, in one list."""

from uno_actors.ops.api import (
    cluster,
    dead_letters,
    handlers,
    now,
    records,
    schedules,
    states,
    streams,
    trace,
    tree,
)
from uno_actors.ops.api.endpoint import Done, Endpoint, Nothing

ENDPOINTS = (
    Endpoint("GET", "/api/about", "What is shown", now.about, Nothing, now.About),
    Endpoint("GET", "/api/now", "Figures of the last minutes", now.now, now.AskedNow, now.Now, every=1.0),
    Endpoint("GET", "/api/tree", "Supervision trees", tree.trees, Nothing, tree.Trees, every=1.0),
    Endpoint(
        "GET",
        "/api/handlers",
        "All handlers",
        handlers.handlers,
        handlers.AskedHandlers,
        handlers.Handlers,
        every=1.0,
    ),
    Endpoint("POST", "/api/handlers/pause", "Pause a handler", handlers.pause, handlers.Named, Done),
    Endpoint("POST", "/api/handlers/resume", "Resume a handler", handlers.resume, handlers.Named, Done),
    Endpoint(
        "POST", "/api/handlers/reset", "Move a handler", handlers.reset, handlers.AskedReset, handlers.Moved
    ),
    Endpoint(
        "GET",
        "/api/dead-letters",
        "Dead letters",
        dead_letters.dead_letters,
        dead_letters.AskedLetters,
        dead_letters.DeadLetters,
        every=1.0,
    ),
    Endpoint(
        "GET",
        "/api/dead-letter",
        "One dead letter",
        dead_letters.dead_letter,
        dead_letters.AskedLetter,
        dead_letters.WholeLetter,
    ),
    Endpoint(
        "POST",
        "/api/dead-letters/retry",
        "Retry dead letters",
        dead_letters.retry,
        dead_letters.ChosenLetters,
        Done,
    ),
    Endpoint(
        "POST",
        "/api/dead-letters/drop",
        "Drop dead letters",
        dead_letters.drop,
        dead_letters.ChosenLetters,
        Done,
    ),
    Endpoint(
        "GET",
        "/api/schedules",
        "Scheduled commands",
        schedules.schedules,
        schedules.AskedSchedules,
        schedules.SchedulesShown,
        every=1.0,
    ),
    Endpoint(
        "POST",
        "/api/schedules/cancel",
        "Cancel a scheduled command",
        schedules.cancel,
        schedules.AskedSchedule,
        Done,
    ),
    Endpoint(
        "POST",
        "/api/schedules/run-now",
        "Send a scheduled command now",
        schedules.run_now,
        schedules.AskedSchedule,
        Done,
    ),
    Endpoint("GET", "/api/events", "Find events", streams.events, streams.AskedEvents, streams.Found),
    Endpoint("GET", "/api/event", "One event", streams.event, streams.AskedEvent, records.EventShown),
    Endpoint("GET", "/api/stream", "One stream", streams.stream, streams.AskedStream, streams.StreamPart),
    Endpoint(
        "GET", "/api/state", "An aggregate at one version", states.state, states.AskedState, states.StateShown
    ),
    Endpoint("GET", "/api/trace", "What one message caused", trace.trace, trace.AskedTrace, trace.Trace),
    Endpoint(
        "GET",
        "/api/cluster",
        "Nodes of the cluster",
        cluster.cluster,
        Nothing,
        cluster.ClusterShown,
        every=5.0,
    ),
)
