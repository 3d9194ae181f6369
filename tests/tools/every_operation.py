"""Every operation of the API once: `every_operation.py FOLDER DEVICE library|command-line`, keys and endpoint in the
environment. FOLDER is for a project; DEVICE has joined, and takes what is deployed. What calls is boto3, or the AWS CLI
that is found first.

Runs under any boto3 that knows the panorama model, by itself or from AWS_DATA_PATH. Prints, as JSON, the tool's version and
what each operation answered."""

import base64
import datetime
import hashlib
import json
import pathlib
import subprocess
import sys
import time

import boto3
from botocore import xform_name
from botocore.exceptions import ClientError

import project

ACCOUNT = "123456789012"


def upload(s3, place, folder, name):
    """A package's files to where CreatePackage said; the patch version."""
    document = (folder / f"packages/{ACCOUNT}-{name}-1.0/package.json").read_bytes()
    for asset in json.loads(document)["nodePackage"]["assets"]:
        for implementation in asset["implementations"]:
            for file in (implementation["assetUri"], implementation["descriptorUri"]):
                body = (folder / "assets" / file).read_bytes()
                s3.put_object(Bucket=place["Bucket"], Key=f"{place['BinaryPrefixLocation']}/{file}", Body=body)
    patch = hashlib.sha256(document).hexdigest()
    s3.put_object(Bucket=place["Bucket"], Key=f"{place['ManifestPrefixLocation']}/1.0/{patch}.json", Body=document)
    return patch


class Library:
    """boto3."""

    version = f"boto3 {boto3.__version__}"

    def __init__(self, _folder):
        self.client = boto3.client("panorama")

    def call(self, operation, arguments):
        try:
            answer = getattr(self.client, xform_name(operation))(**arguments)
        except ClientError as error:
            raise RuntimeError(f"{error} {error.response.get('Reason', '')}") from error
        answer.pop("ResponseMetadata")
        return answer


