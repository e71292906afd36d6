"""What all tests share."""

import signal


def pytest_configure() -> None:
    """Have a ctrl-C work in the programs under test, wherever the tests themselves were started.

    A shell starts what runs in its background with SIGINT ignored, and a program inherits that.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
