"""A Griffe extension: docstrings are plain text, an asterisk in a formula is an asterisk, and an example is code.

So is what click is told not to wrap, by a line that holds a backspace alone, and what stands indented after an empty
line. What the comments behind fields and constants say is shown; a name is documented where it is defined, only there.
"""

from __future__ import annotations

import ast
import io
import re
import textwrap
import tokenize
from functools import cache
from pathlib import Path
from typing import Any

import griffe

SHELL = ("efcp-ref ", "pip ", "pytest ", "python ")
LONGEST = 72  # characters of a constant's value that is shown

Told = tuple[str, str, str]  # name; its type or value; what the comment says


class PlainText(griffe.Extension):
    """Show docstrings as they are meant, with the fields and constants that have a comment."""

    def on_instance(self, *, node: Any, obj: Any, **kwargs: Any) -> None:
        """Change the docstring of one object."""
        if not obj.docstring:
            return
        lists = ""
        if isinstance(node, ast.ClassDef) and is_record(node):
            lists = listed("Fields", fields(node, comments(Path(obj.filepath))))
        elif obj.is_module:
            found = constants(Path(obj.filepath).read_text(encoding="utf-8"), comments(Path(obj.filepath)))
            lists = listed("Constants", [f for f in found if f[0].isupper()])
            lists += listed("Types", [f for f in found if not f[0].isupper()])
        text, example, rest = marked(obj.docstring.value).partition("\n```pycon\n")
        obj.docstring.value = text.rstrip("\n") + lists + ("\n" if example else "") + example + rest

    def on_class_members(self, *, node: Any, cls: Any, **kwargs: Any) -> None:
        """Give a named tuple the signature of its constructor, as a dataclass has one."""
        if not isinstance(node, ast.ClassDef) or not any(ast.unparse(base) == "NamedTuple" for base in node.bases):
            return
        kind = griffe.ParameterKind.positional_or_keyword
        parameters = [griffe.Parameter("self", kind=kind)]
        for name in (str(item.target.id) for item in node.body if isinstance(item, ast.AnnAssign)):
            of = cls.members[name]
            parameters.append(griffe.Parameter(name, annotation=of.annotation, kind=kind, default=of.value))
        made = griffe.Function(
            "__init__", lineno=cls.lineno, endlineno=cls.lineno, parameters=griffe.Parameters(*parameters)
        )
        cls.set_member("__init__", made)

    def on_package(self, *, pkg: Any, **kwargs: Any) -> None:
        """Leave out what a module only hands on from another that has a page."""
        for module in _modules(pkg):
            if module.exports is not None:
                names = [str(getattr(name, "name", name)) for name in module.exports]
                module.exports = [n for n in names if n in module.members and not _handed_on(module.members[n])]


def _handed_on(member: Any) -> bool:
    return member.is_alias and not any(part.startswith("_") for part in member.target_path.split("."))


def _modules(module: Any) -> list[Any]:
    inner = [m for m in module.members.values() if not m.is_alias and m.is_module]
    return [module, *(found for m in inner for found in _modules(m))]


# ---- docstrings --------------------------------------------------------------------------------------------------


def marked(text: str) -> str:
    r"""Return a docstring as Markdown: an example ends at the next empty line.

    >>> marked("a*b\n\n>>> 2 * 3\n6\n\nc").split("\n\n")
    ['a\\*b', '```pycon\n>>> 2 * 3\n6\n```', 'c']
    >>> marked("A case::")
    'A case:'
    >>> marked("\b\nExample:\n  efcp-ref list *").splitlines()
    ['```text', 'Example:', '  efcp-ref list *', '```']
    >>> marked("So::\n\n    import a\n\n    a.b()\n\nor").split("\n\n")
    ['So:', '```python\nimport a', 'a.b()\n```', 'or']
    >>> marked("So:\n\n    case sp 0\n    end").splitlines()
    ['So:', '', '```text', 'case sp 0', 'end', '```']
    >>> marked("Raises:\n    TypeError, ValueError: a is no number.")
    'Raises:\n    TypeError or ValueError: a is no number.'
    """
    rows: list[str] = []
    rest, section = text.splitlines(), ""
    while rest:
        count, language = _block(rest, not rows or not rows[-1].strip())
        if count:
            inner = language == "pycon" or rest[0].strip(" ") == "\b"  # its indentation is that of the list around it
            code, rest = [line for line in rest[:count] if line.strip(" ") != "\b"], rest[count:]
            outer = code[0][: len(code[0]) - len(code[0].lstrip())] if inner else ""
            code = code if outer else textwrap.dedent("\n".join(code)).splitlines()
            rows += [f"{outer}```{language}", *code, f"{outer}```"]
            continue
        line, rest = rest[0], rest[1:]
        section = line if re.match(r"\S", line) else section
        if section == "Raises:" and (several := re.match(r" {4}\w+(, \w+)+(?=:)", line)):
            line = several[0].replace(", ", " or ") + line[several.end() :]
        rows.append(_escaped(line))
    return "\n".join(rows)


