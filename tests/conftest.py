"""Settings of the tests as a whole."""

import signal

from hypothesis import settings

# A busy machine must not fail a test that is right; what hangs is ended by the deadline of each test.
settings.register_profile("uno", deadline=None)
settings.load_profile("uno")

# A shell has what it runs in the background ignore Ctrl-C, and so would the programs that tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
