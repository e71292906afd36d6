"""Pure values of the orchestrator: definitions, nodes, events, commands and the state of a run.

Pure: nothing in this package reads a clock, the environment, a network or a disk."""
