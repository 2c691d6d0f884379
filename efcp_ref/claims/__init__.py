"""The paper, checked: its claims, measured on the digits and on synthetic problems by this package's own code.

`efcp_ref.claims.core` says what a claim is; `trained`, `synthetic` and `closed_forms` hold the claims; `heavy` and
`comparators` make the training runs that are cached in ``results``; `page` writes docs/claims.md.
"""
