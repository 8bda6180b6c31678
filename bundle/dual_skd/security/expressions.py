# SPDX-License-Identifier: Apache-2.0
"""What a ``$`` expression of a MONAI config would do, read from its syntax tree: it is parsed and never evaluated."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Collection, Mapping

from dual_skd.security.known import ATTRIBUTES, MODULES, REFUSED_KEYS, SIGNATURES, split_known

# what MONAI puts into the namespace of every expression (config_parser.DEFAULT imports)
PREDEFINED = {"monai": "monai", "torch": "torch", "np": "numpy", "numpy": "numpy"}
SEPARATOR = "::"  # of MONAI's config ids
MOST_CHARACTERS = 10_000  # the parser of Python is for texts of people
_REFERENCE = re.compile(r"@(?:\w*)(?:::\w*)*")  # as monai.bundle.ReferenceResolver finds them
_RELATIVE = re.compile(r"(?:@|%)::+")  # as monai.bundle.ConfigParser does
_REFERENCES = "__local_refs"  # MONAI's name for the values that references stand for
_READABLE = str.maketrans("", "", "()\\")  # a pattern for people
_GRAMMAR = (
    *(ast.Expression, ast.Constant, ast.Name, ast.Load, ast.Store, ast.Attribute, ast.Call, ast.keyword),
    *(ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.IfExp, ast.operator, ast.unaryop, ast.boolop, ast.cmpop),
    *(ast.Subscript, ast.Slice, ast.Starred, ast.List, ast.Tuple, ast.Set, ast.Dict),
    *(ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp, ast.comprehension),
    *(ast.Lambda, ast.arguments, ast.arg, ast.JoinedStr, ast.FormattedValue),
)
NOT_PARSED = (SyntaxError, ValueError, RecursionError, MemoryError)


def imports_of(text: str) -> dict[str, str] | None:
    """name -> dotted name that it stands for, of an import statement; None for any other expression."""
    try:
        body = ast.parse(text[1:]).body if len(text) <= MOST_CHARACTERS else []
    except NOT_PARSED:
        return None
    if not body or not isinstance(body[0], (ast.Import, ast.ImportFrom)):
        return None
    found: dict[str, str] = {}
    for statement in body:
        if isinstance(statement, ast.Import):
            found |= {alias.asname or alias.name: alias.name for alias in statement.names}
        elif isinstance(statement, ast.ImportFrom):
            module = "." * statement.level + (statement.module or "")
            found |= {alias.asname or alias.name: f"{module}.{alias.name}" for alias in statement.names}
        else:
            found["; "] = "; "  # more than an import: no name
    return found


def problems_of_import(imports: Mapping[str, str], allowed: Collection[str]) -> list[str]:
    """Why an import statement isn't taken; empty for one known module, or one known name of it."""
    if len(imports) != 1:
        return ["more than one import in one text"]
    (name,) = imports.values()
    return [] if name in MODULES or split_known(name, allowed)[0] == name else [not_known(name)]


def not_known(name: str) -> str:
    """The sentence for a name that isn't listed."""
    return f"{name} is not known to be safe"


def absolute(text: str, path: tuple[str, ...]) -> str:
    """A text with ``@::x`` and ``%::x`` replaced by the ids that they stand for, as MONAI does before it evaluates.

    Args:
        text: of a config; ``#`` and ``::`` separate the parts of an id.
        path: keys from the root to the text.
    """
    text = text.replace("#", SEPARATOR)
    for prefix in sorted(set(_RELATIVE.findall(text)), reverse=True):
        up = prefix.count(SEPARATOR)
        above = SEPARATOR.join(path[:-up]) + SEPARATOR if up < len(path) else ""
        text = text.replace(prefix, prefix[0] + above)
    return text


def evaluated(text: str) -> str:
    """The Python text that MONAI evaluates for an expression: references are looked up in a dictionary."""
    return _REFERENCE.sub(lambda found: f"{_REFERENCES}['{found[0][1:]}']", text)[1:].strip()


def ending(text: str) -> list[str] | None:
    """How the value of an expression ends: the literal that is added last, of each branch; None if it isn't known.

    Args:
        text: with its ``$``; see :func:`absolute`.
    """
    tree = _parsed(text)
    return None if tree is None else _ending(tree)


def _ending(node: ast.expr) -> list[str] | None:
    if isinstance(node, ast.Constant) and (node.value is None or isinstance(node.value, str)):
        return [node.value] if node.value is not None else []
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _ending(node.right)
    if isinstance(node, ast.IfExp):
        branches = _ending(node.body), _ending(node.orelse)
        return None if None in branches else [one for branch in branches for one in branch or ()]
    return None


