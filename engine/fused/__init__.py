"""Chains of element-wise functions as one CUDA kernel each.

table.py    what a chain can compute: each function as array code and as C
source.py   a chain as data, and its kernel as CUDA C
launch.py   where operands lie, the kernels of a device, and calls of them
"""
