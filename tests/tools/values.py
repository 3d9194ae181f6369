"""Values for the shapes of a model: right ones, and wrong ones with what is wrong about them."""

import re

from published_model import ANYTHING

CANDIDATES = [
    "a", "1", "1.0", "a1", "10.0.0.1", "0.pool.ntp.org", "arn:aws:iam::123456789012:role/panorama", "123456789012",
    "arn:aws:panorama:us-east-1:123456789012:device/device-a",
]
# Strings that some pattern forbids.
ODD = [
    "bad name!", "a b", " a", "a ", "ä", "a\n", "\na", "a\x00b", "../a", "a/../b", "%2e%2e", "a;b", "<a>", "'", "\"", "\\", "-.-",
    "300.1.1.1", "1.2.3.4.5", "01.2.3.4", "10.0.0.1:65536", "1", "1.", ".1", "1.0.0", "v1.0", "1,0", "A", "ABCDEF", "_", "١.٠",
    "arn:aws:iam::1:role/x", "arn:aws:iam::123456789012:role/", "arn:aws:iam::123456789012:user/x", "x.y-", "-x.org", "a" * 300,
]


def lengths(shape):
    return shape.get("min", 0), shape.get("max", float("inf"))


def is_right(shape, text):
    low, high = lengths(shape)
    if "enum" in shape:
        return text in shape["enum"]
    pattern = shape.get("pattern")
    return low <= len(text) <= high and (pattern in ANYTHING or pattern is None or re.fullmatch(pattern, text, re.ASCII) is not None)


def right(model, name, known=()):
    """A right value of a shape, with all its members. `known`: values by shape that name things that exist."""
    shape = model["shapes"][name]
    kind = shape["type"]
    if name in known:
        return known[name]
    if kind == "string":
        return shape["enum"][0] if "enum" in shape else next(c for c in CANDIDATES if is_right(shape, c))
    if kind in ("integer", "long"):
        return max(shape.get("min", 0), 1)
    if kind == "boolean":
        return True
    if kind == "list":
        return [right(model, shape["member"]["shape"], known) for _ in range(max(1, shape.get("min", 0)))]
    if kind == "map":
        return {right(model, shape["key"]["shape"], known): right(model, shape["value"]["shape"], known)}
    if kind == "structure":
        return {n: right(model, m["shape"], known) for n, m in shape["members"].items()}
    raise AssertionError(f"{name}: {kind}")


def many(model, name, count):
    """So many right values of a string shape, all different."""
    shape = model["shapes"][name]
    texts = (pattern.format(i) for i in range(10 * count) for pattern in ("k{}", "{}.0", "{}"))
    found = []
    for text in texts:
        if is_right(shape, text) and text not in found:
            found.append(text)
        if len(found) == count:
            return found
    return [right(model, name)] * count  # a list may repeat itself


def wrong(model, name, in_body):
    """Every way in which a value breaks its shape: what it breaks, the value, and where in it the fault is."""
    shape = model["shapes"][name]
    kind = shape["type"]
    low, high = lengths(shape)
    if in_body:
        # A whole number is right for nothing but numbers, and so on.
        others = {"string": "a", "integer": 1, "boolean": True, "list": [], "map": {}, "structure": {}}
        others.pop("map" if kind == "structure" else "structure" if kind == "map" else None, None)
        for other, value in others.items():
            if other != kind:
                yield f"type {other}", value, ""
        if kind == "integer":
            yield "fraction", 1.5, ""
    if kind == "string" and "enum" in shape:
        for value in ("", "NONE", shape["enum"][0].lower(), shape["enum"][0] + " ", " " + shape["enum"][0]):
            yield "enum", value, ""
    elif kind == "string":
        if low > 0:
            yield "too short", "", ""
        if high < float("inf"):
            filler = next((c for c in "a1." if is_right(shape, c)), "a")
            yield "too long", filler * (high + 1), ""
            yield "too long", "ä" * (high + 1), ""
        if shape.get("pattern") not in ANYTHING | {None}:
            for value in ODD:
                if not is_right(shape, value) and low <= len(value) <= high:
                    yield "pattern", value, ""
    elif kind == "integer":
        if "min" in shape:
            yield "range", low - 1, ""
            yield "range", -(2**63), ""
        if "max" in shape:
            yield "range", high + 1, ""
            yield "range", 2**63, ""
        if not in_body:
            for value in ("", "abc", "1e1", "1.0", "0x1", " 1", "1 ", "9" * 40):
                yield "not a number", value, ""
    elif kind == "boolean":
        if not in_body:
            for value in ("", "True", "1", "yes"):
                yield "not a boolean", value, ""
    elif kind == "list":
        member = shape["member"]["shape"]
        if low > 0 and in_body:
            yield "too few", [], ""
        if high < 10_000:
            yield "too many", [right(model, member) for _ in range(high + 1)], ""
        for what, value, at in wrong(model, member, in_body):
            yield what, [value], f"[0]{at}"
        if in_body:
            yield "null inside", [None], "[0]"
    elif kind == "map":
        if high < 10_000:
            yield "too many", {k: right(model, shape["value"]["shape"]) for k in many(model, shape["key"]["shape"], high + 1)}, ""
        for what, value, _ in wrong(model, shape["key"]["shape"], in_body):
            if isinstance(value, str):
                yield f"key {what}", {value: right(model, shape["value"]["shape"])}, f".{value[:128]}"
        key = right(model, shape["key"]["shape"])
        for what, value, at in wrong(model, shape["value"]["shape"], in_body):
            yield f"value {what}", {key: value}, f".{key}{at}"
        yield "value null", {key: None}, f".{key}"
    elif kind == "structure":
        if shape.get("union"):
            yield "none of a union", {}, ""
        yield from wrong_members(model, name, right(model, name), in_body)


def wrong_members(model, name, whole, in_body=True):
    """Every way in which a structure is wrong in one of its members."""
    shape = model["shapes"][name]
    for member, place in shape["members"].items():
        body = in_body and "location" not in place
        if member in shape.get("required", []) and place.get("location") != "uri":
            yield "required", {k: v for k, v in whole.items() if k != member}, f".{member}"
            if body:
                yield "required null", {**whole, member: None}, f".{member}"
        for what, value, at in wrong(model, place["shape"], body):
            if place.get("location") == "uri" and value == "":
                continue  # an empty label is another path
            yield what, {**whole, member: value}, f".{member}{at}"
