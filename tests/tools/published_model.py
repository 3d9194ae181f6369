"""The model that AWS published, as botocore 1.40.76 carries it, and our own in the same form."""

import gzip
import json
import pathlib
import subprocess

import botocore

from service import BIN

# Patterns that mean "anything but a line end". The service takes line ends too: people's documents have them.
ANYTHING = {"^.*$", "^.+$"}


def published(service="panorama", version="2019-07-24"):
    folder = pathlib.Path(botocore.__file__).parent / "data" / service / version
    plain = folder / "service-2.json"
    return json.loads(plain.read_bytes() if plain.exists() else gzip.decompress((folder / "service-2.json.gz").read_bytes()))


def ours():
    return json.loads(subprocess.run([BIN / "belvedere-service", "model"], check=True, capture_output=True).stdout)


def without_documentation(value):
    """A document without its texts; a member that is called `documentation` would be lost, and there is none."""
    if isinstance(value, dict):
        return {k: without_documentation(v) for k, v in value.items() if k != "documentation"}
    return [without_documentation(v) for v in value] if isinstance(value, list) else value


def departures(wanted, have):
    """Everything of the published model that is missing or looser in ours, one line each."""
    wrong = []

    def same(where, a, b):
        if a != b:
            wrong.append(f"{where}: published {a!r}, ours {b!r}")

    for name, operation in wanted["operations"].items():
        mine = have["operations"].get(name)
        if mine is None:
            wrong.append(f"{name}: missing")
            continue
        same(f"{name} http", operation["http"], mine["http"])
        for side in ("input", "output"):
            same(f"{name} {side}", operation[side], mine[side])
        same(f"{name} errors", sorted(e["shape"] for e in operation["errors"]), sorted(e["shape"] for e in mine["errors"]))
    for name, shape in wanted["shapes"].items():
        mine = have["shapes"].get(name)
        if mine is None:
            wrong.append(f"{name}: missing")
            continue
        for key in ("type", "error", "exception", "fault", "union", "sensitive", "member", "key", "value", "enum"):
            same(f"{name} {key}", shape.get(key), mine.get(key))
        same(f"{name} required", sorted(shape.get("required", [])), sorted(mine.get("required", [])))
        members, own = shape.get("members", {}), mine.get("members", {})
        same(f"{name} members", sorted(members), sorted(own))
        for member in members.keys() & own.keys():
            same(f"{name}.{member}", members[member], own[member])
        # A client checks minima by itself, so they are the same; maxima may be narrower, never wider.
        same(f"{name} min", shape.get("min", 0), mine.get("min", 0))
        if mine.get("max", float("inf")) > shape.get("max", float("inf")):
            wrong.append(f"{name} max: published {shape.get('max')}, ours {mine.get('max')}")
        if shape.get("pattern") not in ANYTHING:
            same(f"{name} pattern", shape.get("pattern"), mine.get("pattern"))
    return wrong


def additions(wanted, have):
    """Operations, members and words of ours that the published model does not have."""
    extra = [f"operation {n}" for n in have["operations"].keys() - wanted["operations"].keys()]
    extra += [f"shape {n}" for n in have["shapes"].keys() - wanted["shapes"].keys()]
    return extra


def narrower(wanted, have):
    """Maxima that only ours has."""
    return {n for n, s in have["shapes"].items() if "max" in s and "max" not in wanted["shapes"].get(n, {})}
