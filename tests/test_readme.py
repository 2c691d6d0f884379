"""The README says what is so: its code runs, its output is the program's, its files exist."""

import contextlib
import io
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language):
    """The fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def printed(text):
    """Output without what differs between machines: time, last digits, trailing blanks."""
    text = re.sub(r"-?(?:0x)?\d+\.[\da-f]+(?:[ep][+-]?\d+)?", "#", text)
    return [line.rstrip() for line in text.strip().splitlines() if line.strip()]


def test_the_example_is_the_bundled_one():
    code = (ROOT / "examples/my_code.py").read_text().partition('"""\n\n')[2]
    assert blocks("python")[0].strip() == code.strip()


def test_the_output_is_the_programs():
    command = [sys.executable, "-m", "efcp_ref", "check", "examples/my_code.py"]
    here = {**os.environ, "COLUMNS": "120"}
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=here)
    assert run.returncode == 1, run.stderr
    assert printed(run.stdout) == printed(blocks("text")[0])


def test_the_python_prints_what_its_comments_say():
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(blocks("python")[1], {})
    said = re.findall(r"# (?:what waits: )?(.*)", blocks("python")[1])
    assert out.getvalue().split("\n")[: len(said)] == said


def test_the_line_that_checks_an_exercise_prints_its_answer():
    (code,) = re.findall(r"`(from efcp_ref\.exercises import [^`]*)`", README)
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(code, {"my_top_k": lambda a, k: (list(range(k)), list(a[:k]))})
    assert out.getvalue().startswith("1:6 refused\n")


def test_every_linked_file_exists():
    links = [link for link in re.findall(r"\]\(([^)#]+)", README) if not link.startswith("http")]
    assert links
    for link in links:
        assert (ROOT / link).exists(), link


def test_every_listed_file_of_the_paper_exists():
    table = README.partition("| file in")[2].partition("`efcp-ref trace")[0]
    for name in re.findall(r"`(\w+(?:\.py|\.toml|/))`", table):
        assert (ROOT / "efcp_ref/paper" / name).exists(), name
