"""The service's own model against the published one, and the tools of today with nothing but our model."""

import json
import subprocess

import published_model
import walking
from newest_tools import newest
from service import BIN

# Bounds that the published model lacks.
OWN_BOUNDS = {"DnsList", "JobTagsList", "NodeSignalList", "TemplateParametersMap", "NameFilter"}


def test_nothing_of_the_published_model_is_missing_or_looser(w):
    wanted = published_model.published()
    wanted = {k: published_model.without_documentation(wanted[k]) for k in ("operations", "shapes")}
    w.model = published_model.ours()
    have = {k: published_model.without_documentation(w.model[k]) for k in ("operations", "shapes")}
    assert len(wanted["operations"]) == 34 and len(wanted["shapes"]) > 230
    wrong = published_model.departures(wanted, have)
    assert not wrong, "\n".join(wrong)
    assert published_model.additions(wanted, have) == []
    assert published_model.narrower(wanted, have) == OWN_BOUNDS, published_model.narrower(wanted, have)


def test_the_comparison_finds_what_is_looser(w):
    wanted = published_model.published()
    wanted = {k: published_model.without_documentation(wanted[k]) for k in ("operations", "shapes")}
    for change in (
        lambda m: m["shapes"]["DeviceId"].pop("pattern"),
        lambda m: m["shapes"]["DeviceId"].update(max=256),
        lambda m: m["shapes"]["TagMap"].pop("max"),
        lambda m: m["shapes"]["DeviceStatus"]["enum"].pop(),
        lambda m: m["shapes"]["NodeInterface"]["required"].pop(),
        lambda m: m["shapes"]["ListNodesRequest"]["members"]["MaxResults"].update(locationName="MaxResults"),
        lambda m: m["operations"]["TagResource"]["errors"].pop(),
        lambda m: m["operations"].pop("TagResource"),
        lambda m: m["shapes"]["ConflictException"]["error"].update(httpStatusCode=400),
    ):
        changed = json.loads(json.dumps(w.model))
        change(changed)
        changed = {k: published_model.without_documentation(changed[k]) for k in ("operations", "shapes")}
        assert len(published_model.departures(wanted, changed)) == 1, published_model.departures(wanted, changed)


def test_the_newest_cli_takes_our_model(w):
    error = newest(w, "aws", "panorama", "list-devices", fails=True)
    assert "invalid choice" in error.lower() or "argument" in error.lower(), error  # it does not know Panorama by itself
    printed = w.folder / "panorama.json"
    printed.write_bytes(subprocess.run([BIN / "belvedere-service", "model"], check=True, capture_output=True).stdout)
    newest(w, "aws", "configure", "add-model", "--service-model", f"file://{printed}")
    assert json.loads(newest(w, "aws", "panorama", "list-devices")) == {"Devices": []}


def test_the_newest_cli_works(w):
    aws = lambda *arguments, **options: newest(w, "aws", "panorama", *arguments, **options)
    made = json.loads(aws("provision-device", "--name", "hall", "--tags", "place=hall"))
    assert made["Status"] == "AWAITING_PROVISIONING" and made["Certificates"].startswith("UEs"), made
    described = json.loads(aws("describe-device", "--device-id", made["DeviceId"]))
    assert described["Name"] == "hall" and described["Tags"] == {"place": "hall"}
    assert aws("list-devices", "--query", "Devices[].Name", "--output", "text").strip() == "hall"
    place = json.loads(aws("create-package", "--package-name", "HALL"))["StorageLocation"]
    assert place["ManifestPrefixLocation"].endswith("HALL/manifests")
    assert "ConflictException" in aws("create-package", "--package-name", "HALL", fails=True)
    assert "regular expression" in aws("provision-device", "--name", "bad name!", fails=True)
    assert "ResourceNotFoundException" in aws("describe-device", "--device-id", "device-none", fails=True)
    assert "provision-device" in aws("help")
    aws("delete-device", "--device-id", made["DeviceId"])


walking.run(globals())
