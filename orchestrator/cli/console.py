"""Standard output and standard error, as the commands use them.

A reader that has gone away (`| head`) is no error: what is written from then on is dropped.
"""

import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout, suppress
from typing import TextIO

from orchestrator.cli.board import Signs, signs_for
from orchestrator.cli.lines import Line, coloured, plain
from orchestrator.model.errors import InputError

_PLAIN_WIDTH = 120
"""Columns of a line that no terminal limits."""
_PLAIN_HEIGHT = 1000


class Console:
    """Writes lines. `sys.stdout` and `sys.stderr` are looked up each time, as others may put their own there.

    Attributes:
        is_terminal: whether standard output is a terminal that can move its cursor.
        signs: what standard output can draw with.
        is_linking: whether its terminal can hide an address behind a text.
    """

    is_terminal: bool
    signs: Signs
    is_linking: bool

    def __init__(self) -> None:
        self._is_limited = _is_terminal(sys.stdout)
        self.is_terminal = self._is_limited and os.environ.get("TERM") != "dumb"
        self.signs = signs_for(getattr(sys.stdout, "encoding", None))
        self.is_linking = self.is_terminal and not os.environ.get("NO_COLOR") and _links(os.environ)

    @property
    def size(self) -> tuple[int, int]:
        """Columns and lines that standard output has now."""
        if not self._is_limited:
            return _PLAIN_WIDTH, _PLAIN_HEIGHT
        found = shutil.get_terminal_size()
        return max(40, found.columns), max(10, found.lines)

    def out(self, *lines: str) -> None:
        """Write lines to standard output, at once."""
        _write(sys.stdout, "standard output", "".join(f"{each}\n" for each in lines))

    def err(self, *lines: str) -> None:
        """Write lines to standard error. Where that is not possible there is nobody to tell."""
        with suppress(InputError):
            _write(sys.stderr, "standard error", "".join(f"{each}\n" for each in lines))

    def styled(self, lines: Iterable[Line]) -> None:
        """Write lines to standard output, in colour on a terminal that has it (and no NO_COLOR)."""
        render = coloured if self.is_terminal and not os.environ.get("NO_COLOR") else plain
        self.out(*(render(each) for each in lines))

    def document(self, data: bytes) -> None:
        """Write a JSON document to standard output: UTF-8, whatever the locale is."""
        data = data.rstrip(b"\n") + b"\n"
        stream = getattr(sys.stdout, "buffer", None)
        if stream is None:
            _write(sys.stdout, "standard output", data.decode())
            return
        self.flush()
        _write(sys.stdout, "standard output", data)

    def flush(self) -> None:
        """Write what is still kept back."""
        _write(sys.stdout, "standard output", "")

    @contextmanager
    def output_kept_clean(self) -> Iterator[None]:
        """Have whatever else is printed meanwhile, here or by child processes, go to standard error."""
        self.flush()
        kept = None
        with suppress(OSError, ValueError, AttributeError):
            if sys.stdout.fileno() == 1:
                kept = os.dup(1)
                os.dup2(2, 1)
        try:
            with redirect_stdout(sys.stderr):
                yield
        finally:
            if kept is not None:
                os.dup2(kept, 1)
                os.close(kept)


def _write(stream: TextIO | None, name: str, content: str | bytes) -> None:
    if stream is None:
        return
    try:
        if isinstance(content, bytes):
            stream.buffer.write(content)
        else:
            stream.write(content)
        stream.flush()
    except BrokenPipeError:
        _drop(stream)
    except OSError as exc:
        _drop(stream)
        raise InputError(f"{name}: cannot be written: {exc.strerror or exc}") from exc


def _drop(stream: TextIO) -> None:
    """Let nothing of what the stream still holds, or gets, lead to another error."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def _links(environment: Mapping[str, str]) -> bool:
    """Whether the terminal is one that is known to understand OSC 8; there is no way to ask it.

    Source: https://github.com/Alhadis/OSC8-Adoption, by what such terminals set. tmux and screen pass it on only if
    they are told to, so it is not tried there.
    """
    if environment.get("FORCE_HYPERLINK"):
        return environment["FORCE_HYPERLINK"] != "0"
    term = environment.get("TERM", "")
    if environment.get("TMUX") or term.startswith(("screen", "tmux")):
        return False
    vte = environment.get("VTE_VERSION", "")
    return (
        any(environment.get(name) for name in ("WT_SESSION", "KITTY_WINDOW_ID", "DOMTERM", "KONSOLE_VERSION"))
        or environment.get("TERM_PROGRAM") in ("iTerm.app", "WezTerm", "vscode", "ghostty", "Hyper")
        or term in ("xterm-kitty", "xterm-ghostty", "alacritty", "foot")
        or (vte.isdigit() and int(vte) >= 5000)
    )


def _is_terminal(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.isatty()
    except ValueError:
        return False
