"""The house stands: imports go down, the paper knows nobody, functions fit on a screen, importing costs little."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "efcp_ref"
FLOOR = {
    "paper": 0, "data": 0, "contract": 1, "tracing": 1, "fast": 1, "gpu": 1, "oracle": 2,
    "adapt": 3, "targets": 3, "torch": 3, "exercises": 3, "claims": 3, "reproduce": 3, "cli": 4, "__main__": 4,
}
FILES = sorted(ROOT.rglob("*.py"))


def room(path):
    """The name below efcp_ref that a file belongs to; "" for the package itself."""
    first = path.relative_to(ROOT).parts[0].removesuffix(".py")
    return "" if first == "__init__" else first


def imported(tree):
    """Full names of everything that a file imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_down(path):
    here = room(path)
    if not here:
        return  # the package imports its rooms lazily, by name
    for name in imported(ast.parse(path.read_text())):
        parts = name.split(".")
        if parts[0] == "efcp_ref" and len(parts) > 1 and parts[1] in FLOOR:
            assert FLOOR[parts[1]] <= FLOOR[here], f"{path} imports {name} from a higher floor"


@pytest.mark.parametrize("path", sorted((ROOT / "paper").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_the_paper_imports_numpy_and_scipy_alone(path):
    allowed = {*sys.stdlib_module_names, "numpy", "scipy", "ml_dtypes"}  # ml_dtypes only where bfloat16 is asked for
    for name in imported(ast.parse(path.read_text())):
        assert name.split(".")[0] in allowed or name == "efcp_ref" or name.startswith("efcp_ref.paper"), name


def code_lines(function, lines):
    """Lines of code of a function, without its docstring, blank lines and comments."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    numbers = {n for statement in body for n in range(statement.lineno, statement.end_lineno + 1)}
    return [n for n in numbers if lines[n - 1].strip() and not lines[n - 1].strip().startswith("#")]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_functions_fit_on_a_screen(path):
    text = path.read_text()
    lines = text.splitlines()
    tree = ast.parse(text)
    inner = {id(b) for a in ast.walk(tree) if isinstance(a, ast.FunctionDef) for b in ast.walk(a) if b is not a}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert len(code_lines(node, lines)) <= 30, f"{path}:{node.lineno} {node.name}"
            if not node.name.startswith("_") and id(node) not in inner:
                assert ast.get_docstring(node) or len(code_lines(node, lines)) <= 3, f"{path}:{node.lineno} {node.name}"
                assert node.returns is not None, f"{path}:{node.lineno} {node.name} has no return type"


def test_importing_the_package_imports_nothing_heavy():
    code = "import sys, efcp_ref; print(*{m.split('.')[0] for m in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"numpy", "scipy", "torch", "hypothesis", "rich", "click"} & set(loaded)


def test_every_public_name_is_there():
    import efcp_ref
    from efcp_ref.contract import NAMES

    assert set(NAMES) <= set(dir(efcp_ref))
    for name in dir(efcp_ref):
        assert getattr(efcp_ref, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        efcp_ref.nothing  # noqa: B018
