"""Every operation of the API, with the last tools that carry the model (boto3, AWS CLI) and with the newest, which have it
from us."""

import json
import pathlib
import subprocess

import walking
from newest_tools import newest
from service import BIN
from simulated_device import Device

HERE = pathlib.Path(__file__).parent


def every_operation(w, run, kind, version):
    folder = w.folder / kind
    folder.mkdir()
    made = w.boto("panorama").provision_device(Name="joined")
    Device(made["Certificates"], w.folder / "device").provision()
    outcome = json.loads(run("python3", HERE / "every_operation.py", folder, made["DeviceId"], kind))
    assert outcome["tool"] == version, outcome["tool"]
    assert set(outcome["answered"].values()) == {"answered"}, outcome
    assert sorted(outcome["answered"]) == outcome["known"] and len(outcome["known"]) == 34


def with_the_newest(w, kind, version):
    printed = w.folder / "panorama.json"
    printed.write_bytes(subprocess.run([BIN / "belvedere-service", "model"], check=True, capture_output=True).stdout)
    # Where the CLI and boto3 both look for models of others' making.
    newest(w, "aws", "configure", "add-model", "--service-model", f"file://{printed}")
    every_operation(w, lambda *command: newest(w, *command), kind, version)


def begin_anew(w):
    """A new service: names are free again."""
    w.service.end()
    w.service = type(w.service)()
    w.service.start()
    w.folder = w.service.folder


def test_the_newest_boto3_calls_every_operation(w):
    with_the_newest(w, "library", "boto3 1.44.5")


def test_the_newest_cli_calls_every_operation(w):
    begin_anew(w)
    with_the_newest(w, "command-line", "aws-cli 1.46.3")


def test_the_last_boto3_that_knows_panorama_calls_every_operation(w):
    begin_anew(w)
    every_operation(w, w.service.run, "library", "boto3 1.40.76")


def test_the_last_cli_that_knows_panorama_calls_every_operation(w):
    begin_anew(w)
    every_operation(w, w.service.run, "command-line", "aws-cli 1.42.76")


walking.run(globals())
