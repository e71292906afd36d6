"""Drawings of a DAG: Mermaid and Graphviz text, the same for the same definition. Pure.

A node's id is its number in definition order, so that no name has to be made one; names stand in labels.
A Parallel is a box around its branches, a Map one around its iterator. Graphviz cannot point at a box, so there a dot
on its upper edge forks the way and one on its lower edge joins it.

Of a run the same is drawn, with a line more in each label and its colour: how the step is. The colours say nothing that
the words do not.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping

from orchestrator.model.dag import DAG
from orchestrator.model.enums import TaskStatus, Triggers
from orchestrator.model.ids import step_of
from orchestrator.model.nodes import Condition, End, Graph, Map, Node, Pass, Task, Wait
from orchestrator.model.run_state import RunState

Draw = Callable[[DAG, RunState | None], str]


def mermaid(dag: DAG, run: RunState | None = None) -> str:
    """Return a Mermaid flowchart of a DAG, or of a run of it."""
    ids = _ids(dag)

    def inside(graph: Graph, indent: str) -> Iterator[str]:
        for node in graph.ordered():
            if node.graphs:
                # One line: what further lines a box's title has, Mermaid draws under what is in the box.
                title = " - ".join(map(_mermaid_text, (*_words(node), *_status_words(node, run))))
                yield f'{indent}subgraph {ids[node.node_name]}["{title}"]'
                for inner in node.graphs:
                    yield from inside(inner, f"{indent}    ")
                yield f"{indent}end"
            else:
                label = "<br/>".join(map(_mermaid_text, (*_words(node), *_status_words(node, run))))
                opened, closed = _MERMAID_SHAPES.get(type(node), ("[", "]"))
                yield f'{indent}{ids[node.node_name]}{opened}"{label}"{closed}'
        for node in graph.ordered():
            for edge in node.edges:
                arrow = f'-. "{_mermaid_text(edge.label)}" .->' if edge.is_error else "-->"
                if edge.label and not edge.is_error:
                    arrow = f'-- "{_mermaid_text(edge.label)}" -->'
                yield f"{indent}{ids[node.node_name]} {arrow} {ids[edge.next]}"
            for name in node.depends_on:
                arrow = "-->" if node.trigger is Triggers.ALL_COMPLETED else f'-. "{node.trigger}" .->'
                yield f"{indent}{ids[name]} {arrow} {ids[node.node_name]}"

    def classes(run: RunState) -> Iterator[str]:
        for status, (fill, line) in _COLOURS.items():
            alike = [node for node in dag.all_nodes if _status(node, run) is status]
            for node in alike:
                if node.graphs:  # what is in it has its own
                    yield f"    style {ids[node.node_name]} fill:none,stroke:{line},stroke-width:2px"
            named = [ids[node.node_name] for node in alike if not node.graphs]
            if named:
                yield f"    classDef {status.value} fill:{fill},stroke:{line},color:#000000"
                yield f"    class {','.join(named)} {status.value}"

    head = ["---", f'title: "{_mermaid_text(_title(run))}"', "---"] if run else []
    lines = [*head, "flowchart TD", *inside(dag, "    ")]
    if dag.last_steps is not None:
        lines += ['    subgraph finally["finally"]', *inside(dag.last_steps, "        "), "    end"]
    return "\n".join([*lines, *(classes(run) if run else ())]) + "\n"


def dot(dag: DAG, run: RunState | None = None) -> str:
    """Return a Graphviz digraph of a DAG, or of a run of it."""
    ids = _ids(dag)

    def entry(node: Node) -> str:
        return f"{ids[node.node_name]}_fork" if node.graphs else ids[node.node_name]

    def exit_(node: Node) -> str:
        return f"{ids[node.node_name]}_join" if node.graphs else ids[node.node_name]

    def inside(graph: Graph, indent: str) -> Iterator[str]:
        for node in graph.ordered():
            if node.graphs:
                yield f"{indent}subgraph cluster_{ids[node.node_name]} {{"
                yield from box(node, f"{indent}    ")
                yield f"{indent}}}"
            else:
                label = r"\n".join(map(_dot_text, (*_words(node), *_status_words(node, run))))
                shape = _DOT_SHAPES.get(type(node), "")
                status = _status(node, run) if run is not None else None
                if status is not None:
                    fill, line = _COLOURS[status]
                    style = "rounded,filled" if isinstance(node, Task) else "filled"
                    shape += f', style="{style}", fillcolor="{fill}", color="{line}"'
                yield f'{indent}{ids[node.node_name]} [label="{label}"{shape}];'
        own = {node.node_name: node for node in graph.ordered()}
        for node in own.values():
            for edge in node.edges:
                dashed = ["style=dashed"] if edge.is_error else []
                words = [f'label="{_dot_text(edge.label)}"'] if edge.label else []
                options = f" [{', '.join(words + dashed)}]" if words or dashed else ""
                yield f"{indent}{exit_(node)} -> {entry(own[edge.next])}{options};"
            options = "" if node.trigger is Triggers.ALL_COMPLETED else f' [label="{node.trigger}", style=dashed]'
            for name in node.depends_on:
                yield f"{indent}{exit_(own[name])} -> {entry(node)}{options};"

    def box(node: Node, indent: str) -> Iterator[str]:
        title = r"\n".join(map(_dot_text, (*_words(node), *_status_words(node, run))))
        yield f'{indent}label="{title}";'
        status = _status(node, run) if run is not None else None
        if status is not None:
            yield f'{indent}color="{_COLOURS[status][1]}"; penwidth=2;'
        yield f"{indent}{entry(node)} [shape=point];"
        yield f"{indent}{exit_(node)} [shape=point];"
        for graph in node.graphs:
            yield from inside(graph, indent)
            for first in graph.start_nodes:
                yield f"{indent}{entry(node)} -> {entry(first)};"
            waited_for = {name for inner in graph.nodes for name in inner.depends_on}
            for last in graph.ordered():
                if last.next is None and not isinstance(last, Condition) and last.node_name not in waited_for:
                    yield f"{indent}{exit_(last)} -> {exit_(node)};"

    title = [f'    label="{_dot_text(_title(run))}"; labelloc=t;'] if run else []
    head = ["digraph {", "    node [shape=box, style=rounded];", '    graph [style="rounded,dashed"];']
    lines = [*head, *title, *inside(dag, "    ")]
    if dag.last_steps is not None:
        lines += ["    subgraph cluster_finally {", '        label="finally";']
        lines += [*inside(dag.last_steps, "        "), "    }"]
    return "\n".join([*lines, "}"]) + "\n"


FORMATS: Mapping[str, Draw] = {"mermaid": mermaid, "dot": dot}
"""Name of a format -> what draws it."""


_MERMAID_SHAPES: Mapping[type[Node], tuple[str, str]] = {
    Condition: ("{", "}"),
    Wait: ("([", "])"),
    Pass: ("(", ")"),
    End: ("((", "))"),
}
_DOT_SHAPES: Mapping[type[Node], str] = {
    Condition: ", shape=diamond, style=solid",
    Wait: ", shape=oval",
    Pass: ", shape=plaintext",
    End: ", shape=doublecircle, style=solid",
}


_COLOURS: Mapping[TaskStatus, tuple[str, str]] = {
    TaskStatus.NEW: ("#ffffff", "#9e9e9e"),
    TaskStatus.RUNNING: ("#d6eaff", "#1565c0"),
    TaskStatus.COMPLETED: ("#d9f2dc", "#2e7d32"),
    TaskStatus.FAILED: ("#ffd9d6", "#c62828"),
    TaskStatus.SKIPPED: ("#f0f0f0", "#9e9e9e"),
    TaskStatus.CANCELLED: ("#fff3cd", "#b26a00"),
}
"""Status of a node -> what it is filled with, and the colour of its line. Black is read on each."""


_OF_ITEMS = (
    *(TaskStatus.FAILED, TaskStatus.RUNNING, TaskStatus.CANCELLED, TaskStatus.COMPLETED),
    *(TaskStatus.NEW, TaskStatus.SKIPPED),
)
"""The status of a step in a Map is the first of these that an item has it in."""


def _status(node: Node, run: RunState) -> TaskStatus | None:
    """Return the status of a step, None where the run's document does not have it: a Map that runs as parts does not
    have what is in it, and a part nothing else."""
    state = run.nodes.get(node.node_name)
    if state is not None:
        return state.status
    counts = _counts(node, run)
    return next((status for status in _OF_ITEMS if status in counts), None)


def _counts(node: Node, run: RunState) -> Counter[TaskStatus]:
    """Of a step in a Map: how many of its items have it in each status."""
    return Counter(state.status for name, state in run.nodes.items() if step_of(name) == node.node_name)


def _status_words(node: Node, run: RunState | None) -> tuple[str, ...]:
    """Return the line of a label that says how a node of a run is: its status, and which attempt if not the first."""
    state = run.nodes.get(node.node_name) if run is not None else None
    if state is None:
        counts = _counts(node, run) if run is not None else Counter()
        return tuple(f"{status.value} {counts[status]:,}" for status in _OF_ITEMS if counts[status])
    words = state.status.value
    if state.items is not None:
        items = state.items
        failed = f", {items.failures:,} failed" if items.failures else ""
        words += f", {items.ended:,} of {items.count:,} items{failed}"
        words += f" in {items.parts:,} part{'' if items.parts == 1 else 's'}" if items.parts else ""
    if isinstance(node, Task) and state.attempt > 1:
        words += f", attempt {state.attempt}"
    return (f"{words}: {state.error.error_type}" if state.error else words,)


def _title(run: RunState) -> str:
    return f"{run.run.dag} {run.run.run_id}: {run.run.status.value}"


def _ids(dag: DAG) -> Mapping[str, str]:
    return {node.node_name: f"n{number}" for number, node in enumerate(dag.all_nodes)}


def _words(node: Node) -> tuple[str, ...]:
    """Return the lines of a node's label: its name, and what it runs where."""
    match node:
        case Task():
            return node.node_name, f"{node.target_type} {node.target_name}"
        case Wait():
            return node.node_name, f"Wait {node.words}"
        case Map():
            return node.node_name, f"for each of {node.words}"
        case End() if node.ends_as is TaskStatus.FAILED:
            return node.node_name, "fails"
        case _:
            return (node.node_name,)


def _mermaid_text(text: str) -> str:
    """Return `text` as a quoted label can hold it: Mermaid's own entities begin with #, not with &."""
    return "".join(each if each.isalnum() or each in " _-.,:/()" else f"#{ord(each)};" for each in text)


def _dot_text(text: str) -> str:
    """Return `text` as a quoted string of Graphviz can hold it."""
    return "".join("\\" + each if each in '"\\' else each if each.isprintable() else " " for each in text)
