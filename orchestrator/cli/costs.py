"""What a run costs in Google Cloud, estimated from its document: a line, or one for each service."""

from datetime import datetime
from math import floor, log10

from orchestrator.cli.bucket import Bucket
from orchestrator.cli.lines import Line, columns, line, pad
from orchestrator.model.enums import NodeTypes, TargetTypes
from orchestrator.model.prices import LOOKED_UP, bill, usd_of
from orchestrator.model.run_cost import operations_of
from orchestrator.model.run_state import RunState


def cost_lines(state: RunState, bucket: Bucket, now: datetime, *, is_full: bool) -> list[Line]:
    """Return what a run has cost so far, or in all; of a run on this machine, what it would have cost there.

    Args:
        is_full: each line of the bill, with what was counted, and what is not in it.
    """
    operations = operations_of(state, now)
    parts = bill(operations)
    name = "cost: " if bucket.url.startswith("gs://") else "cost in Google Cloud, were it there: "
    named = ", ".join(f"{part.name} {dollars(part.usd)}" for part in parts)
    lines: list[Line] = [((name, "dim"), (f"about {dollars(usd_of(operations))}", ""), (f" ({named})", "dim"))]
    if not is_full:
        return lines
    rows = [
        (
            part.name if number == 0 else "",
            f"{count:,.2f}".removesuffix(".00"),
            price.unit,
            f"{dollars(price.usd)} a {price.of_words}".removesuffix(" a one"),
            dollars(price.of_count(count)),
        )
        for part in parts
        for number, (count, price) in enumerate(part.counted)
    ]
    widths = columns(rows)
    for row in rows:
        cells = [
            pad(cell, width, is_number=column in (1, 4))
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append(line("  " + "  ".join(cells)))
    lines.append(line(f"  at list prices of {LOOKED_UP}, nothing free counted; an estimate: docs/deploy.md", "dim"))
    if any(_is_child(node.node_type, node.target_type) for node in state.nodes.values() if node.attempt):
        lines.append(line("  child runs are not in it: they have a bill of their own", "dim"))
    return lines


def dollars(usd: float) -> str:
    """Return an amount with two digits that say something: `$0.00095`, `$0.012`, `$1.20`."""
    if usd <= 0.0:
        return "$0"
    return f"${usd:.{max(2, 1 - floor(log10(usd)))}f}"


def _is_child(node_type: NodeTypes, target_type: str | None) -> bool:
    return node_type is NodeTypes.PART or target_type == TargetTypes.DAG
