"""Every operation of the API once, as a client of boto3's: `every_operation.py FOLDER DEVICE`, keys and endpoint in the
environment. FOLDER is for a project; DEVICE has joined, and takes what is deployed.

Runs under any boto3 that knows the panorama model, by itself or from AWS_DATA_PATH. Prints, as JSON, boto3's version and what
each operation answered."""

import hashlib
import json
import pathlib
import sys
import time

import boto3
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


def main(folder, joined):
    panorama, s3 = boto3.client("panorama"), boto3.client("s3")
    answered = {}

    def call(operation, **arguments):
        method = "".join("_" + c.lower() if c.isupper() else c for c in operation).lstrip("_")
        try:
            answer = getattr(panorama, method)(**arguments)
            answer.pop("ResponseMetadata")
            answered[operation] = "answered"
            return answer
        except ClientError as error:
            answered[operation] = f"{error.response['Error']['Code']} {error.response.get('Reason', '')}: {error.response['Error']['Message']}"
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
    answered, known = main(place, sys.argv[2])
    print(json.dumps({"boto3": boto3.__version__, "known": sorted(known), "answered": answered}))
