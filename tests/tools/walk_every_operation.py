"""Every operation of the API, with the last boto3 that carries the model and with the newest, which has it from us."""

import json
import pathlib
import subprocess

import walking
from newest_tools import newest
from service import BIN
from simulated_device import Device

HERE = pathlib.Path(__file__).parent


def every_operation(w, run, version):
    folder = w.folder / version
    folder.mkdir()
    made = w.boto("panorama").provision_device(Name="joined")
    Device(made["Certificates"], w.folder / "device").provision()
    outcome = json.loads(run("python3", HERE / "every_operation.py", folder, made["DeviceId"]))
    assert outcome["boto3"] == version, outcome["boto3"]
    assert set(outcome["answered"].values()) == {"answered"}, outcome
    assert sorted(outcome["answered"]) == outcome["known"] and len(outcome["known"]) == 34


def test_the_newest_boto3_calls_every_operation(w):
    # Where boto3 looks for models of others' making.
    model = w.folder / "models/panorama/2019-07-24/service-2.json"
    model.parent.mkdir(parents=True)
    model.write_bytes(subprocess.run([BIN / "belvedere-service", "model"], check=True, capture_output=True).stdout)
    every_operation(w, lambda *command: newest(w, *command, AWS_DATA_PATH=str(w.folder / "models")), "1.44.5")


def test_the_last_boto3_that_knows_panorama_calls_every_operation(w):
    w.service.end()
    w.service = type(w.service)()  # a new one: names are free again
    w.service.start()
    w.folder = w.service.folder
    every_operation(w, w.service.run, "1.40.76")


walking.run(globals())
