"""Ready-made targets: public packages under the names of the contract, judged as any other code is.

>>> from efcp_ref.targets import scipy64
>>> scipy64.sp([[0, 2]], [[1.0, 2.0]], [3.0, 0.0, 4.0])
array([11.])
"""