def parts_of_path(text: str) -> tuple[list[str], list[str]] | None:
    """The literals and the ids that an expression puts together to a path; None if it does anything else.

    Args:
        text: see :func:`ending`.
    """
    literals, ids, open_ends = [], [], [_parsed(text)]
    while open_ends:
        node = open_ends.pop()
        called = ast.unparse(node.func) if isinstance(node, ast.Call) and not node.keywords else ""
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            literals.append(node.value)
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            open_ends += [node.left, node.right]
        elif isinstance(node, ast.Call) and called in ("os.path.join", "os.path.expanduser"):
            open_ends += node.args
        elif isinstance(node, ast.Subscript) and (found := _id_of(node)) is not None:
            ids.append(found)
        elif called != "os.path.abspath":  # whose result is no address, whatever it is given
            return None
    return literals, ids


def _parsed(text: str) -> ast.expr | None:
    try:
        return ast.parse(evaluated(text), mode="eval").body if len(text) <= MOST_CHARACTERS else None
    except NOT_PARSED:
        return None


def problem_of_argument(rule: str, text: str, ends: list[str] | None) -> str:
    """Why an argument isn't taken; "" for one that is.

    Args:
        rule: of :mod:`known`, or "".
        text: what is written there, as Python writes it.
        ends: see :func:`ending`.
    """
    if not rule:
        return ""
    kind, rest = rule[0], rule[1:]
    good = {
        "=": lambda: re.fullmatch(rest, text),
        ":": lambda: ends is not None and all(one.endswith(rest) for one in ends),
        "/": lambda: re.fullmatch(r"'[^:'\\]*'", text),
        "@": lambda: False,
    }[kind]()
    needed = {
        "=": f"as {rest.translate(_READABLE).replace('|', ' or ')}, written in its place",
        ":": f"with {rest} at its end, written in its place",
        "/": "as a path of this computer that can be followed",
        "@": "with networks, optimisers and trainers by @id",
    }[kind]
    return "" if good else f"is known to be safe only {needed}"


