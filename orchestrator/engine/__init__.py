"""The one loop: `decide` says what follows from an event, `DAGExecutor` acts on it."""
