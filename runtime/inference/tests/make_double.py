#!/usr/bin/env python3
"""Writes data/double.onnx: y = x + x for float32 tensors of the shape (any, 2). Protocol buffers by hand, so that the
test needs no library to make its model."""
import os


def varint(number):
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def field(number, value):
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def tensor(name):
    shape = field(1, field(2, "n")) + field(1, field(1, 2))  # dimensions: a symbol, and 2
    return field(1, name) + field(2, field(1, field(1, 1) + field(2, shape)))  # element type 1: float32


node = field(1, "x") + field(1, "x") + field(2, "y") + field(4, "Add")
graph = field(1, node) + field(2, "double") + field(11, tensor("x")) + field(12, tensor("y"))
model = field(1, 8) + field(7, graph) + field(8, field(1, "") + field(2, 13))
open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "data", "double.onnx"), "wb").write(model)
