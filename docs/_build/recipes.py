"""Recipes that exist only where the program or the examples offer them: nothing is promised that is not there."""

from __future__ import annotations

import ast

from _build.reference import ROOT, command_names
from _build.text import fenced

EXAMPLES = {  # name: heading, file, what to say
    "torch": (
        "PyTorch",
        "examples/torch/my_torch.py",
        'With `ARRAYS = "torch"` the arguments arrive as tensors and '
        "tensors may be returned.\n\n    efcp-ref check examples/torch/my_torch.py",
    ),
    "optimizer": (
        "An optimizer of PyTorch",
        "examples/torch/my_optimizer.py",
        "`torch_optimizer` turns a `torch.optim.Optimizer` into an optimizer of the contract: a function of the "
        "parameters that makes yours. It is called like the operation and names the contract's arguments it wants. "
        "The learning rate must be 1 (`gamma` for `ef_signsgd`); the parameters are set to zero before every step, so "
        "that u is minus what they are after it. With `state`, every step is judged from the state that your code "
        "had. An argument that your optimizer cannot follow is declined with `raise NotImplementedError`, as "
        "`examples/torch/adagrad.py` does for k < d.\n\n    efcp-ref check examples/torch/my_optimizer.py",
    ),
    "optax": (
        "An optax chain",
        "examples/jax/my_optax.py",
        "`optax_transformation` does the same for a `GradientTransformation`. optax adds updates to the parameters, "
        "so the chain ends with its rate, `optax.scale(-1.0)`, and u is minus the updates.\n\n"
        "    efcp-ref check examples/jax/my_optax.py --memory 0 --timeout 60",
    ),
    "jax": (
        "JAX",
        "examples/jax/my_jax.py",
        'With `ARRAYS = "jax"` the arguments arrive as JAX arrays. JAX computes in '
        "float32 unless `jax_enable_x64` is set, and flushes subnormal numbers to zero on a CPU: the example declares it. "
        "JAX reserves more address space than the default limit.\n\n"
        "    efcp-ref check examples/jax/my_jax.py --memory 0 --timeout 30",
    ),
    "cupy": (
        "CuPy",
        "examples/cupy/my_cupy.py",
        'With `ARRAYS = "cupy"` the arguments are on the device already. This '
        "example needs a GPU.\n\n    efcp-ref check examples/cupy/my_cupy.py --memory 0",
    ),
    "c": (
        "C, as a program of its own",
        "examples/c/mine.c",
        "Numbers as text through a pipe, no library needed:\n\n"
        "    efcp-ref gen sp --cases 100 | ./mine | efcp-ref verify sp --cases 100",
    ),
    "cpp": (
        "C++, as a program of its own",
        "examples/cpp/mine.cpp",
        "The program is started once and answers line by line.",
    ),
    "rust": ("Rust", "examples/rust/src/main.rs", "The same in Rust, without dependencies."),
}
LANGUAGES = {"py": "python", "c": "c", "cpp": "cpp", "rs": "rust"}


def recipe(name: str) -> str:
    """Return the text of one recipe, empty where the project does not offer it yet."""
    if name in EXAMPLES:
        heading, file, text = EXAMPLES[name]
        path = ROOT / file
        if (
            not path.exists()
            or (name in ("c", "rust") and "gen" not in command_names())
            or (name == "cpp" and not _option("--command"))
        ):
            return ""
        return f"## {heading}\n\n{text}\n\n{fenced(path.read_text(encoding='utf-8'), LANGUAGES[path.suffix[1:]], file)}"
    return {"command": _command, "files": _files, "pytest": _pytest}[name]()


def _option(name: str) -> bool:
    from efcp_ref.cli import main

    return any(name in option.opts for option in main.commands["check"].params)


def _command() -> str:
    if not _option("--command"):
        return ""
    return (
        "## A program in any language\n\nA process that reads JSON lines and answers them is a target, too. It is "
        "started once; if it dies, it is started again for the next case. What it writes to its standard error is kept "
        "for the report.\n\n```sh\nefcp-ref check --command './mine'\n```\n\n"
        "The messages, and the text for programs without a JSON library, are described under [three doors](doors.md).\n"
    )


def _files() -> str:
    if "vectors" not in command_names():
        return ""
    return (
        "## Files\n\nA simulator, another machine, a language without pipes: write the cases out, run your program on "
        "the files, and let the oracle judge what it left there.\n\n```sh\nefcp-ref vectors cases/\n"
        "# your program reads cases/sp/0000/*.npy and writes cases/sp/0000/out/omega.npy\n"
        "efcp-ref check --outputs cases/\n```\n\nLoading never unpickles. The format is described under "
        "[file formats](../reference/formats.md#vectors).\n"
    )


def _pytest() -> str:
    if not (ROOT / "efcp_ref" / "oracle" / "pytest_plugin.py").exists():
        return ""
    return (
        "With the plugin, which is installed with the package, a target becomes one test per operation and tier. A "
        "failing test shows what `efcp-ref check` shows. T3 warns and does not fail.\n\n"
        "```sh\npytest --efcp-target my_code.py\n"
        'pytest --efcp-target my_code.py --efcp-cases 100 -k "sp or lcg"\n'
        "pytest --efcp-command ./mine --efcp-xfail known.txt\n```\n\n"
        "A line of `known.txt` is `operation` or `operation:tier`, then a reason after `#`: what is known to fail is "
        "expected to fail, and is reported when it no longer does.\n"
    )


def schemas() -> str:
    """Return the JSON schemas that the package carries."""
    parts = []
    for path in sorted((ROOT / "efcp_ref").rglob("*.schema.json")):
        parts.append(
            f'??? abstract "`{path.relative_to(ROOT)}`"\n\n'
            + "\n".join("    " + line for line in fenced(path.read_text(encoding="utf-8"), "json").splitlines())
            + "\n"
        )
    return "## Schemas\n\nJSON Schema, draft 2020-12, as the package validates.\n\n" + "\n".join(parts) if parts else ""


def bare(source: str) -> str:
    r"""Return functions without their docstrings, where the page says above them what they say.

    >>> bare('def f(x):\n    "Double x."\n    return 2 * x')
    'def f(x):\n    return 2 * x'
    """
    rows = source.splitlines()
    for node in reversed(ast.parse(source).body):
        if isinstance(node, ast.FunctionDef) and ast.get_docstring(node):
            del rows[node.body[0].lineno - 1 : node.body[0].end_lineno]
    return "\n".join(rows)


def exercises() -> str:
    """Return every exercise: what is asked, the start, a hint, a solution."""
    from _build.paper import line_link

    from efcp_ref.exercises import hint, ids, solution, starter, statement

    def folded(kind: str, title: str, body: str) -> str:
        return f'??? {kind} "{title}"\n\n' + "\n".join("    " + line for line in body.splitlines()) + "\n"

    parts = []
    for name in ids():
        start = starter(name)
        function = start.partition("(")[0].removeprefix("def ").strip()
        parts += [
            f"## {name}: `{function}` {{ #exercise-{name.lower().replace(':', '-')} }}\n",
            f"{statement(name)}\n\nPaper: {line_link(name, '../..')}.\n",
            fenced(bare(start), "python"),
            folded("tip", "Hint", hint(name)),
            folded("success", "One right answer", fenced(bare(solution(name)), "python")),
        ]
    return "\n".join(parts)