class Visitor(ast.NodeVisitor):
    """Collects what is outside the grammar. Names of lambdas and comprehensions are known inside them only.

    Args:
        imports: name -> module, of all configs that are used together.
        allowed: packages, modules, names and attributes beside the known ones, with whatever arguments.
        fields_of: names of the attributes that only the object of an id has.
        problem_of_reference: why an id can't be referred to, or "".
    """

    def __init__(
        self,
        imports: Mapping[str, str],
        allowed: Collection[str] = (),
        fields_of: Callable[[str | None], Collection[str]] = lambda id: (),
        problem_of_reference: Callable[[str], str] = lambda id: "",
    ) -> None:
        self.imports = imports
        self.allowed = allowed
        self.fields_of = fields_of
        self.problem_of_reference = problem_of_reference
        self.bound: list[set[str]] = []
        self.problems: list[str] = []

    def problems_of(self, text: str) -> list[str]:
        """Why an expression isn't taken; empty when all it does is known.

        Args:
            text: the expression with its ``$``, not an import; see :func:`absolute`.
        """
        if len(text) > MOST_CHARACTERS:
            return [f"{len(text)} characters, more than anyone can read"]
        self.problems = []
        try:
            self.visit(ast.parse(evaluated(text), mode="eval"))
        except (SyntaxError, ValueError) as error:
            return [f"not an expression of Python ({error.args[0]})"]
        except (RecursionError, MemoryError):
            return ["nested deeper than can be looked at"]
        return list(dict.fromkeys(filter(None, self.problems)))

    def report(self, problem: str) -> None:
        self.problems.append(problem)

    def generic_visit(self, node: ast.AST) -> None:
        if isinstance(node, _GRAMMAR):
            super().generic_visit(node)
        else:
            self.report(f"{type(node).__name__} is not part of the grammar")

    def dotted(self, node: ast.expr) -> str:
        """The whole dotted name of a name or an attribute of a module; "" for a value."""
        if isinstance(node, ast.Attribute):
            front = self.dotted(node.value)
            return f"{front}.{node.attr}" if front else ""
        if not isinstance(node, ast.Name) or node.id == _REFERENCES or any(node.id in names for names in self.bound):
            return ""
        return self.imports.get(node.id, f"builtins.{node.id}")

    def visit_Name(self, node: ast.Name) -> None:
        if node.id == _REFERENCES:
            self.report(f"{_REFERENCES} is MONAI's own name")
        elif name := self.dotted(node):
            self._look_at_name(name)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if name := self.dotted(node):
            self._look_at_name(name)
            return
        if node.attr not in self.fields_of(_id_of(node.value)):
            self._look_at_attribute(node.attr)
        self.visit(node.value)

    def _look_at_name(self, name: str, *, called: bool = False) -> None:
        known, attributes = split_known(name, self.allowed)
        if not known:
            self.report(not_known(name.removeprefix("builtins.")))
        elif known in SIGNATURES and known not in self.allowed and not (called and not attributes):
            self.report(f"{known} is handed on, so its arguments can't be followed")
        for attribute in attributes if known else ():
            self._look_at_attribute(attribute)

    def _look_at_attribute(self, name: str) -> None:
        if name not in ATTRIBUTES and name not in self.allowed and not re.fullmatch(r"[A-Z][A-Z0-9_]*", name):
            self.report(f"the attribute {name} is not known to be safe")

    def visit_Subscript(self, node: ast.Subscript) -> None:
        referred = _id_of(node)
        if referred is not None:
            self.report(self.problem_of_reference(referred))
            return
        if self.dotted(node.value) != "os.environ":  # to read a variable; as an object it could be changed
            self.visit(node.value)
        self.visit(node.slice)

    def visit_Call(self, node: ast.Call) -> None:
        name = self.dotted(node.func)
        if not name:
            self.generic_visit(node)
            return
        self._look_at_name(name, called=True)
        given: list[tuple[str | None, ast.expr]] = []
        for keyword in node.keywords:
            inner = keyword.value
            if keyword.arg is None and isinstance(inner, ast.Dict):
                keys = [str(key.value) if isinstance(key, ast.Constant) else None for key in inner.keys]
                given += zip(keys, inner.values, strict=True)
            else:
                given.append((keyword.arg, inner))
        signature = None if name in self.allowed else SIGNATURES.get(name)
        if signature is not None:
            given = [*zip(signature.places, node.args, strict=False), *given]
            if len(node.args) > len(signature.places) or any(isinstance(one, ast.Starred) for one in node.args):
                self.report(f"{name} with more arguments by their place than are known to be safe")
        else:
            given = [*(("", one) for one in node.args), *given]
        for argument, value in given:
            if argument in REFUSED_KEYS:
                self.report(not_known(argument))
            self._look_at_argument(name, argument, value)

    def _look_at_argument(self, name: str, argument: str | None, value: ast.expr) -> None:
        signature = None if name in self.allowed else SIGNATURES.get(name)
        if signature is None:
            self.visit(value)
            return
        if argument is None:
            self.report(f"{name} with arguments whose names aren't written")
        elif argument not in signature.rules and not signature.others:
            self.report(f"the argument {argument} of {name} is not known to be safe")
        elif problem := problem_of_argument(signature.rules.get(argument, ""), ast.unparse(value), _ending(value)):
            self.report(f"the argument {argument} of {name} {problem}")
        if not signature.rules.get(argument or "", "").startswith("="):
            self.visit(value)

    def visit_Lambda(self, node: ast.Lambda) -> None:
        arguments = node.args
        for default in [*arguments.defaults, *filter(None, arguments.kw_defaults)]:
            self.visit(default)
        every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
        self._inside({argument.arg for argument in every if argument}, [node.body])

    def _visit_comprehension(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp) -> None:
        # the first iterable is outside; as a name may be bound by a later "for", all others count as inside
        self.visit(node.generators[0].iter)
        targets = [part for generator in node.generators for part in ast.walk(generator.target)]
        if any(not isinstance(part, (ast.Name, ast.Tuple, ast.List, ast.Starred, ast.Store)) for part in targets):
            self.report("a comprehension that assigns to something else than names")
        inner = [part for generator in node.generators for part in generator.ifs]
        inner += [generator.iter for generator in node.generators[1:]]
        inner += [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
        if any(generator.is_async for generator in node.generators):
            self.report("an asynchronous comprehension")
        self._inside({part.id for part in targets if isinstance(part, ast.Name)}, inner)

    visit_ListComp = visit_SetComp = visit_GeneratorExp = visit_DictComp = _visit_comprehension

    def _inside(self, names: set[str], parts: list[ast.expr]) -> None:
        for name in names & ({*self.imports, _REFERENCES}):
            self.report(f"{name} is bound to something else")
        self.bound.append(names)
        for part in parts:
            self.visit(part)
        self.bound.pop()


def _id_of(node: ast.expr) -> str | None:
    """The id that a node refers to, None where it is no reference."""
    if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id == _REFERENCES:
        return node.slice.value if isinstance(node.slice, ast.Constant) and isinstance(node.slice.value, str) else None
    return None
