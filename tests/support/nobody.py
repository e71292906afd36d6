"""Being somebody whom permissions bind."""

import os
from contextlib import contextmanager


@contextmanager
def without_privileges():
    """Be nobody for a while if we are root, whom permission bits do not bind."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
