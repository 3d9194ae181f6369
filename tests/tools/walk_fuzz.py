"""Every operation with values nobody would think of, from the published model: no fault of the service's own, no dropped
connection, and every answer as the model says.

    BELVEDERE_WALK_SECONDS=600 BELVEDERE_WALK_SEED=7 tests/tools/run tests/tools/walk_fuzz.py

The seed decides what is sent; identifiers are the service's own, so a run is repeated in kind, not to the letter."""

import base64
import json
import os
import random
import re
import string
import time

import project
import published_model
import values
import walking
from every_operation import upload
from raw import Raw, request_of
from walking import ACCOUNT

SECONDS = float(os.environ.get("BELVEDERE_WALK_SECONDS", "30"))
SEED = int(os.environ.get("BELVEDERE_WALK_SEED") or random.SystemRandom().randrange(2**32))
# What is answered beside the errors that the model gives an operation: a wrong input is refused everywhere, and so is an
# identifier that is not there.
EVERYWHERE = {"ValidationException", "ResourceNotFoundException", "ThrottlingException"}
# Creating is bounded by quotas; where the model has no word for it, a conflict says so.
STATUS = {"ValidationException": 400, "AccessDeniedException": 403, "ConflictException": 409, "ResourceNotFoundException": 404,
          "ServiceQuotaExceededException": 402, "ThrottlingException": 429}
LETTERS = "abcXYZ019-_." + string.punctuation + " \t\n\r\0\x7fäß漢字🙂\u200b\u202e\ufeff"


class Fuzz:
    def __init__(self, model, seed):
        self.model, self.random = model, random.Random(seed)
        self.pool = {}  # values that were seen, by shape
        self.documents = []  # right documents

    def seen(self, shape, value):
        have = self.pool.setdefault(shape, [])
        if value not in have:
            have.append(value)
            if len(have) > 200:
                have.pop(0)

    def learn(self, name, value):
        """Remembers the identifiers in an answer."""
        shape = self.model["shapes"][name]
        if shape["type"] == "structure" and isinstance(value, dict):
            for member, place in shape["members"].items():
                if member in value:
                    self.learn(place["shape"], value[member])
                    if place["shape"].endswith("Arn"):
                        self.seen("ResourceArn", value[member])
        elif shape["type"] == "list" and isinstance(value, list):
            for one in value:
                self.learn(shape["member"]["shape"], one)
        elif shape["type"] == "string" and "enum" not in shape and isinstance(value, str):
            self.seen(name, value)

    def text(self, longest):
        count = self.random.choice([0, 1, 2, 5, 20, 200, min(longest, 300) + self.random.randrange(-1, 2)])
        return "".join(self.random.choice(LETTERS) for _ in range(max(0, count)))

    def anything(self, depth=0):
        """Any JSON at all."""
        kind = self.random.randrange(8 if depth < 4 else 6)
        return [
            lambda: None, lambda: self.random.random() < 0.5, lambda: self.random.choice([0, -1, 1, 25, 26, 2**31, 2**63, 2**64, -(2**63), 10**30]),
            lambda: self.random.choice([0.5, -0.0, 1e308, 1e-320]), lambda: self.text(50), lambda: self.random.choice(values.ODD),
            lambda: [self.anything(depth + 1) for _ in range(self.random.randrange(4))],
            lambda: {self.text(10): self.anything(depth + 1) for _ in range(self.random.randrange(4))},
        ][kind]()

    def mutated(self, document):
        """A right document with a few things in it changed, taken away or said twice."""
        document = json.loads(json.dumps(document))
        for _ in range(self.random.choice([0, 1, 1, 2, 5])):
            place, keys = document, None
            while isinstance(place, (dict, list)) and place:
                parent = place
                key = self.random.choice(list(place) if isinstance(place, dict) else range(len(place)))
                place = place[key]
                keys = (parent, key)
                if self.random.random() < 0.3:
                    break
            if keys is None:
                break
            parent, key = keys
            change = self.random.randrange(4)
            if change == 0:
                del parent[key]
            elif change == 1 and isinstance(parent, list):
                parent.append(parent[key])
            else:
                parent[key] = self.anything(2)
        return json.dumps(document)

    def value(self, name, hostile):
        """A value for a shape: mostly what is right or was seen, at times anything."""
        shape, chance = self.model["shapes"][name], self.random.random()
        if chance < hostile:
            return self.anything()
        kind = shape["type"]
        if kind == "string":
            if "enum" in shape:
                return self.random.choice(shape["enum"])
            if name.endswith("PayloadData") and chance < 0.9:
                return self.mutated(self.random.choice(self.documents))
            known = self.pool.get(name)
            if known and chance < 0.75:
                return self.random.choice(known)
            if chance < 0.95:
                return self.random.choice([c for c in values.CANDIDATES if values.is_right(shape, c)] or ["a"])
            return self.text(shape.get("max", 50))
        if kind == "integer":
            return self.random.randrange(shape.get("min", 0), shape.get("max", 100) + 1)
        if kind == "boolean":
            return self.random.random() < 0.5
        if kind == "list":
            return [self.value(shape["member"]["shape"], hostile) for _ in range(self.random.choice([0, 1, 1, 1, 2, 6]))]
        if kind == "map":
            return {str(self.value(shape["key"]["shape"], 0)): self.value(shape["value"]["shape"], hostile) for _ in range(self.random.choice([0, 1, 3]))}
        return self.structure(name, hostile)

    def structure(self, name, hostile):
        shape = self.model["shapes"][name]
        chosen = {}
        for member, place in shape["members"].items():
            if self.random.random() < (0.97 if member in shape.get("required", []) or place.get("location") == "uri" else 0.4):
                chosen[member] = self.value(place["shape"], hostile)
        if self.random.random() < hostile:
            chosen[self.text(10)] = self.anything()
        return chosen