class CommandLine:
    """The AWS CLI. Its words for bytes and times become those of the library."""

    def __init__(self, folder):
        self.input = folder / "input.json"
        self.version = subprocess.run(["aws", "--version"], check=True, capture_output=True, text=True).stdout.split()[0].replace("/", " ")

    def call(self, operation, arguments):
        self.input.write_text(json.dumps(arguments))
        done = subprocess.run(["aws", "panorama", xform_name(operation, "-"), "--cli-input-json", f"file://{self.input}"],
                              capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(done.stderr)
        answer = json.loads(done.stdout or "{}")
        if "Certificates" in answer:
            answer["Certificates"] = base64.b64decode(answer["Certificates"])
        if isinstance(made := answer.get("CreatedTime"), str):
            answer["CreatedTime"] = datetime.datetime.fromisoformat(made)
        elif made is not None:
            answer["CreatedTime"] = datetime.datetime.fromtimestamp(made)
        return answer


def main(folder, joined, tool):
    panorama, s3 = boto3.client("panorama"), boto3.client("s3")
    answered = {}

    def call(operation, **arguments):
        try:
            answer = tool.call(operation, arguments)
            answered[operation] = "answered"
            return answer
        except RuntimeError as error:
            answered[operation] = str(error)
            raise

    def wait(operation, wanted, **arguments):
        end = time.monotonic() + 60
        while (answer := call(operation, **arguments))["Status"] != wanted:
            assert time.monotonic() < end and answer["Status"] == "PENDING", answer
            time.sleep(0.2)
        return answer

    # Devices.
    device = call("ProvisionDevice", Name="everything", Tags={"place": "here"})
    assert device["Certificates"][:2] == b"PK" and device["Status"] == "AWAITING_PROVISIONING"
    call("UpdateDeviceMetadata", DeviceId=device["DeviceId"], Description="by the gate")
    described = call("DescribeDevice", DeviceId=device["DeviceId"])
    assert described["Description"] == "by the gate" and described["CreatedTime"].year > 2020
    assert "everything" in [d["Name"] for d in call("ListDevices", SortBy="NAME")["Devices"]]
    call("TagResource", ResourceArn=device["Arn"], Tags={"floor": "2"})
    call("UntagResource", ResourceArn=device["Arn"], TagKeys=["place"])
    assert call("ListTagsForResource", ResourceArn=device["Arn"])["Tags"] == {"floor": "2"}

    # Packages: two that a person uploads, one that is imported, one from a template.
    patches = {}
    for name in ("CODE", "MODEL"):
        made = call("CreatePackage", PackageName=name)
        patches[name] = upload(s3, made["StorageLocation"], folder, name)
        call("RegisterPackageVersion", PackageId=made["PackageId"], PackageVersion="1.0", PatchVersion=patches[name])
        version = call("DescribePackageVersion", PackageId=f"packageName/{name}", PackageVersion="1.0")
        assert version["Status"] == "REGISTER_COMPLETED" and version["PatchVersion"] == patches[name], version
        assert call("DescribePackage", PackageId=made["PackageId"])["PackageName"] == name
    assert {"CODE", "MODEL"} <= {p["PackageName"] for p in call("ListPackages")["Packages"]}
    job = call("CreateNodeFromTemplateJob", TemplateType="RTSP_CAMERA_STREAM", OutputPackageName="CAMERA", OutputPackageVersion="1.0",
               NodeName="CAMERA", TemplateParameters={"StreamUrl": "rtsp://10.0.2.2:8554/words"})["JobId"]
    wait("DescribeNodeFromTemplateJob", "SUCCEEDED", JobId=job)
    assert job in {j["JobId"] for j in call("ListNodeFromTemplateJobs")["NodeFromTemplateJobs"]}
    camera = [n for n in call("ListNodes", Category="MEDIA_SOURCE")["Nodes"] if n["Name"] == "CAMERA"]
    assert call("DescribeNode", NodeId=camera[0]["NodeId"])["NodeInterface"]["Outputs"][0]["Type"] == "MEDIA"

    # An application.
    graph = (folder / "graphs/sample/graph.json").read_text()
    overrides = (folder / "graphs/sample/override.json").read_text()
    instance = call("CreateApplicationInstance", Name="words", DefaultRuntimeContextDevice=joined,
                    ManifestPayload={"PayloadData": graph}, ManifestOverridesPayload={"PayloadData": overrides})["ApplicationInstanceId"]
    one = {"ApplicationInstanceId": instance}
    assert call("DescribeApplicationInstance", **one)["Name"] == "words"
    assert json.loads(call("DescribeApplicationInstanceDetails", **one)["ManifestPayload"]["PayloadData"]) == json.loads(graph)
    assert instance in {i["ApplicationInstanceId"] for i in call("ListApplicationInstances")["ApplicationInstances"]}
    assert "CODE" in {p["Name"] for p in call("ListApplicationInstanceDependencies", **one)["PackageObjects"]}
    nodes = call("ListApplicationInstanceNodeInstances", **one)["NodeInstances"]
    front = next(n["NodeInstanceId"] for n in nodes if n["PackageName"] == "CAMERA")
    call("SignalApplicationInstanceNodeInstances", **one, NodeSignals=[{"NodeInstanceId": front, "Signal": "PAUSE"}])

    # Jobs.
    job = call("CreateJobForDevices", DeviceIds=[joined], JobType="REBOOT")["Jobs"][0]["JobId"]
    assert call("DescribeDeviceJob", JobId=job)["JobType"] == "REBOOT"
    assert [j["JobId"] for j in call("ListDevicesJobs", DeviceId=joined)["DeviceJobs"]] == [job]

    # An import: the package's document lies in a bucket.
    place = panorama.describe_package(PackageId="packageName/CODE")["StorageLocation"]
    imported = call(
        "CreatePackageImportJob", ClientToken="every-operation", JobType="NODE_PACKAGE_VERSION",
        InputConfig={"PackageVersionInputConfig": {"S3Location": {
            "BucketName": place["Bucket"], "ObjectKey": f"{place['ManifestPrefixLocation']}/1.0/{patches['CODE']}.json"}}},
        OutputConfig={"PackageVersionOutputConfig": {"PackageName": "CODE", "PackageVersion": "1.0", "MarkLatest": True}})["JobId"]
    assert call("DescribePackageImportJob", JobId=imported)["JobType"] == "NODE_PACKAGE_VERSION"
    assert imported in {j["JobId"] for j in call("ListPackageImportJobs")["PackageImportJobs"]}

    # And all of it away again.
    call("RemoveApplicationInstance", **one)
    call("DeregisterPackageVersion", PackageId="packageName/CAMERA", PackageVersion="1.0", PatchVersion=camera[0]["PatchVersion"])
    call("DeletePackage", PackageId="packageName/MODEL", ForceDelete=True)
    call("DeleteDevice", DeviceId=device["DeviceId"])
    return answered, panorama.meta.service_model.operation_names


if __name__ == "__main__":
    place = pathlib.Path(sys.argv[1])
    project.make(place, ACCOUNT, "CAMERA", model_bytes=1 << 17)
    tool = {"library": Library, "command-line": CommandLine}[sys.argv[3]](place)
    answered, known = main(place, sys.argv[2], tool)
    print(json.dumps({"tool": tool.version, "known": sorted(known), "answered": answered}))
