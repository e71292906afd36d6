"""Hypothesis strategies for definitions, for every test that draws some."""

from itertools import count

from hypothesis import strategies as st

from tests.support.world import task


@st.composite
def definitions(draw, max_depth: int = 3, max_branches: int = 3, max_steps: int = 3):
    """Draw a valid definition: chains of Tasks and Parallels, nested up to `max_depth` deep.

    Some Tasks share a function, as real ones do; steps stand in any order.
    """
    numbers = count()

    def graph(depth: int) -> dict:
        length = draw(st.integers(1, max_steps))
        names = [f"S{next(numbers)}" for _ in range(length)]
        steps = {}
        for place, name in enumerate(names):
            if depth < max_depth and draw(st.integers(0, 2)) == 0:
                branches = [graph(depth + 1) for _ in range(draw(st.integers(1, max_branches)))]
                steps[name] = {"type": "Parallel", "branches": branches}
            else:
                steps[name] = task(target=draw(st.sampled_from(["f", "g"])))
            if place + 1 < length:
                steps[name]["next"] = names[place + 1]
            elif draw(st.booleans()):
                steps[name]["end"] = True
        order = draw(st.permutations(names))
        return {"start": names[0], "steps": {name: steps[name] for name in order}}

    return graph(0)
