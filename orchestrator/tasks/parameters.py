"""A step's parameters, as keyword arguments of a user function."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches

import msgspec

from orchestrator.model.commands import Json
from orchestrator.tasks.errors import BadRequest

CONTEXT = "context"
"""The parameter that is not the step's but ours."""

_KEYWORD = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def read(body: bytes) -> dict[str, Json]:
    """Return the parameters that a request's body holds; none where it is empty. Raises BadRequest."""
    if not body.strip():
        return {}
    try:
        return msgspec.json.decode(body, type=dict[str, Json])
    except msgspec.ValidationError as exc:
        raise BadRequest(f"body: {exc}; allowed is one JSON object, a member a parameter") from exc
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise BadRequest(f"body: cannot be read as JSON, {exc}; allowed is one JSON object") from exc


@dataclass(frozen=True, slots=True)
class Signature:
    """Which parameters a function takes."""

    function_name: str
    names: tuple[str, ...]
    required: frozenset[str]
    takes_any: bool
    takes_context: bool

    @classmethod
    def of(cls, function: Callable[..., object]) -> "Signature":
        """Read it from the function. Raises TypeError for one that cannot be called so."""
        name = getattr(function, "__name__", repr(function))
        if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError(f"{name}: is asynchronous; @task takes plain functions, `def {name}(…)`")
        parameters = inspect.signature(function).parameters.values()
        positional = [one.name for one in parameters if one.kind is inspect.Parameter.POSITIONAL_ONLY]
        if positional:
            raise TypeError(f"{name}: {', '.join(positional)} cannot be given by name; @task passes all of them so")
        own = [one for one in parameters if one.kind in _KEYWORD and one.name != CONTEXT]
        return cls(
            name,
            tuple(one.name for one in own),
            frozenset(one.name for one in own if one.default is inspect.Parameter.empty),
            any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters),
            any(one.kind in _KEYWORD and one.name == CONTEXT for one in parameters),
        )

    def check(self, given: Mapping[str, Json]) -> None:
        """Raise BadRequest with every parameter that is missing or unexpected."""
        wrong = [f'"{name}" is missing' for name in self.names if name in self.required and name not in given]
        wrong += [self._unexpected(name) for name in given if not self._accepts(name)]
        if wrong:
            takes = ", ".join((*self.names, *(("…",) if self.takes_any else ()))) or "none"
            raise BadRequest(f"parameters: {'; '.join(wrong)}; {self.function_name} takes {takes}")

    def _accepts(self, name: str) -> bool:
        if name == CONTEXT and self.takes_context:
            return False
        return self.takes_any or name in self.names

    def _unexpected(self, name: str) -> str:
        if name == CONTEXT and self.takes_context:
            return f'"{name}" is unexpected, it is what @task itself passes'
        close = get_close_matches(name, self.names, 1)
        return f'"{name[:100]}" is unexpected' + (f', did you mean "{close[0]}"?' if close else "")