def faults(model, name, value, at=""):
    """Everything in an answer that is not as the model says."""
    shape = model["shapes"][name]
    kind = shape["type"]
    if kind == "structure":
        if not isinstance(value, dict):
            return [f"{at}: no structure"]
        found = [f"{at}.{m}: missing" for m in shape.get("required", []) if m not in value and shape["members"][m].get("location") != "header"]
        found += [f"{at}.{m}: unknown" for m in value if m not in shape["members"]]
        return found + [f for m, v in value.items() if m in shape["members"] for f in faults(model, shape["members"][m]["shape"], v, f"{at}.{m}")]
    if kind == "list":
        low, high = values.lengths(shape)
        if not isinstance(value, list) or not low <= len(value) <= high:
            return [f"{at}: {value!r}"]
        return [f for i, v in enumerate(value) for f in faults(model, shape["member"]["shape"], v, f"{at}[{i}]")]
    if kind == "map":
        if not isinstance(value, dict):
            return [f"{at}: no map"]
        return [f for k, v in value.items() for f in faults(model, shape["key"]["shape"], k, at) + faults(model, shape["value"]["shape"], v, f"{at}.{k}")]
    if kind == "string":
        if name == "IpAddress" and "Status" in at:
            return []  # the real service broke its own pattern there
        return [] if isinstance(value, str) and values.is_right(shape, value) else [f"{at}: {value!r}"]
    if kind == "blob":
        return [] if isinstance(value, str) and base64.b64decode(value, validate=True) else [f"{at}: no base64"]
    right = {"boolean": bool, "integer": int, "timestamp": (int, float)}[kind]
    return [] if isinstance(value, right) else [f"{at}: {value!r}"]


def judged(model, name, answer):
    """What is wrong with an answer; nothing, it is hoped."""
    operation = model["operations"][name]
    if answer.status == 200:
        return faults(model, operation["output"]["shape"], answer.document)
    if answer.code not in {e["shape"] for e in operation["errors"]} | EVERYWHERE:
        return [f"an error that the model does not give {name}: {answer.code}"]
    if answer.code == "ThrottlingException":
        return [] if answer.status in (400, 429) else ["status"]
    if answer.status != STATUS.get(answer.code):
        return [f"status {answer.status} of {answer.code}"]
    return faults(model, answer.code, answer.document)


