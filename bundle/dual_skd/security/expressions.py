# SPDX-License-Identifier: Apache-2.0
"""What a ``$`` expression of a MONAI config would do, read from its syntax tree: it is parsed and never evaluated."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Mapping

from dual_skd.security.names import (
    COMPONENT_KEYS,
    PREDEFINED,
    REFUSED_ARGUMENTS,
    SAFE_VALUES,
    problem_of_argument,
    problem_of_attribute,
    problem_of_dotted,
)

# pure functions; anything else of the builtins (open, eval, vars, type, ...) is refused by not being here
BUILTINS = frozenset(
    "abs all any bool bytes complex dict divmod enumerate filter float frozenset int isinstance len list map max min "
    "pow range repr reversed round set slice sorted str sum tuple zip True False None".split()
)
_MOST_CHARACTERS = 10_000  # the parser of Python is for texts of people
_REFERENCE = re.compile(r"@(?:\w*)(?:::\w*)*")  # as monai.bundle.ReferenceResolver finds them
_PLACE = "config_value_"
_GRAMMAR = (
    *(ast.Expression, ast.Constant, ast.Name, ast.Load, ast.Store, ast.Attribute, ast.Call, ast.keyword),
    *(ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.IfExp, ast.operator, ast.unaryop, ast.boolop, ast.cmpop),
    *(ast.Subscript, ast.Slice, ast.Starred, ast.List, ast.Tuple, ast.Set, ast.Dict),
    *(ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp, ast.comprehension),
    *(ast.Lambda, ast.arguments, ast.arg, ast.JoinedStr, ast.FormattedValue),
)


def imports_of(text: str) -> tuple[dict[str, str], bool]:
    """What an expression imports.

    Args:
        text: the expression with its ``$``.

    Returns:
        (name -> dotted name that it stands for, whether it is an import statement).
    """
    try:
        body = ast.parse(text[1:]).body if len(text) <= _MOST_CHARACTERS else []
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}, False
    if not body or not isinstance(body[0], (ast.Import, ast.ImportFrom)):
        return {}, False
    found: dict[str, str] = {}
    for statement in body:
        if isinstance(statement, ast.Import):
            found |= {alias.asname or alias.name: alias.name for alias in statement.names}
        elif isinstance(statement, ast.ImportFrom):
            module = "." * statement.level + (statement.module or "")
            found |= {alias.asname or alias.name: f"{module}.{alias.name}" for alias in statement.names}
    return found, True


def problems_of_import(text: str, allowed: Collection[str]) -> list[str]:
    """Why an import statement isn't taken; empty for ``import`` of an allowed package, or of ``os``."""
    body = ast.parse(text[1:]).body
    if len(body) > 1:
        return ["more than one statement"]
    problems = []
    for name in imports_of(text)[0].values():
        if isinstance(body[0], ast.ImportFrom) or (name != "os" and name not in allowed):
            problems.append(problem_of_dotted(name, allowed))
    return [problem for problem in problems if problem]


def problems_of_expression(text: str, *, imports: Mapping[str, str], allowed: Collection[str]) -> list[str]:
    """Why an expression isn't taken; empty when all it does is within the grammar.

    Args:
        text: the expression with its ``$``, not an import.
        imports: name -> module, of all configs that are used together.
        allowed: packages whose names may be used.
    """
    if len(text) > _MOST_CHARACTERS:
        return [f"{len(text)} characters, more than anyone can read"]
    # the text that MONAI evaluates: "#" separates parts of a reference, and references become look-ups
    references: list[str] = []

    def placed(match: re.Match) -> str:
        references.append(match.group())
        return f" {_PLACE}{len(references)} "

    plain = _REFERENCE.sub(placed, text[1:].replace("#", "::")).strip()
    try:
        tree = ast.parse(plain, mode="eval")
        visitor = _Visitor({**PREDEFINED, **imports}, allowed)
        visitor.visit(tree)
    except (SyntaxError, ValueError) as error:
        return [f"not an expression of Python ({error.args[0]})"]
    except (RecursionError, MemoryError):
        return ["nested deeper than can be looked at"]
    return list(dict.fromkeys(visitor.problems))


