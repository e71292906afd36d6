"""Drawings of a DAG: Mermaid and Graphviz text, the same for the same definition. Pure.

A node's id is its number in definition order, so that no name has to be made one; names stand in labels.
A Parallel is a box around its branches. Graphviz cannot point at a box, so there a dot on its upper edge
forks the way and one on its lower edge joins it.
"""

from collections.abc import Callable, Iterator, Mapping

from orchestrator.model.dag import DAG
from orchestrator.model.enums import TaskStatus
from orchestrator.model.nodes import Condition, End, Graph, Node, Parallel, Pass, Task, Wait

Draw = Callable[[DAG], str]


def mermaid(dag: DAG) -> str:
    """Return a Mermaid flowchart."""
    ids = _ids(dag)

    def inside(graph: Graph, indent: str) -> Iterator[str]:
        for node in graph.ordered():
            if isinstance(node, Parallel):
                yield f'{indent}subgraph {ids[node.node_name]}["{_mermaid_text(node.node_name)}"]'
                for branch in node.branches:
                    yield from inside(branch, f"{indent}    ")
                yield f"{indent}end"
            else:
                label = "<br/>".join(map(_mermaid_text, _words(node)))
                opened, closed = _MERMAID_SHAPES.get(type(node), ("[", "]"))
                yield f'{indent}{ids[node.node_name]}{opened}"{label}"{closed}'
        for node in graph.ordered():
            for edge in node.edges:
                arrow = f'-. "{_mermaid_text(edge.label)}" .->' if edge.is_error else "-->"
                if edge.label and not edge.is_error:
                    arrow = f'-- "{_mermaid_text(edge.label)}" -->'
                yield f"{indent}{ids[node.node_name]} {arrow} {ids[edge.next]}"

    lines = ["flowchart TD", *inside(dag, "    ")]
    if dag.last_steps is not None:
        lines += ['    subgraph finally["finally"]', *inside(dag.last_steps, "        "), "    end"]
    return "\n".join(lines) + "\n"


def dot(dag: DAG) -> str:
    """Return a Graphviz digraph."""
    ids = _ids(dag)

    def entry(node: Node) -> str:
        return f"{ids[node.node_name]}_fork" if isinstance(node, Parallel) else ids[node.node_name]

    def exit_(node: Node) -> str:
        return f"{ids[node.node_name]}_join" if isinstance(node, Parallel) else ids[node.node_name]

    def inside(graph: Graph, indent: str) -> Iterator[str]:
        for node in graph.ordered():
            if isinstance(node, Parallel):
                yield f"{indent}subgraph cluster_{ids[node.node_name]} {{"
                yield from parallel(node, f"{indent}    ")
                yield f"{indent}}}"
            else:
                label = r"\n".join(map(_dot_text, _words(node)))
                shape = _DOT_SHAPES.get(type(node), "")
                yield f'{indent}{ids[node.node_name]} [label="{label}"{shape}];'
        own = {node.node_name: node for node in graph.ordered()}
        for node in own.values():
            for edge in node.edges:
                style = ["style=dashed"] if edge.is_error else []
                words = [f'label="{_dot_text(edge.label)}"'] if edge.label else []
                options = f" [{', '.join(words + style)}]" if words or style else ""
                yield f"{indent}{exit_(node)} -> {entry(own[edge.next])}{options};"

    def parallel(node: Parallel, indent: str) -> Iterator[str]:
        yield f'{indent}label="{_dot_text(node.node_name)}";'
        yield f"{indent}{entry(node)} [shape=point];"
        yield f"{indent}{exit_(node)} [shape=point];"
        for branch in node.branches:
            yield from inside(branch, indent)
            yield f"{indent}{entry(node)} -> {entry(branch.start_node)};"
            for last in branch.ordered():
                if last.next is None and not isinstance(last, Condition):
                    yield f"{indent}{exit_(last)} -> {exit_(node)};"

    head = ["digraph {", "    node [shape=box, style=rounded];", '    graph [style="rounded,dashed"];']
    lines = [*head, *inside(dag, "    ")]
    if dag.last_steps is not None:
        lines += [
            "    subgraph cluster_finally {",
            '        label="finally";',
            *inside(dag.last_steps, "        "),
            "    }",
        ]
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


def _ids(dag: DAG) -> Mapping[str, str]:
    return {node.node_name: f"n{number}" for number, node in enumerate(dag.all_nodes)}


def _words(node: Node) -> tuple[str, ...]:
    """Return the lines of a node's label: its name, and what it runs where."""
    match node:
        case Task():
            return node.node_name, f"{node.target_type} {node.target_name}"
        case Wait():
            return node.node_name, f"Wait {node.words}"
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
