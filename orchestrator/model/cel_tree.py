"""The tree of a checked CEL expression, as far as we have to know it: what it refers to, and how much work it may be.

The library hands its tree out as a serialized `cel.expr.CheckedExpr`, a protocol buffer. Its few messages are read
here, so that nothing has to load a protobuf runtime for them.
Source: cel-spec, proto/cel/expr/syntax.proto and checked.proto.

Pure.
"""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

Path = tuple[str | int, ...]
"""The way from a root to a value: `("steps", "A", "result", "rows", 0)`."""

MAX_ITERATIONS = 9_999
"""Rounds of all macros of one evaluation together: the library's own budget ends the 10,000th."""

MAX_WORK = 100_000_000
"""Values that one evaluation may have to touch, at the most: some two seconds."""

_MAX_VISITS = 100_000


@dataclass(frozen=True, slots=True)
class Const:
    """A literal; of the types that matter here its value, of others None."""

    value: object


@dataclass(frozen=True, slots=True)
class Ident:
    """A root, a variable that a macro binds, or a type."""

    name: str


@dataclass(frozen=True, slots=True)
class Select:
    """`operand.field`, or `has(operand.field)`."""

    operand: "Tree"
    field: str
    is_test: bool


@dataclass(frozen=True, slots=True)
class Call:
    """An operator or a function; what a method is called on comes first."""

    function: str
    args: tuple["Tree", ...]


@dataclass(frozen=True, slots=True)
class Made:
    """A list or a map that is written out."""

    parts: tuple["Tree", ...]


@dataclass(frozen=True, slots=True)
class Fold:
    """What the macros all, exists, exists_one, filter and map become: `accumulator` changes with each element."""

    variables: tuple[str, ...]
    over: "Tree"
    accumulator: str
    initial: "Tree"
    condition: "Tree"
    step: "Tree"
    result: "Tree"


Tree = Const | Ident | Select | Call | Made | Fold


# ---- Reading -----------------------------------------------------------------------------------------


def read_checked(data: bytes) -> Tree:
    """Return the tree in a serialized `google.protobuf.Any` of a CheckedExpr."""
    return _expr(_one(_fields(_one(_fields(data), 2)), 4))


_Fields = Mapping[int, list[int | bytes]]


def _fields(data: bytes) -> _Fields:
    """Field number -> its values in a protocol buffer; numbers, and the bytes of everything else."""
    found: dict[int, list[int | bytes]] = {}
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        value: int | bytes
        match tag & 7:
            case 0:
                value, position = _varint(data, position)
            case 1:
                value, position = data[position : position + 8], position + 8
            case 2:
                size, position = _varint(data, position)
                value, position = data[position : position + size], position + size
            case wire:
                raise ValueError(f"a protocol buffer with the wire type {wire}")
        found.setdefault(tag >> 3, []).append(value)
    return found


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7


def _one(fields: _Fields, number: int) -> bytes:
    value = fields.get(number, [b""])[-1]
    return value if isinstance(value, bytes) else b""


def _text(fields: _Fields, number: int) -> str:
    return _one(fields, number).decode()


def _many(fields: _Fields, number: int) -> list[bytes]:
    return [value for value in fields.get(number, ()) if isinstance(value, bytes)]


def _expr(data: bytes) -> Tree:
    fields = _fields(data)
    for number, read in _KINDS.items():
        if number in fields:
            return read(_fields(_one(fields, number)))
    return Const(None)


def _const(fields: _Fields) -> Tree:
    for number, found in fields.items():
        match number, found[-1]:
            case 3, int(value):
                return Const(value - (1 << 64) if value >> 63 else value)
            case ((2 | 4), int(value)):
                return Const(value)
            case 5, bytes(raw):
                return Const(struct.unpack("<d", raw)[0])
            case 6, bytes(raw):
                return Const(raw.decode())
    return Const(None)


def _select(fields: _Fields) -> Tree:
    return Select(_expr(_one(fields, 1)), _text(fields, 2), 3 in fields)


def _call(fields: _Fields) -> Tree:
    target = _many(fields, 1)
    return Call(_text(fields, 2), tuple(_expr(arg) for arg in target + _many(fields, 3)))


def _list(fields: _Fields) -> Tree:
    return Made(tuple(_expr(element) for element in _many(fields, 1)))


def _struct(fields: _Fields) -> Tree:
    entries = [_fields(entry) for entry in _many(fields, 2)]
    return Made(tuple(_expr(part) for entry in entries for part in _many(entry, 3) + _many(entry, 4)))


def _fold(fields: _Fields) -> Tree:
    return Fold(
        tuple(name for name in (_text(fields, 1), _text(fields, 8)) if name),
        _expr(_one(fields, 2)),
        _text(fields, 3),
        *(_expr(_one(fields, number)) for number in (4, 5, 6, 7)),
    )


_KINDS = {
    3: _const,
    4: lambda fields: Ident(_text(fields, 1)),
    5: _select,
    6: _call,
    7: _list,
    8: _struct,
    9: _fold,
}
"""Field of an Expr -> what reads it."""


# ---- What it refers to -------------------------------------------------------------------------------