class _Visitor(ast.NodeVisitor):
    """Collects what is outside the grammar. Names of lambdas and comprehensions are known inside them only."""

    def __init__(self, imports: Mapping[str, str], allowed: Collection[str]) -> None:
        self.imports = imports
        self.allowed = allowed
        self.bound: list[set[str]] = []
        self.problems: list[str] = []

    def report(self, problem: str) -> None:
        if problem:
            self.problems.append(problem)

    def generic_visit(self, node: ast.AST) -> None:
        if isinstance(node, _GRAMMAR):
            super().generic_visit(node)
        else:
            self.report(f"{type(node).__name__} is not part of the grammar")

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, str):
            # str.format and look-ups by name reach attributes through text
            if re.search(r"__\w+__", node.value):
                self.report(f"the text {node.value[:40]!r} holds a private name")
            if node.value in SAFE_VALUES or node.value in REFUSED_ARGUMENTS:
                self.report(f"the argument {node.value} is given by a text, so its value can't be followed")
            self._look_for_component(node.value)

    def _look_for_component(self, text: str) -> None:
        for key in COMPONENT_KEYS:
            if key in text:
                self.report(f"{key} inside an expression describes a component that can't be looked at")

    def visit_Name(self, node: ast.Name) -> None:
        name = node.id
        if name.startswith(_PLACE) or any(name in names for names in self.bound):
            return
        if name in self.imports:
            self.report(problem_of_dotted(self.imports[name], self.allowed))
        elif name not in BUILTINS:
            self.report(f"the name {name} is not known: neither imported by the config nor a harmless builtin")

    def visit_Attribute(self, node: ast.Attribute) -> None:
        parts: list[str] = []
        root: ast.expr = node
        while isinstance(root, ast.Attribute):
            parts.insert(0, root.attr)
            root = root.value
        name = root.id if isinstance(root, ast.Name) else ""
        if name in self.imports and not any(name in names for names in self.bound):
            self.report(problem_of_dotted(".".join([self.imports[name], *parts]), self.allowed))
            return
        for part in parts:
            self.report(problem_of_attribute(part))
        self.visit(root)

    def visit_Call(self, node: ast.Call) -> None:
        for keyword in node.keywords:
            value = keyword.value.value if isinstance(keyword.value, ast.Constant) else ...
            self.report(problem_of_argument(keyword.arg or "", value))
            self._look_for_component(keyword.arg or "")
        if isinstance(node.func, ast.Name) and node.func.id in ("getattr", "hasattr"):
            name = node.args[1] if len(node.args) > 1 else None
            if isinstance(name, ast.Constant) and isinstance(name.value, str):
                # the same as to write object.name
                looked_up = ast.Attribute(node.args[0], name.value, ast.Load())
                for part in (looked_up, *node.args[2:]):
                    self.visit(part)
            else:
                self.report(f"{node.func.id} of a name that is not literal")
            return
        self.generic_visit(node)

    def visit_Lambda(self, node: ast.Lambda) -> None:
        arguments = node.args
        for default in [*arguments.defaults, *filter(None, arguments.kw_defaults)]:
            self.visit(default)
        every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
        self._inside({argument.arg for argument in every if argument}, [node.body])

    def _visit_comprehension(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp) -> None:
        # the first iterable is outside; as a name may be bound by a later "for", all others count as inside
        self.visit(node.generators[0].iter)
        targets = [generator.target for generator in node.generators]
        for target in targets:
            if any(
                not isinstance(part, (ast.Name, ast.Tuple, ast.List, ast.Starred, ast.Store))
                for part in ast.walk(target)
            ):
                self.report("a comprehension that assigns to something else than names")
        names = {part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)}
        inner = [part for generator in node.generators for part in generator.ifs]
        inner += [generator.iter for generator in node.generators[1:]]
        inner += [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
        if any(generator.is_async for generator in node.generators):
            self.report("an asynchronous comprehension")
        self._inside(names, inner)

    visit_ListComp = visit_SetComp = visit_GeneratorExp = visit_DictComp = _visit_comprehension

    def _inside(self, names: set[str], parts: list[ast.expr]) -> None:
        for name in names & self.imports.keys():
            self.report(f"{name}, a module, is bound to something else")
        self.bound.append(names)
        for part in parts:
            self.visit(part)
        self.bound.pop()
