"""Settings of the tests as a whole."""

from hypothesis import settings

# A busy machine must not fail a test that is right; what hangs is ended by the deadline of each test.
settings.register_profile("uno", deadline=None)
settings.load_profile("uno")
