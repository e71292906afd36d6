"""A run's document: its state as JSON, one line a node, so that a person and `grep` can read it. Pure."""

from collections.abc import Iterable

import msgspec

from orchestrator.model.errors import CorruptState
from orchestrator.model.node_state import NodeState
from orchestrator.model.run_state import RunInfo, RunState

FORMAT = 1
"""The document format that this code writes; it reads every format up to it."""

_encoder = msgspec.json.Encoder()
_run_decoder = msgspec.json.Decoder(RunInfo)
_node_decoder = msgspec.json.Decoder(NodeState)
_document_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])


class DocumentEncoder:
    """Encodes the states of one run one after another; only nodes that changed since are encoded anew."""

    def __init__(self) -> None:
        self._lines: dict[str, tuple[NodeState, bytes]] = {}

    def encode(self, state: RunState) -> bytes:
        """Return the run document: JSON, one line a node, so that a person and `grep` can read it."""
        known = self._lines
        lines = [b'{"$run": ' + _encoder.encode(state.run)]
        for name, node in state.nodes.items():
            line = known.get(name)
            if line is None or line[0] is not node:
                line = known[name] = (node, b'"%s": %s' % (name.encode(), _encoder.encode(node)))
            lines.append(line[1])
        return b",\n".join(lines) + b"}\n"

    def encode_changes(self, before: RunState, state: RunState, touched: Iterable[str]) -> tuple[dict[str, bytes], int]:
        """Return the entries that differ from the run `before`, name -> JSON, and by how many bytes the document grows.

        Args:
            touched: names of the nodes of which some do.
        """
        changes: dict[str, bytes] = {}
        grown = 0
        if state.run is not before.run:
            changes["$run"] = _encoder.encode(state.run)
            grown = len(changes["$run"]) - len(_encoder.encode(before.run))
        for name in touched:
            node, was = state.nodes[name], before.nodes.get(name)
            if node is was:
                continue
            changes[name] = _encoder.encode(node)
            line = b'"%s": %s' % (name.encode(), changes[name])
            known = self._lines.get(name)
            if known is not None:
                grown -= len(known[1])
            else:
                grown += 2 if was is None else -len(_encoder.encode(was)) - len(name.encode()) - 4
            grown += len(line)
            self._lines[name] = (node, line)
        return changes, grown


def encode(state: RunState) -> bytes:
    """Return the document of one state."""
    return DocumentEncoder().encode(state)


def decode_run(data: bytes, where: str) -> RunInfo:
    """Read only the run's own entry of a run document. Raises CorruptState, as `decode` does."""
    try:
        head = _document_decoder.decode(data).get("$run")
        if head is None:
            raise CorruptState(f'{where}: has no "$run" entry; it is not a run document')
        run = _run_decoder.decode(head)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise CorruptState(f"{where}: is not a run document: {exc}") from exc
    if run.format > FORMAT:
        raise CorruptState(f"{where}: has format {run.format}; this version reads up to {FORMAT}")
    return run


def decode(data: bytes, where: str) -> RunState:
    """Read a run document.

    Args:
        data: its content.
        where: the object's name, for the error.
    Raises:
        CorruptState: it is not a run document, or of a format that this code does not know.
    """
    try:
        entries = _document_decoder.decode(data)
        head = entries.pop("$run", None)
        if head is None:
            raise CorruptState(f'{where}: has no "$run" entry; it is not a run document')
        run = _run_decoder.decode(head)
        nodes = {name: _node_decoder.decode(raw) for name, raw in entries.items()}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise CorruptState(f"{where}: is not a run document: {exc}") from exc
    if run.format > FORMAT:
        raise CorruptState(f"{where}: has format {run.format}; this version reads up to {FORMAT}")
    for name, node in nodes.items():
        if node.node_name != name:
            raise CorruptState(f"{where}: the entry {name!r} says that it is {node.node_name!r}")
    return RunState(run, nodes)
