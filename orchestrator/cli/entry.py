"""Where the command line begins: all else is imported only once ctrl-C ends this process without a word.

Loading the rest takes some 100 ms, in which a KeyboardInterrupt would be a traceback, or be swallowed by an import.
What comes before is the start of Python itself, and not ours; so this imports little.
"""

import os
import signal
import sys

TYPE_CHECKING = False  # typing takes some ms to load
if TYPE_CHECKING:
    from typing import NoReturn


def entry() -> "NoReturn":
    """Run the command line of this process."""
    is_default = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # nohup, `&` in a script: left as it is
    if is_default:
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))  # nothing has been begun
    from orchestrator.cli.main import command_line

    try:
        if is_default:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        code = command_line(sys.argv[1:])
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)
