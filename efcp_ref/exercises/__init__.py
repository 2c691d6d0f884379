"""Exercises that check themselves: write one line of the paper, and be told which line is wrong, where, and on what.

>>> from efcp_ref.exercises import check
>>> def my_top_k(a, k):
...     kept = sorted(range(len(a)), key=lambda i: -a[i])[:k]  # by value, not by magnitude
...     return kept, [a[i] for i in kept]
>>> answer = check("1:6", my_top_k)
>>> bool(answer), answer.line, answer.variable
(False, '1:6', 'indices')
"""

from efcp_ref.exercises.book import hint, ids, solution, starter, statement
from efcp_ref.exercises.core import Answer, check

__all__ = ["Answer", "check", "hint", "ids", "solution", "starter", "statement"]
