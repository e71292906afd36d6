"""What came out of a run, as lines for people: results of any shape, long ones shortened. Pure.

A list of small objects with equal keys becomes a table, side by side in blocks where that saves lines.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import msgspec

from orchestrator.cli.lines import Line, columns, counted, cut, line, pad, printable, width_of
from orchestrator.model.commands import Json
from orchestrator.model.node_state import NodeState

MAX_FIELDS = 30
MAX_ROWS = 40
MAX_TEXT = 300

_MAX_CELL = 40
_MAX_COLUMNS = 6
_MAX_BLOCKS = 4
_MIN_BLOCK_ROWS = 5
_LONGEST_JSON = 2000  # more than any terminal is wide

SizeOf = Callable[[str], int | None]
"""Path -> size in bytes of the file there, None if there is none."""


def outcome_lines(nodes: Sequence[NodeState], width: int, size_of: SizeOf) -> list[Line]:
    """Return what the nodes that a run ended with came to, each under its name."""
    lines: list[Line] = []
    shown = [node for node in nodes[:MAX_ROWS] if node.result is not None or node.stored_result is not None]
    column = max((width_of(node.node_name) for node in shown if _is_short(node.result)), default=0)
    for node in shown:
        if node.stored_result is not None:
            size = size_words(node.stored_result.size_bytes)
            where = ((node.stored_result.object, "cyan"), (f"  {size}", "dim"))
            lines.append(((f"{pad(node.node_name, column)}  ", "bold"), *where))
        elif _is_short(node.result):
            value = _inline(node.result, max(40, width - column - 2), size_of)
            lines.append(((f"{pad(node.node_name, column)}  ", "bold"), *value))
        else:
            lines.append(line(node.node_name, "bold"))
            lines += [(("  ", ""), *each) for each in _block(node.result, max(40, width - 2), size_of)]
    if len(nodes) > MAX_ROWS:
        lines.append(line(f"… and {counted(len(nodes) - MAX_ROWS, 'more step')}", "dim"))
    return lines


def size_words(size_bytes: int) -> str:
    """Return `812 B`, `1.4 kB`, `3.0 MB`: powers of 1000."""
    if size_bytes < 1000:
        return f"{size_bytes} B"
    size = float(size_bytes)
    for unit in ("kB", "MB", "GB"):
        size /= 1000
        if size < 999.95:
            return f"{size:.1f} {unit}"
    return f"{size / 1000:.1f} TB"


def _is_short(value: Json) -> bool:
    """Whether a result is shown beside the name of its step."""
    return _as_rows(value) is None and not (isinstance(value, dict) and value)


def _block(value: Json, width: int, size_of: SizeOf) -> Iterator[Line]:
    if isinstance(value, dict) and value:
        yield from _fields(value, width, size_of)
    elif (rows := _as_rows(value)) is not None:
        yield from _table(rows, width)
    else:
        yield _inline(value, width, size_of)


def _fields(value: Mapping[str, Json], width: int, size_of: SizeOf) -> Iterator[Line]:
    shown = list(value.items())[:MAX_FIELDS]
    names = [cut(printable(name), 30) for name, _ in shown]
    column = max(map(width_of, names))
    for name, (_, inner) in zip(names, shown, strict=True):
        rows = _as_rows(inner)
        room = max(20, width - column - 2)
        body = _table(rows, room) if rows is not None else iter([_inline(inner, room, size_of)])
        for number, each in enumerate(body):
            yield ((f"{pad('' if number else name, column)}  ", "dim"), *each)
    if len(value) > MAX_FIELDS:
        yield line(f"… and {counted(len(value) - MAX_FIELDS, 'more field')}", "dim")


def _inline(value: Json, width: int, size_of: SizeOf) -> Line:
    if isinstance(value, str):
        size = size_of(value) if value else None
        if size is not None:
            return ((printable(value), "cyan"), (f"  {size_words(size)}", "dim"))
        return line(cut(printable(value), MAX_TEXT))
    if isinstance(value, list) and value:
        return _short_list(value, width)
    return line(cut(_json(value), width))


def _short_list(values: Sequence[Json], width: int) -> Line:
    """Return `[1, 2, 3, … 997 more]`: as many as fit on one line, one at the least."""
    shown, used = list[str](), 2
    for number, value in enumerate(values):
        text = cut(_json(value), max(20, width - 20))
        more = f"… {len(values) - number:,} more"
        is_last = number == len(values) - 1
        if shown and used + width_of(text) + (0 if is_last else 2 + len(more)) > width:
            return (f"[{', '.join(shown)}, ", ""), (more, "dim"), ("]", "")
        shown.append(text)
        used += width_of(text) + 2
    return line(f"[{', '.join(shown)}]")


def _as_rows(value: Json) -> list[dict[str, Json]] | None:
    """Return the value if it is a list of small objects with equal keys."""
    if not isinstance(value, list) or not value or not isinstance(value[0], dict):
        return None
    keys = list(value[0])
    if not 1 <= len(keys) <= _MAX_COLUMNS:
        return None
    for row in value[:MAX_ROWS]:
        if not isinstance(row, dict) or row.keys() != value[0].keys() or not all(map(_is_small, row.values())):
            return None
    return value if all(isinstance(row, dict) for row in value) else None


def _is_small(value: Json) -> bool:
    return not isinstance(value, dict | list) and not (isinstance(value, str) and len(value) > _MAX_CELL)


def _table(rows: Sequence[Mapping[str, Json]], width: int) -> Iterator[Line]:
    # Names on the left, numbers on the right, whatever order the keys came in.
    is_number = {key: all(isinstance(row[key], int | float) for row in rows[:MAX_ROWS]) for key in rows[0]}
    keys = sorted(rows[0], key=is_number.__getitem__)
    shown = [[_cell(row[key]) for key in keys] for row in rows[:MAX_ROWS]]
    heading = [cut(printable(key), _MAX_CELL) for key in keys]
    widths = columns([heading, *shown])

    def block_line(cells: Sequence[str]) -> str:
        parts = zip(cells, widths, keys, strict=True)
        return "  ".join(pad(cell, size, is_number=is_number[key]) for cell, size, key in parts)

    block_width = sum(widths) + 2 * len(widths) + 2
    blocks = max(1, min(_MAX_BLOCKS, (width + 4) // block_width, len(shown) // _MIN_BLOCK_ROWS))
    height = -(-len(shown) // blocks)
    blocks = -(-len(shown) // height)
    yield (("    ".join([block_line(heading)] * blocks), "dim"),)
    for number in range(height):
        yield line("    ".join(block_line(cells) for cells in shown[number::height]))
    if len(rows) > MAX_ROWS:
        yield line(f"… and {len(rows) - MAX_ROWS:,} more", "dim")


def _cell(value: Json) -> str:
    return printable(value) if isinstance(value, str) else _json(value)


def _json(value: Json) -> str:
    text = msgspec.json.encode(value).decode()
    return printable(text[:_LONGEST_JSON])