def _block(lines: list[str], after_empty: bool) -> tuple[int, str]:
    """Return how many of the first lines are a block of code, and its language."""
    example = next((n for n, line in enumerate(lines) if not line.strip()), len(lines))
    if lines[0].lstrip().startswith(">>>"):
        return example, "pycon"
    if lines[0].strip(" ") == "\b":
        return example, "text"
    if not after_empty or not re.match(r" {4}\s*\S", lines[0]):
        return 0, ""
    count = next((n for n, line in enumerate(lines) if re.match(r" {0,3}\S", line)), len(lines))
    while not lines[count - 1].strip():
        count -= 1
    code = textwrap.dedent("\n".join(lines[:count]))
    try:
        ast.parse(code)
        return count, "python"
    except SyntaxError:
        return count, "sh" if code.startswith(SHELL) else "text"


def _escaped(line: str) -> str:
    parts = re.split(r"(``.*?``|`[^`]*`|(?<![\w*])\*\w+\*(?![\w*]))", line)  # code, or one *word* of stress
    text = "".join(part if number % 2 else part.replace("*", r"\*") for number, part in enumerate(parts))
    return text[:-1] if text.endswith("::") else text


# ---- comments ----------------------------------------------------------------------------------------------------


@cache
def comments(path: Path) -> dict[int, str]:
    """Return the comments behind code, by line: what they say, without what is meant for a tool."""
    tokens = list(tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline))
    found = {token.start[0]: token for token in tokens if token.type == tokenize.COMMENT}
    texts = {n: re.split(r"#\s*(?:noqa|type:|fmt:)", token.string)[0].strip("# ") for n, token in found.items()}
    return {n: text for n, text in texts.items() if text and found[n].line[: found[n].start[1]].strip()}


def is_record(node: ast.ClassDef) -> bool:
    """Whether a class is a dataclass or a named tuple.

    >>> is_record(ast.parse("@dataclass(frozen=True)\\nclass A: pass").body[0])
    True
    """
    said = [ast.unparse(part) for part in (*node.decorator_list, *node.bases)]
    return any(part.split("(")[0] in ("dataclass", "NamedTuple") for part in said)


def fields(node: ast.ClassDef, behind: dict[int, str]) -> list[Told]:
    """Return the public fields of a class with their types and comments.

    >>> fields(ast.parse("class A:\\n    d: int = 0").body[0], {2: "dimension"})
    [('d', ' (`int`)', 'dimension')]
    """
    own = [item for item in node.body if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)]
    return [
        (item.target.id, f" (`{ast.unparse(item.annotation)}`)", behind.get(item.end_lineno or item.lineno, ""))
        for item in own
        if isinstance(item.target, ast.Name) and not item.target.id.startswith("_")
    ]


def constants(source: str, behind: dict[int, str]) -> list[Told]:
    """Return the public constants and names of types that a comment in their line explains, short values with them.

    >>> constants("A = 2**4\\nB = 3\\n_C = 4", {1: "numbers", 3: "no name of ours"})
    [('A', ' = `2**4`', 'numbers')]
    """
    found = []
    for item in ast.parse(source).body:
        if not isinstance(item, (ast.Assign, ast.AnnAssign)) or item.lineno != item.end_lineno:
            continue
        target = ast.unparse(item.targets[0] if isinstance(item, ast.Assign) else item.target).strip("()")
        value = ast.get_source_segment(source, item.value) or "" if item.value else ""
        if item.lineno in behind and re.fullmatch(r"[A-Za-z]\w*(, [A-Za-z]\w*)*", target):
            short = 0 < len(value) <= LONGEST and not re.search(r"\b_", value)
            found.append((target, f" = `{value}`" if short else "", behind[item.lineno]))
    return found


def listed(title: str, told: list[Told]) -> str:
    """Return a list under a title, as mkdocstrings writes its own; nothing for nothing. An option is code.

    >>> print(listed("Fields", [("u", " (`Array`)", "(d,), <= 1"), ("t", " = `0`", "of --steps")]))
    <BLANKLINE>
    <BLANKLINE>
    **Fields:**
    <BLANKLINE>
    - **`u`** (`Array`) – (d,), &#60;= 1.
    - **`t`** = `0` – of `--steps`.
    """
    rows = []
    for name, more, text in told:
        end = "." if text and (text[-1].isalnum() or text[-1] in ')`"]}|>$') else ""
        text = re.sub(r"(?<![\w`-])--[a-z]+", r"`\g<0>`", text) + end
        parts = re.split(r"(``.*?``|`[^`]*`)", text)
        safe = (re.sub(r"[*_$<\[\]]", lambda match: f"&#{ord(match[0])};", part) for part in parts[::2])
        text = "".join(part for pair in zip(safe, [*parts[1::2], ""], strict=True) for part in pair)
        rows.append(f"- **`{name}`**" + more + f" – {text}" * bool(text))
    return f"\n\n**{title}:**\n\n" + "\n".join(rows) if rows else ""
