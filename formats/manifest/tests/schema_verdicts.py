#!/usr/bin/env python3
"""Writes data/verdicts.json: what the published JSON schemas (data/schema, MIT-0) say about many small changes of
each document beside this file. tests/schema.rs asserts that the parser says the same. Needs python3-jsonschema."""
import copy, json, os, sys
import jsonschema

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "data")
KINDS = {"graph.json": "nodeGraph", "overrides.json": "nodeGraphOverrides", "package-code.json": "nodePackage",
         "package-model.json": "nodePackage", "descriptor-runtime.json": "assetDescriptor",
         "descriptor-model.json": "assetDescriptor"}
TEXTS = ["", "x", "a-b", "a b", "a::b", "a::b.c", "a.b", "a.b.c", "$a", "1.0", "1.", "2021-01-01", "boolean", "x" * 51,
         "x" * 129, "x" * 256, "media", "float32", "\u00e9"]
OTHERS = [None, True, 7, -1, 0, 65536, 3.5, [], {}, [1]]


def walk(value, path=()):
    yield path, value
    if isinstance(value, dict):
        for key in value:
            yield from walk(value[key], path + (key,))
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from walk(item, path + (i,))


def change(document, path, operation, value):
    if not path:
        return value
    document = copy.deepcopy(document)
    at = document
    for step in path[:-1]:
        at = at[step]
    if operation == "set":
        at[path[-1]] = value
    elif operation == "remove":
        del at[path[-1]]
    return document


def main():
    verdicts = []
    for name, kind in KINDS.items():
        document = json.load(open(os.path.join(HERE, name)))
        schema_path = os.path.join(HERE, "schema", kind + ".schema.json")
        schema = json.load(open(schema_path))
        resolver = jsonschema.RefResolver("file://" + schema_path, schema)
        validator = jsonschema.Draft7Validator(schema, resolver=resolver)
        jobs = [((), "set", document)]
        for path, value in walk(document):
            if not path:
                continue
            jobs.append((path, "remove", None))
            jobs += [(path, "set", other) for other in OTHERS]
            if isinstance(value, str):
                jobs += [(path, "set", text) for text in TEXTS]
            if isinstance(value, dict):
                jobs.append((path + ("unknown",), "set", 1))
            if isinstance(value, list):
                jobs.append((path, "set", value * 12))
        for path, operation, value in jobs:
            valid = validator.is_valid(change(document, path, operation, value))
            verdicts.append([name, list(path), operation, value, valid])
    with open(os.path.join(HERE, "verdicts.json"), "w") as out:
        out.write("[\n" + ",\n".join(json.dumps(v, separators=(",", ":")) for v in verdicts if v[1]) + "\n]\n")
    print(len(verdicts), "verdicts,", sum(v[4] for v in verdicts), "valid", file=sys.stderr)


main()
