"""The printed lines as HTML without a script: letters, sub- and superscripts, the few commands that the paper uses."""

from __future__ import annotations

import html
import re

SYMBOLS = {
    "leftarrow": " ← ", "in": " ∈ ", "ell": "ℓ", "cdot": " · ", "dots": "…", "theta": "θ", "lambda": "λ", "xi": "ξ",
    "delta": "δ", "tau": "τ", "sum": "∑", "omega": "ω", "sigma": "σ", "min": "min", "alpha": "α", "epsilon": "ε",
    "lceil": "⌈", "rceil": "⌉", "beta": "β", "Sigma": "Σ", "Delta": "Δ", "nabla": "∇", "eta": "η", "times": " × ",
    "gamma": "γ", "|": "‖", "_": "_", "bmod": " mod ", "dagger": "†", "geq": " ≥ ", "leq": " ≤ ", "{": "{", "}": "}",
}  # fmt: skip
STYLES = {"mathbf": "b", "textbf": "b", "mathcal": "i", "mathbb": "b", "text": "", "mathrm": "", "operatorname": ""}
ACCENTS = {"hat": "\u0302", "tilde": "\u0303"}
_TOKEN = re.compile(r"\\([A-Za-z]+|.)|([\s\S])")


class _Reader:
    """Reads one formula from left to right."""

    def __init__(self, latex: str) -> None:
        self.tokens = [(m.group(1), m.group(2)) for m in _TOKEN.finditer(latex)]

    def all(self) -> str:
        """Everything."""
        return self.until("")

    def until(self, end: str) -> str:
        """Everything up to a closing brace, or to the end."""
        parts = []
        while self.tokens and self.tokens[0][1] != end:
            parts.append(self.one())
        if self.tokens:
            self.tokens.pop(0)
        return "".join(parts)

    def argument(self) -> str:
        """A group in braces, or one token."""
        while self.tokens and self.tokens[0][1] == " ":
            self.tokens.pop(0)
        return self.one() if self.tokens else ""

    def one(self) -> str:
        """One token, or a group in braces."""
        command, letter = self.tokens.pop(0)
        if letter == "{":
            return self.until("}")
        if letter in ("_", "^"):
            tag = "sub" if letter == "_" else "sup"
            return f"<{tag}>{self.argument()}</{tag}>"
        return self.command(command) if command else html.escape(letter)

    def command(self, name: str) -> str:
        """What follows a backslash."""
        if name in STYLES:
            inside = self.argument()
            return f"<{STYLES[name]}>{inside}</{STYLES[name]}>" if STYLES[name] else inside
        if name in ACCENTS:
            return self.argument() + ACCENTS[name]
        if name == "frac":
            return f"({self.argument()}) / ({self.argument()})"
        if name == "sqrt":
            return f"√({self.argument()})"
        return SYMBOLS.get(name, html.escape(name))


def math_html(latex: str) -> str:
    r"""Return text with formulas between dollar signs as HTML.

    >>> math_html(r"$a_t \leftarrow \xi_{t-1} + g_t$")
    'a<sub>t</sub>  ←  ξ<sub>t-1</sub> + g<sub>t</sub>'
    """
    return _Reader(latex.replace("$", "")).all()
