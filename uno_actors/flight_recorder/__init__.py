"""The flight recorder: the latest steps of a node, in a ring of bounded memory.

- `uno_actors.flight_recorder.ring`: the ring itself, to which the runtime adds a step in well under a microsecond.
- `uno_actors.flight_recorder.steps`: a step as a value, and which steps are about an id.
- `uno_actors.flight_recorder.files`: a recording as a file, written and read.
- `uno_actors.flight_recorder.timeline`: the steps of several nodes as lines of text.
"""