def test_values_nobody_would_think_of(w):
    print(f"        BELVEDERE_WALK_SEED={SEED}")
    model = published_model.published()
    fuzz, raw = Fuzz(model, SEED), Raw(w.service)
    place = w.folder / "project"
    place.mkdir()
    project.make(place, ACCOUNT, "CAMERA", model_bytes=1 << 17)
    fuzz.documents = [json.loads((place / f"graphs/sample/{n}.json").read_text()) for n in ("graph", "override")]
    # A world in which right values lead somewhere.
    panorama, s3 = w.boto("panorama"), w.boto("s3")
    for name in ("hall", "garden"):
        device = panorama.provision_device(Name=name)
        fuzz.seen("DeviceId", device["DeviceId"])
        fuzz.seen("DefaultRuntimeContextDevice", device["DeviceId"])
        fuzz.seen("ResourceArn", device["Arn"])
    for name in ("CODE", "MODEL"):
        made = panorama.create_package(PackageName=name)
        patch = upload(s3, made["StorageLocation"], place, name)
        panorama.register_package_version(PackageId=made["PackageId"], PackageVersion="1.0", PatchVersion=patch)
        for shape, value in {"NodePackageId": made["PackageId"], "NodePackageName": name, "NodePackagePatchVersion": patch, "NodePackageVersion": "1.0",
                             "BucketName": made["StorageLocation"]["Bucket"],
                             "ObjectKey": f"{made['StorageLocation']['ManifestPrefixLocation']}/1.0/{patch}.json"}.items():
            fuzz.seen(shape, value)
        fuzz.seen("NodePackageId", f"packageName/{name}")
    fuzz.seen("TemplateKey", "StreamUrl")
    fuzz.seen("TemplateValue", "rtsp://10.0.2.2/words")

    outcomes, wrong, recent = {}, [], []
    names = sorted(model["operations"])
    # What destroys comes less often, or nothing would be left to be wrong about.
    weights = [0.15 if n.startswith(("Delete", "Deregister", "Remove")) else 1 for n in names]
    end = time.monotonic() + SECONDS
    while time.monotonic() < end and len(wrong) < 10:
        name = fuzz.random.choices(names, weights)[0]
        shape = model["operations"][name]["input"]["shape"]
        given = fuzz.structure(shape, fuzz.random.choice([0, 0, 0.02, 0.1, 0.5]))
        method, path, body = request_of(model, name, given)
        if "{" in path or re.search(r"//|/$", path.split("?")[0]):
            continue  # no such path: the label is missing or empty
        if body and fuzz.random.random() < 0.02:
            cut = fuzz.random.randrange(len(body))
            body = body[:cut] + bytes([fuzz.random.randrange(256)]) + body[cut + fuzz.random.randrange(2):]
        recent = [*recent[-4:], f"{method} {path} {body!r}"]
        answer = raw.call(method, path, body)  # raises when the connection is dropped
        key = f"{name} {answer.status}"
        outcomes[key] = outcomes.get(key, 0) + 1
        if answer.status == 400 and answer.code == "ValidationException" and answer.document.get("Reason") == "UNKNOWN_OPERATION":
            continue
        try:
            found = judged(model, name, answer)
        except (ValueError, KeyError) as error:
            found = [repr(error)]
        if found:
            wrong.append(f"{recent[-1][:1500]}\n  -> {found}\n  -> {answer}")
        elif answer.status == 200:
            fuzz.learn(model["operations"][name]["output"]["shape"], answer.document)
    total = sum(outcomes.values())
    kinds = {}
    for key, count in outcomes.items():
        kinds[key.split()[1]] = kinds.get(key.split()[1], 0) + count
    fine = sorted({k.split()[0] for k in outcomes if k.endswith(" 200")})
    print(f"        {total} requests, {kinds}, {len(fine)} operations were answered with an output")
    assert not wrong, f"seed {SEED}: {len(wrong)} wrong\n" + "\n".join(wrong)
    log = w.service.log()
    assert "panicked" not in log and " ERROR " not in log, f"seed {SEED}\n" + "\n".join(l for l in log.splitlines() if "ERROR" in l or "panicked" in l)[:3000]
    assert total > 50 * SECONDS / 10, total
    assert len(fine) >= 12, fine
    assert raw.opened < 5, raw.opened


walking.run(globals())