def path_of(tree: Tree, bound: frozenset[str] = frozenset()) -> Path | None:
    """Return the path that a tree is, if it is nothing but one: names, keys and places that are written out."""
    keys: list[str | int] = []
    while True:
        match tree:
            case Ident(name):
                return None if name in bound else (name, *reversed(keys))
            case Select(operand, name, _):
                keys.append(name)
                tree = operand
            case Call("_[_]", (operand, Const(str(key)))):
                keys.append(key)
                tree = operand
            case Call("_[_]", (operand, Const(int(place)))) if place is not True and place is not False and place >= 0:
                keys.append(place)
                tree = operand
            case _:
                return None


def paths_in(tree: Tree, bound: frozenset[str] = frozenset()) -> Iterator[Path]:
    """Yield each path that a tree refers to, as far as it is written out; variables of macros are none."""
    path = path_of(tree, bound)
    if path is not None:
        yield path
        return
    match tree:
        case Select(operand, _, _):
            yield from paths_in(operand, bound)
        case Call(_, parts) | Made(parts):
            for part in parts:
                yield from paths_in(part, bound)
        case Fold():
            inner = bound | {tree.accumulator, *tree.variables}
            yield from paths_in(tree.over, bound)
            yield from paths_in(tree.initial, bound)
            for part in (tree.condition, tree.step, tree.result):
                yield from paths_in(part, inner)


# ---- How much work it may be -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Shape:
    """The most that a value can be: members, values at any depth (16 characters are one), the shape of a member."""

    count: int = 0
    size: int = 1
    member: "Shape | None" = None

    def merged(self, other: "Shape | None") -> "Shape":
        """Return the shape of what may be either."""
        if other is None:
            return self
        member = self.member.merged(other.member) if self.member else other.member
        return Shape(max(self.count, other.count), max(self.size, other.size), member)


SCALAR = Shape()


class TooMuchWork(Exception):
    """An evaluation might touch more values than it may."""


class Work:
    """Bounds the work of one evaluation before it is begun, from the shapes of what it is given.

    CEL has no loops but its macros, so that a bound can be told from the tree. Source: cel-go, checker/cost.go.
    """

    def __init__(self, shapes: Mapping[Path, Shape]) -> None:
        self._shapes = shapes
        self.total = self._visits = 0

    def of(self, tree: Tree, bound: Mapping[str, Shape], times: int = 1) -> Shape:
        """Add the work of `times` evaluations; return the shape of what comes out. Raises TooMuchWork."""
        self._visits += 1
        self._add(1, times)
        path = path_of(tree, frozenset(bound))
        if path is not None and path in self._shapes:
            return self._shapes[path]
        match tree:
            case Const(value):
                return text_shape(value) if isinstance(value, str) else SCALAR
            case Ident(name):
                return bound.get(name) or self._shapes.get((name,), SCALAR)
            case Select(operand, _, is_test):
                held = self.of(operand, bound, times)
                return SCALAR if is_test else held.member or SCALAR
            case Made(parts):
                made = SCALAR
                for part in parts:
                    shape = self.of(part, bound, times)
                    made = Shape(made.count + 1, made.size + shape.size, shape.merged(made.member))
                return made
            case Call(function, args):
                return self._call(function, [self.of(arg, bound, times) for arg in args], times)
            case Fold():
                return self._fold(tree, bound, times)

    def _call(self, function: str, shapes: list[Shape], times: int) -> Shape:
        sizes = [shape.size for shape in shapes]
        match function:
            case "_[_]":
                return shapes[0].member or SCALAR
            case "_?_:_":
                return shapes[1].merged(shapes[2])
            case "_+_":
                is_list = any(shape.count for shape in shapes)
                self._add(sum(shape.count for shape in shapes) if is_list else sum(sizes), times)
                left, right = shapes
                member = left.member.merged(right.member) if left.member else right.member
                return Shape(left.count + right.count, sum(sizes), member)
            case "_&&_" | "_||_" | "!_" | "@not_strictly_false":
                return SCALAR
            case "_==_" | "_!=_" | "_<_" | "_<=_" | "_>_" | "_>=_":
                self._add(min(sizes), times)
                return SCALAR
            case "matches":
                self._add(16 * sizes[0] * sizes[-1], times)
                return SCALAR
            case _:
                self._add(sum(sizes), times)
                return Shape(0, sum(sizes)) if function in ("string", "bytes", "dyn") else SCALAR

    def _fold(self, fold: Fold, bound: Mapping[str, Shape], times: int) -> Shape:
        over = self.of(fold.over, bound, times)
        rounds = min(over.count, MAX_ITERATIONS)
        initial = self.of(fold.initial, bound, times)
        inner = {**bound, **dict.fromkeys(fold.variables, over.member or SCALAR), fold.accumulator: initial}
        once = self.of(fold.step, inner, 0)  # by how much one round lets the accumulator grow
        member = once.member.merged(initial.member) if once.member else initial.member

        def after(done: int) -> Shape:
            count, size = (max(0, x - y) for x, y in ((once.count, initial.count), (once.size, initial.size)))
            return Shape(initial.count + done * count, initial.size + done * size, member)

        inner[fold.accumulator] = after((rounds + 1) // 2)  # on the average
        self.of(fold.condition, inner, times * rounds)
        self.of(fold.step, inner, times * rounds)
        return self.of(fold.result, {**inner, fold.accumulator: after(rounds)}, times)

    def _add(self, work: int, times: int) -> None:
        self.total += work * times
        if self.total > MAX_WORK or self._visits > _MAX_VISITS:
            raise TooMuchWork


def text_shape(text: str) -> Shape:
    """Return the shape of a text."""
    return Shape(0, 1 + len(text) // 16)
