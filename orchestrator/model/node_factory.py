"""NodeFactory: from a step to its Node. Pure."""

from collections.abc import Mapping

from orchestrator.model.commands import Json
from orchestrator.model.enums import NodeTypes
from orchestrator.model.nodes import Condition, End, Graph, Map, Node, Parallel, Pass, Task, Wait

NODE_CLASSES: Mapping[NodeTypes, type[Node]] = {
    node_class.node_type: node_class for node_class in (Task, Parallel, Map, Condition, Wait, Pass, End)
}


class NodeFactory:
    """Creates the Node of a step by its `type`."""

    @staticmethod
    def create_node(step: Mapping[str, Json], parent_dag: Graph) -> Node:
        """Return the Node of `step`: the dict that an author wrote, with its name as `node_name`."""
        return NODE_CLASSES[NodeTypes(str(step["type"]))](step, parent_dag)
