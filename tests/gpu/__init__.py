"""Tests of the kernels: on the CPU always; behind PyCUDA, and compiled for a GPU, where that is possible."""
