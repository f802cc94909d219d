"""Source files, read and not imported: what a module defines, what it takes from others, what its callables take."""

import ast
import importlib.machinery
import inspect
import sys
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path

_KNOWN = {
    **{t.__name__: t for t in (int, float, str, bool, list, tuple, dict, Sequence, Iterable, Mapping, Callable, Path)},
    **{t.__name__.title(): t for t in (list, tuple, dict)},
    "Literal": typing.Literal,
    "Union": typing.Union,
    "Optional": typing.Optional,
}

# The name that says so: `def __init__(self, own, **settings)` takes, besides, what its base class takes.
SETTINGS = "settings"
OF = "of_"  # `**of_x`: what the class takes that is given as `x`
PLAIN = inspect.Signature()  # of a class without a constructor of its own


class Source:
    """One parsed source file."""

    def __init__(self, dotted: str, file: Path) -> None:
        self.dotted, self.file = dotted, file
        self.names_to_nodes: dict[str, ast.AST] = {}
        self.complete = True  # no `import *`, no module-level __getattr__
        self._read(ast.parse(file.read_text(encoding="utf-8")).body)

    def _read(self, body: list[ast.stmt]) -> None:
        for node in body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                self.names_to_nodes[node.name] = node
            elif isinstance(node, ast.Import | ast.ImportFrom):
                for alias in node.names:
                    self.names_to_nodes[alias.asname or alias.name] = node
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                    if isinstance(target, ast.Name):
                        self.names_to_nodes[target.id] = node
            elif isinstance(node, ast.If | ast.Try):
                self._read(node.body)
                self._read(node.orelse)
        self.complete &= not {"*", "__getattr__"} & set(self.names_to_nodes)

    def names(self) -> set[str]:
        return {name for name in self.names_to_nodes if not name.startswith("_")}

    def text(self, name: str) -> str | None:
        """What a name is set to, where that is a text."""
        value = getattr(self.names_to_nodes.get(name), "value", None)
        return value.value if isinstance(value, ast.Constant) and isinstance(value.value, str) else None

    def follow(self, name: str) -> "tuple[Source, ast.AST] | None":
        """The module and node that define a name, through `from x import name`; None if that can't be told."""
        node = self.names_to_nodes.get(name)
        if not isinstance(node, ast.ImportFrom):
            return None if node is None or isinstance(node, ast.Import) else (self, node)
        original = next(alias.name for alias in node.names if (alias.asname or alias.name) == name)
        origin = node.module or ""
        if node.level:
            package = self.dotted.split(".")[: None if self.file.name == "__init__.py" else -1]
            origin = ".".join([*package[: len(package) - node.level + 1], *([node.module] if node.module else [])])
        module = source(origin)
        return module.follow(original) if module is not None else None

    def ancestors(self, name: str) -> set[str]:
        module, node = self.follow(name) or (self, None)
        bases = node.bases if isinstance(node, ast.ClassDef) else ()
        return {ast.unparse(base) for base in bases}.union(
            *(module.ancestors(base.id) for base in bases if isinstance(base, ast.Name))
        )

    def callable(self, name: str) -> inspect.Signature | None:
        """Signature of a function or of a class's constructor; None if the source doesn't tell."""
        place = self.follow(name)
        if place is None:
            return None
        module, node = place
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            return module.parameters(node, skip_first=False)
        if not isinstance(node, ast.ClassDef) or node.decorator_list or node.keywords:
            return None
        if [ast.unparse(base) for base in node.bases] in (["NamedTuple"], ["typing.NamedTuple"]):
            return module.fields(node)
        for statement in node.body:
            if isinstance(statement, ast.FunctionDef) and statement.name == "__init__":
                own = module.parameters(statement, skip_first=True)
                passed_on = statement.args.kwarg is not None and statement.args.kwarg.arg == SETTINGS
                return module.with_settings(own, node, statement) if passed_on else own
        inherited = [module.base(base) for base in node.bases]
        return (
            None if None in inherited else next((described for described in inherited if described is not PLAIN), PLAIN)
        )

    def with_settings(
        self, own: inspect.Signature, node: ast.ClassDef, constructor: ast.FunctionDef
    ) -> inspect.Signature | None:
        """A constructor's signature where `**settings` stands for what the one call that is given them takes, less
        what it is given besides.

        That call is `super().__init__(...)`, or the constructor of a part.
        """
        calls = [
            call
            for call in ast.walk(constructor)
            if isinstance(call, ast.Call)
            and any(k.arg is None and ast.unparse(k.value) == SETTINGS for k in call.keywords)
        ]
        if len(calls) != 1:
            return None
        called = ast.unparse(calls[0].func)
        taken = [self.base(b) for b in node.bases] if called == "super().__init__" else [self.callable(called)]
        taken = [signature for signature in taken if signature not in (None, PLAIN)]
        if not taken:
            return None
        passed = list(taken[0].parameters.values())
        given = {keyword.arg for keyword in calls[0].keywords}
        given |= {p.name for p in passed[: len(calls[0].args)]}
        named = [p for p in own.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
        return joined(named, [p for p in passed if p.name not in given])

    def fields(self, node: ast.ClassDef) -> inspect.Signature:
        """Signature of a NamedTuple: its fields, in order."""
        kinds = inspect.Parameter
        return inspect.Signature(
            [
                kinds(
                    field.target.id,
                    kinds.POSITIONAL_OR_KEYWORD,
                    default=kinds.empty if field.value is None else _constant(field.value),
                    annotation=self.type(field.annotation),
                )
                for field in node.body
                if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
            ]
        )

    def base(self, node: ast.expr) -> inspect.Signature | None:
        """Signature of a base class, written as `Name` or as `package.module.Name`."""
        if isinstance(node, ast.Name):
            return self.callable(node.id)
        root, _, rest = ast.unparse(node).partition(".")
        if rest and isinstance(self.names_to_nodes.get(root), ast.Import):
            module, name = longest(f"{root}.{rest}")
            return module.callable(name[0]) if module is not None and len(name) == 1 else None
        return None

    def parameters(self, node: ast.FunctionDef | ast.AsyncFunctionDef, skip_first: bool) -> inspect.Signature:
        args, kinds = node.args, inspect.Parameter
        positional = [(arg, kinds.POSITIONAL_ONLY) for arg in args.posonlyargs]
        positional += [(arg, kinds.POSITIONAL_OR_KEYWORD) for arg in args.args]
        defaults: list[ast.expr | None] = [None] * (len(positional) - len(args.defaults)) + args.defaults
        listed = [(arg, kind, default) for (arg, kind), default in zip(positional, defaults, strict=True)][skip_first:]
        listed += [(args.vararg, kinds.VAR_POSITIONAL, None)] if args.vararg else []
        listed += [
            (arg, kinds.KEYWORD_ONLY, default) for arg, default in zip(args.kwonlyargs, args.kw_defaults, strict=True)
        ]
        listed += [(args.kwarg, kinds.VAR_KEYWORD, None)] if args.kwarg else []
        return inspect.Signature(
            [
                kinds(
                    arg.arg,
                    kind,
                    default=kinds.empty if default is None else _constant(default),
                    annotation=self.type(arg.annotation),
                )
                for arg, kind, default in listed
            ]
        )

    def type(self, node: ast.AST | None) -> typing.Any:
        """The typing object that an annotation means; `Any` for whatever isn't made of primitives, containers and
        literals.
        """
        if isinstance(node, ast.Constant):
            if isinstance(node.value, str):
                return self.type(ast.parse(node.value, mode="eval").body)
            return type(None) if node.value is None else typing.Any
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
            return typing.Union[self.type(node.left), self.type(node.right)]  # noqa: UP007
        if isinstance(node, ast.Subscript):
            outer = self.type(node.value)
            items = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
            if outer is typing.Literal:
                return typing.Literal[tuple(ast.literal_eval(item) for item in items)]
            if outer is Callable or outer is typing.Any:
                return outer
            inner = tuple(
                ... if isinstance(item, ast.Constant) and item.value is ... else self.type(item) for item in items
            )
            return outer[inner if len(inner) > 1 else inner[0]]
        if isinstance(node, ast.Name | ast.Attribute):
            return self._named_type(node)
        return typing.Any

    def _named_type(self, node: ast.Name | ast.Attribute) -> typing.Any:
        name = node.id if isinstance(node, ast.Name) else node.attr
        if name in _KNOWN:
            return _KNOWN[name]
        place = self.follow(name) if isinstance(node, ast.Name) else None
        if place is not None and isinstance(place[1], ast.Assign | ast.AnnAssign) and place[1].value is not None:
            return place[0].type(place[1].value)
        return typing.Any


def joined(named: list[inspect.Parameter], more: Iterable[inspect.Parameter]) -> inspect.Signature:
    """A signature of parameters and, by keyword, of others that don't have the name of one of them."""
    names = {p.name for p in named}
    keyword = inspect.Parameter.KEYWORD_ONLY
    return inspect.Signature(
        named + [p if p.kind > keyword else p.replace(kind=keyword) for p in more if p.name not in names]
    )


def _constant(node: ast.expr) -> object:
    try:
        return ast.literal_eval(node)
    except ValueError:
        return ...  # some expression: there is a default, which one doesn't matter


@cache
def source(dotted: str) -> Source | None:
    """The source file of a dotted module name, found without importing its parents."""
    spec = spec_of(dotted)
    file = Path(spec.origin) if spec is not None and spec.origin else None
    return Source(dotted, file) if file is not None and file.suffix == ".py" else None


def spec_of(dotted: str) -> importlib.machinery.ModuleSpec | None:
    """Where a module or package lies; None for one that isn't there."""
    search: Sequence[str] | None = None
    spec = None
    for part in dotted.split("."):
        spec = importlib.machinery.PathFinder.find_spec(part, search)
        if spec is None and search is None:
            spec = _installed_elsewhere(part)
        if spec is None:
            return None
        search = spec.submodule_search_locations or []
    return spec


def _installed_elsewhere(name: str) -> importlib.machinery.ModuleSpec | None:
    """What `pip install -e` has told a finder of its own about; asking for it imports nothing."""
    for finder in sys.meta_path:
        if str(getattr(finder, "__module__", "")).startswith("__editable__"):
            return finder.find_spec(name)
    return None


def longest(path: str) -> tuple[Source | None, list[str]]:
    """The source of the longest module that a dotted path begins with, and the names after it."""
    parts = path.split(".")
    for end in range(len(parts) - 1, 0, -1):
        module = source(".".join(parts[:end]))
        if module is not None:
            return module, parts[end:]
    return None, parts
