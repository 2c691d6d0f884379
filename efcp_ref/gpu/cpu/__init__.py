"""The kernels on a CPU: g++ compiles the same source behind ``cuda_on_cpu.h``, ctypes calls it.

`build` makes the libraries, `device` launches them; ``driver.cpp`` and `nvcc` show the same libraries to PyCUDA as a
GPU's driver and compiler.
"""
