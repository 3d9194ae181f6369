"""Every one of Panorama's 34 operations with boto3, most of them with the AWS CLI too, and their modelled errors: not
found, conflict, quota, too many requests. The last test counts the operations that were really called."""

import base64
import hashlib
import io
import json
import re
import tarfile
import time

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from simulated_device import Device
from service import Service
from walking import ACCOUNT, Walk, refused, run, waits

LIMITS = {
    "devices": 4, "packages": 8, "versions_per_package": 3, "applications_per_device": 2, "cameras_per_application": 2,
    "deployments_per_device_per_day": 8, "requests_per_second": "unlimited", "changes_per_second": "unlimited",
}


class Operations(Walk):
    """A walk whose service has small limits, and which notes what is called."""

    def __init__(self):
        self.service = Service(limits=LIMITS)
        self.service.start()
        self.folder = self.service.folder
        self.called = set()
        self.panorama = self.client()
        self.s3 = self.boto("s3")

    def client(self, **options):
        client = self.boto("panorama", **options)
        client.meta.events.register("before-call.panorama", lambda model, **_: self.called.add(model.name))
        return client

    def cli(self, *arguments, **options):
        return self.service.aws("panorama", *arguments, **options)

    def upload(self, package, version, document, files=()):
        """A package's document and files, where registration looks for them; its patch version."""
        location = self.panorama.describe_package(PackageId=f"packageName/{package}")["StorageLocation"]
        body = json.dumps(document).encode()
        patch = hashlib.sha256(body).hexdigest()
        for name, content in files:
            self.s3.put_object(Bucket=location["Bucket"], Key=f"{location['BinaryPrefixLocation']}/{name}", Body=content)
        self.s3.put_object(Bucket=location["Bucket"], Key=f"{location['ManifestPrefixLocation']}/{version}/{patch}.json", Body=body)
        return patch

    def register(self, package, version, patch, **options):
        self.panorama.register_package_version(
            PackageId=f"packageName/{package}", PackageVersion=version, PatchVersion=patch, **options)
        return self.panorama.describe_package_version(
            PackageId=f"packageName/{package}", PackageVersion=version, PatchVersion=patch)


def code_package(name, note=""):
    """A package of one container, with its files."""
    tarball, descriptor = b"\x1f\x8b" + note.encode(), json.dumps({"runtimeDescriptor": {
        "envelopeVersion": "2021-01-01", "entry": {"path": "python3", "name": "/panorama/app.py"}}}).encode()
    files = [(hashlib.sha256(content).hexdigest() + ending, content) for content, ending in ((tarball, ".tar.gz"), (descriptor, ".json"))]
    document = {"nodePackage": {
        "envelopeVersion": "2021-01-01", "name": name, "version": "1.0", "description": note or "Code.",
        "assets": [{"name": "code_asset", "implementations": [
            {"type": "container", "assetUri": files[0][0], "descriptorUri": files[1][0]}]}],
        "interfaces": [{"name": "interface", "category": "business_logic", "asset": "code_asset",
                        "inputs": [{"name": "video_in", "type": "media"}], "outputs": [{"name": "video_out", "type": "media"}]}]}}
    return document, files


def quota(call, code, **arguments):
    error = refused("ServiceQuotaExceededException", call, **arguments)
    assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 402
    assert (error.response["QuotaCode"], error.response["ServiceCode"]) == (code, "panorama"), error.response


def test_devices(w):
    p = w.panorama
    w.archive = base64.b64decode(w.cli("provision-device", "--name", "gate-1", "--output", "text", "--query", "Certificates"))
    made = {"gate-1": None}
    for name in ("yard", "gate-2", "attic"):
        made[name] = p.provision_device(Name=name, Tags={"n": name})["DeviceId"]
    error = refused("ConflictException", p.provision_device, Name="yard")
    assert error.response["ResourceType"] == "DEVICE" and error.response["ResourceId"] == "yard"
    quota(p.provision_device, "devices", Name="one-too-many")
    assert "maximum number of devices" in w.cli("provision-device", "--name", "x", fails=True)
    names = lambda **options: [d["Name"] for d in p.list_devices(**options)["Devices"]]
    assert names() == names(MaxResults=0) == ["attic", "gate-2", "yard", "gate-1"]  # newest first
    assert names(SortBy="CREATED_TIME") == ["gate-1", "yard", "gate-2", "attic"]  # a sort without an order goes upward
    assert names(SortBy="NAME") == ["attic", "gate-1", "gate-2", "yard"]
    assert names(SortBy="NAME", SortOrder="DESCENDING") == ["yard", "gate-2", "gate-1", "attic"]
    assert names(SortOrder="ASCENDING") == ["gate-1", "yard", "gate-2", "attic"]
    assert names(SortBy="DEVICE_AGGREGATED_STATUS") == ["gate-1", "yard", "gate-2", "attic"]  # all alike: by creation
    assert names(NameFilter="gate") == ["gate-2", "gate-1"] and names(NameFilter="ate") == []
    assert names(DeviceAggregatedStatusFilter="AWAITING_PROVISIONING") == names() and names(DeviceAggregatedStatusFilter="ONLINE") == []
    pages, token = [], None
    while True:
        page = p.list_devices(MaxResults=1, **({"NextToken": token} if token else {}))
        pages += [d["Name"] for d in page["Devices"]]
        token = page.get("NextToken")
        if not token:
            break
        assert re.fullmatch("[A-Za-z0-9_-]+", token)
        if len(pages) == 2:  # what a page showed may be deleted before the next one is asked for
            p.delete_device(DeviceId=made["gate-2"])
    assert pages == ["attic", "gate-2", "yard", "gate-1"], pages
    refused("ValidationException", p.list_devices, NextToken="not-ours")
    refused("ResourceNotFoundException", p.delete_device, DeviceId=made["gate-2"])

    w.device = Device(w.archive, w.folder / "gate-1")
    w.device.provision()
    w.device_id = w.device.configuration["device_id"]
    refused("ResourceNotFoundException", p.update_device_metadata, DeviceId="device-none", Description="x")
    refused("ResourceNotFoundException", p.update_device_metadata, DeviceId="device-none")
    assert p.update_device_metadata(DeviceId=w.device_id)["DeviceId"] == w.device_id  # nothing to change
    assert w.cli("update-device-metadata", "--device-id", w.device_id, "--description", "by the gate") == {"DeviceId": w.device_id}
    described = p.describe_device(DeviceId=w.device_id)
    assert described["Description"] == "by the gate" and described["ProvisioningStatus"] == "SUCCEEDED"
    p.update_device_metadata(DeviceId=w.device_id, Description="")
    assert w.cli("describe-device", "--device-id", w.device_id).get("Description", "") == ""


def test_packages(w):
    p = w.panorama
    made = w.cli("create-package", "--package-name", "CODE")
    w.code_id = made["PackageId"]
    error = refused("ConflictException", p.create_package, PackageName="CODE")
    assert error.response["ResourceType"] == "PACKAGE"
    document, files = code_package("CODE")
    w.patches = [w.upload("CODE", "1.0", document, files)]
    first = w.register("CODE", "1.0", w.patches[0])
    assert (first["Status"], first["IsLatestPatch"], first["OwnerAccount"]) == ("REGISTER_COMPLETED", True, ACCOUNT), first
    for note in ("second", "third"):
        document, files = code_package("CODE", note)
        w.patches.append(w.upload("CODE", "1.0", document, files))
    assert not w.register("CODE", "1.0", w.patches[1])["IsLatestPatch"]
    assert w.register("CODE", "1.0", w.patches[2], MarkLatest=True)["IsLatestPatch"]
    document, files = code_package("CODE", "fourth")
    fourth = w.upload("CODE", "1.0", document, files)
    # The model of this operation has no quota error: the text of the guide, as a conflict.
    error = refused("ConflictException", p.register_package_version, PackageId=w.code_id, PackageVersion="1.0", PatchVersion=fourth)
    text = "You've reached the maximum number of versions for package CODE. Deregister unused package versions and try again."
    assert error.response["Error"]["Message"] == text, error
    w.register("CODE", "1.0", w.patches[2])  # again: no further version
    refused("ResourceNotFoundException", p.deregister_package_version, PackageId=w.code_id, PackageVersion="1.0", PatchVersion=fourth)
    w.cli("deregister-package-version", "--package-id", "packageName/CODE", "--package-version", "1.0", "--patch-version", w.patches[2],
          "--updated-latest-patch-version", w.patches[0])
    assert p.describe_package_version(PackageId=w.code_id, PackageVersion="1.0")["PatchVersion"] == w.patches[0]
    refused("ResourceNotFoundException", p.describe_package_version, PackageId=w.code_id, PackageVersion="2.0")
    refused("ResourceNotFoundException", p.describe_package, PackageId="packageName/NONE")
    built_in = p.describe_package_version(PackageId="packageName/hdmi_data_sink", PackageVersion="1.0", OwnerAccount="panorama")
    assert (built_in["PackageName"], built_in["OwnerAccount"], built_in["Status"]) == ("hdmi_data_sink", "panorama", "REGISTER_COMPLETED")
    refused("ResourceNotFoundException", p.describe_package_version, PackageId="packageName/CODE", PackageVersion="1.0", OwnerAccount="panorama")
    assert [q["PackageName"] for q in w.cli("list-packages")["Packages"]] == ["CODE"]


def test_nodes(w):
    p = w.panorama
    node = f"CODE-1.0-{w.patches[0][:8]}-interface"
    assert [n["NodeId"] for n in p.list_nodes(PackageName="CODE")["Nodes"]] == [node]
    described = w.cli("describe-node", "--node-id", node)
    assert (described["Category"], described["AssetName"], described["PackageId"]) == ("BUSINESS_LOGIC", "code_asset", w.code_id)
    assert described["NodeInterface"]["Inputs"][0]["Name"] == "video_in" and described["NodeInterface"]["Outputs"][0]["Type"] == "MEDIA"
    assert described["PackageArn"].endswith(f":package/{w.code_id}") and described["Description"] == ""
    assert p.describe_node(NodeId=node, OwnerAccount=ACCOUNT)["NodeId"] == node
    refused("ResourceNotFoundException", p.describe_node, NodeId=node, OwnerAccount="panorama")
    refused("ResourceNotFoundException", p.describe_node, NodeId="none-1.0-abc-x")
    for listed in p.list_nodes(OwnerAccount="panorama")["Nodes"]:
        assert p.describe_node(NodeId=listed["NodeId"])["OwnerAccount"] == "panorama"


def test_cameras_from_templates(w):
    p = w.panorama
    for name in ("FRONT", "BACK", "SIDE"):
        ask = dict(TemplateType="RTSP_CAMERA_STREAM", OutputPackageName=name, OutputPackageVersion="1.0", NodeName=name,
                   TemplateParameters={"StreamUrl": f"rtsp://10.0.2.2/{name}"})
        w.template_job = p.create_node_from_template_job(**ask)["JobId"]
    listed = w.cli("list-node-from-template-jobs")["NodeFromTemplateJobs"]
    assert [j["NodeName"] for j in listed] == ["SIDE", "BACK", "FRONT"] and listed[0]["JobId"] == w.template_job, listed
    page = p.list_node_from_template_jobs(MaxResults=2)
    assert [j["NodeName"] for j in p.list_node_from_template_jobs(MaxResults=2, NextToken=page["NextToken"])["NodeFromTemplateJobs"]] == ["FRONT"]
    done = lambda: p.describe_node_from_template_job(JobId=w.template_job)["Status"] == "SUCCEEDED"
    waits("the job", done, 8)
    refused("ResourceNotFoundException", p.describe_node_from_template_job, JobId="none")


def archive(document, files, gzip=True):
    body = io.BytesIO()
    with tarfile.open(fileobj=body, mode="w:gz" if gzip else "w") as tar:
        for name, content in [("packages/some/package.json", json.dumps(document, indent=2).encode())] + [("assets/" + n, c) for n, c in files]:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return body.getvalue()


def test_package_import(w):
    p = w.panorama
    bucket = p.describe_package(PackageId="packageName/CODE")["StorageLocation"]["Bucket"]
    document, files = code_package("IMPORTED", "imported")
    put = lambda key, body: w.s3.put_object(Bucket=bucket, Key=key, Body=body)
    put("imports/good.tar.gz", archive(document, files))

    def ask(token, key, **changes):
        return dict(
            ClientToken=token, JobType="NODE_PACKAGE_VERSION",
            InputConfig={"PackageVersionInputConfig": {"S3Location": {"BucketName": bucket, "ObjectKey": key}}},
            OutputConfig={"PackageVersionOutputConfig": {"PackageName": "IMPORTED", "PackageVersion": "1.0", "MarkLatest": True, **changes}})

    good = ask("token-1", "imports/good.tar.gz")
    refused("ValidationException", p.create_package_import_job, **{**good, "JobType": "MARKETPLACE_NODE_PACKAGE_VERSION"})
    refused("ValidationException", p.create_package_import_job, **{**good, "InputConfig": {}})
    refused("ValidationException", p.create_package_import_job, **{**good, "OutputConfig": {}})
    refused("ValidationException", p.create_package_import_job, **ask("token-0", "imports/none.tar.gz"))
    job = p.create_package_import_job(**good, JobTags=[{"ResourceType": "PACKAGE", "Tags": {"from": "import"}}])["JobId"]
    described = w.cli("describe-package-import-job", "--job-id", job)
    assert (described["Status"], described["StatusMessage"], described["ClientToken"]) == ("SUCCEEDED", "", "token-1"), described
    output = described["Output"]
    version = p.describe_package_version(PackageId=output["PackageId"], PackageVersion="1.0")
    assert version["PatchVersion"] == output["PatchVersion"] and version["Status"] == "REGISTER_COMPLETED", version
    assert p.describe_package(PackageId=output["PackageId"])["Tags"] == {"from": "import"}
    body = w.s3.get_object(Bucket=output["OutputS3Location"]["BucketName"], Key=output["OutputS3Location"]["ObjectKey"])["Body"].read()
    assert json.loads(body) == document and hashlib.sha256(body).hexdigest() == output["PatchVersion"]

    again = json.dumps(good["InputConfig"]), json.dumps(good["OutputConfig"])
    command = ("create-package-import-job", "--job-type", "NODE_PACKAGE_VERSION", "--input-config", again[0], "--output-config", again[1],
               "--job-tags", json.dumps([{"ResourceType": "PACKAGE", "Tags": {"from": "import"}}]), "--client-token")
    assert w.cli(*command, "token-1")["JobId"] == job, "the same token and request are the same job"
    error = refused("ConflictException", p.create_package_import_job, **{**ask("token-1", "imports/good.tar.gz"), "JobType": "NODE_PACKAGE_VERSION"})
    assert error.response["ResourceId"] == job
    refused("ResourceNotFoundException", p.describe_package_import_job, JobId="none")

    other = (files[0][0], b"something else")
    bad = {
        "bomb.tar.gz": (b"\x1f\x8b garbage", "refused"), "empty": (b"", "refused"),
        "without.tar": (archive(document, files[:1], gzip=False), "is not in the archive"),
        "false.tar": (archive(document, [other, files[1]], gzip=False), "is not what its name says"),
        "other.tar": (archive(code_package("OTHER")[0], code_package("OTHER")[1], gzip=False), "OTHER"),
        "twice.tar": (archive(document, files + files[:1], gzip=False), "twice"),
    }
    objects = lambda: {o["Key"] for o in w.s3.list_objects_v2(Bucket=bucket)["Contents"]}
    for number, (key, (body, message)) in enumerate(bad.items()):
        put("imports/" + key, body)
        before = objects()
        job = p.create_package_import_job(**ask(f"bad-{number}", "imports/" + key))["JobId"]
        described = p.describe_package_import_job(JobId=job)
        assert described["Status"] == "FAILED" and message in described["StatusMessage"], described
        assert objects() == before, "a refused archive leaves nothing"
    listed = w.cli("list-package-import-jobs")["PackageImportJobs"]
    assert len(listed) == 7 and [j["Status"] for j in listed].count("SUCCEEDED") == 1 and listed[-1]["Status"] == "SUCCEEDED"
    assert len(p.list_package_import_jobs(MaxResults=3)["PackageImportJobs"]) == 3


def application(cameras, pause=()):
    """A graph of one code node, and overrides that give it these cameras."""
    graph = {"nodeGraph": {
        "envelopeVersion": "2021-01-01",
        "packages": [{"name": f"{ACCOUNT}::CODE", "version": "1.0"}, {"name": "panorama::abstract_rtsp_media_source", "version": "1.0"},
                     {"name": "panorama::hdmi_data_sink", "version": "1.0"}],
        "nodes": [{"name": "code_node", "interface": f"{ACCOUNT}::CODE.interface"},
                  {"name": "camera_node", "interface": "panorama::abstract_rtsp_media_source.rtsp_v1_interface", "overridable": True},
                  {"name": "output_node", "interface": "panorama::hdmi_data_sink.hdmi0"}],
        "edges": [{"producer": "camera_node.video_out", "consumer": "code_node.video_in"},
                  {"producer": "code_node.video_out", "consumer": "output_node.video_in"}]}}
    overrides = {"nodeGraphOverrides": {
        "envelopeVersion": "2021-01-01",
        "packages": [{"name": f"{ACCOUNT}::{c}", "version": "1.0"} for c in cameras],
        "nodes": [{"name": c.lower(), "interface": f"{ACCOUNT}::{c}.{c}", "launch": "onSignal" if c in pause else "onAppStart"} for c in cameras],
        "nodeOverrides": [{"replace": "camera_node", "with": [{"name": c.lower()} for c in cameras]}]}}
    return {"ManifestPayload": {"PayloadData": json.dumps(graph)}, "ManifestOverridesPayload": {"PayloadData": json.dumps(overrides)}}


def test_application_instances(w):
    p = w.panorama
    w.link = w.device.link()
    assert w.link.subscribe(f"$aws/things/{w.device.thing}/shadow/#")
    create = lambda **arguments: p.create_application_instance(DefaultRuntimeContextDevice=w.device_id, **arguments)["ApplicationInstanceId"]
    quota(create, "cameras_per_application", **application(["FRONT", "BACK", "SIDE"]))
    w.instance = create(Name="words", Tags={"a": "1"}, **application(["FRONT", "BACK", "SIDE"], pause=["SIDE"]))
    details = w.cli("describe-application-instance-details", "--application-instance-id", w.instance)
    assert details["ManifestPayload"] == application([])["ManifestPayload"] and details["Name"] == "words"
    depends = w.cli("list-application-instance-dependencies", "--application-instance-id", w.instance)["PackageObjects"]
    assert [d["Name"] for d in depends] == ["BACK", "CODE", "FRONT", "SIDE", "hdmi_data_sink"], depends
    assert next(d for d in depends if d["Name"] == "CODE") == {"Name": "CODE", "PackageVersion": "1.0", "PatchVersion": w.patches[0]}
    assert len(p.list_application_instance_dependencies(ApplicationInstanceId=w.instance, MaxResults=2)["PackageObjects"]) == 2
    for call in (p.describe_application_instance, p.describe_application_instance_details, p.list_application_instance_dependencies,
                 p.list_application_instance_node_instances, p.remove_application_instance):
        refused("ResourceNotFoundException", call, ApplicationInstanceId="applicationInstance-none")
    assert w.cli("list-application-instance-node-instances", "--application-instance-id", w.instance)["NodeInstances"]

    second = create(**application(["FRONT"]))
    quota(create, "applications_per_device", **application(["FRONT"]))
    # Who takes another's place needs no new one.
    third = create(ApplicationInstanceIdToReplace=second, **application(["BACK"]))
    described = p.describe_application_instance(ApplicationInstanceId=third)
    assert described["ApplicationInstanceIdToReplace"] == second
    assert p.describe_application_instance(ApplicationInstanceId=second)["Status"] == "REMOVAL_REQUESTED"
    desired = lambda: w.link.ask(w.device.shadow("applications", "get"), "")["state"]["desired"]["instances"]
    assert set(desired()) == {w.instance, third}
    refused("ValidationException", create, ApplicationInstanceIdToReplace=second, **application(["BACK"]))
    refused("ValidationException", create, ApplicationInstanceIdToReplace="applicationInstance-none", **application(["BACK"]))
    listed = [i["ApplicationInstanceId"] for i in p.list_application_instances(DeviceId=w.device_id)["ApplicationInstances"]]
    assert listed == [third, second, w.instance]  # newest first
    assert [i["ApplicationInstanceId"] for i in w.cli("list-application-instances", "--status-filter", "PROCESSING_REMOVAL")["ApplicationInstances"]] == [second]
    for _ in range(LIMITS["deployments_per_device_per_day"] - 3):
        third = create(ApplicationInstanceIdToReplace=third, **application(["BACK"]))
    quota(create, "deployments_per_device_per_day", ApplicationInstanceIdToReplace=third, **application(["BACK"]))
    w.cli("remove-application-instance", "--application-instance-id", third)
    p.remove_application_instance(ApplicationInstanceId=third)  # asking twice is asking once
    w.gone = third
    assert set(desired()) == {w.instance}


def test_signals(w):
    p = w.panorama
    signal = lambda node, word, instance=None: p.signal_application_instance_node_instances(
        ApplicationInstanceId=instance or w.instance, NodeSignals=[{"NodeInstanceId": node, "Signal": word}])
    shadow = lambda: w.link.ask(w.device.shadow("applications", "get"), "")["state"]["desired"]["instances"][w.instance]
    before = shadow()
    assert "signals" not in before
    for call in (lambda: signal("code_node", "PAUSE"), lambda: signal("nobody", "PAUSE"), lambda: signal("front", "STOP"),
                 lambda: signal("front", "PAUSE", "applicationInstance-none"), lambda: signal("back", "PAUSE", w.gone)):
        refused("ValidationException", call)
    quota(lambda: signal("side", "RESUME"), "cameras_per_application")
    answered = w.cli("signal-application-instance-node-instances", "--application-instance-id", w.instance,
                     "--node-signals", json.dumps([{"NodeInstanceId": "FRONT", "Signal": "PAUSE"}]))  # the package's name
    assert answered == {"ApplicationInstanceId": w.instance}
    signal("side", "RESUME")  # there is room now
    now = shadow()
    assert now.pop("signals") == {"front": "PAUSE", "side": "RESUME"} and now == before, "nothing is deployed anew"

    report = {"application_instance_id": w.instance, "sha256": before["sha256"], "status": "DEPLOYMENT_SUCCEEDED", "status_description": "",
              "health": "RUNNING", "device_reported_status": "RUNNING", "nodes": [
                  {"node": n, "status": s, "detail": ""} for n, s in (("front", "PAUSED"), ("back", "RUNNING"), ("side", "RUNNING"))]}
    w.link.ask(w.device.shadow("applications", "update"), {"state": {"reported": {"instances": {w.instance: report}}}})
    nodes = p.list_application_instance_node_instances(ApplicationInstanceId=w.instance)["NodeInstances"]
    assert {n["NodeInstanceId"]: n["CurrentStatus"] for n in nodes}["front"] == "PAUSED"
    assert len(p.list_application_instance_node_instances(ApplicationInstanceId=w.instance, MaxResults=2)["NodeInstances"]) == 2

    # The last word lasts, whatever happens to the service.
    assert w.service.stop() == 0
    w.service.start()
    w.panorama, w.s3 = w.client(), w.boto("s3")
    w.link = w.device.link()
    assert w.link.subscribe(f"$aws/things/{w.device.thing}/shadow/#")
    assert shadow()["signals"] == {"front": "PAUSE", "side": "RESUME"}


def test_tags(w):
    p = w.panorama
    arn = lambda kind, id: f"arn:aws:panorama:us-east-1:{ACCOUNT}:{kind}/{id}"
    for kind, id, tags in (("device", w.device_id, {}), ("package", w.code_id, {}), ("applicationInstance", w.instance, {"a": "1"})):
        resource = arn(kind, id)
        assert p.list_tags_for_resource(ResourceArn=resource)["Tags"] == tags
        p.tag_resource(ResourceArn=resource, Tags={"place": "gate", "a": "2"})
        assert w.cli("list-tags-for-resource", "--resource-arn", resource)["Tags"] == {"place": "gate", "a": "2"}
        w.cli("untag-resource", "--resource-arn", resource, "--tag-keys", "a", "never-there")
        p.untag_resource(ResourceArn=resource, TagKeys=["never-there"])
        assert p.list_tags_for_resource(ResourceArn=resource)["Tags"] == {"place": "gate"}
    w.cli("tag-resource", "--resource-arn", arn("device", w.device_id), "--tags", "one=1")
    assert p.describe_device(DeviceId=w.device_id)["Tags"] == {"place": "gate", "one": "1"}
    p.tag_resource(ResourceArn=arn("package", w.code_id), Tags={f"k{n}": "" for n in range(49)})
    error = refused("ValidationException", p.tag_resource, ResourceArn=arn("package", w.code_id), Tags={"k49": ""})
    assert error.response["Fields"][0]["Name"] == "Tags"
    p.tag_resource(ResourceArn=arn("package", w.code_id), Tags={"k48": "changed"})
    for wrong in (arn("device", "device-none"), arn("package", "package-none"), arn("device", w.device_id).replace("us-east-1", "eu-west-1")):
        for call, more in ((p.list_tags_for_resource, {}), (p.tag_resource, {"Tags": {"a": "b"}}), (p.untag_resource, {"TagKeys": ["a"]})):
            refused("ResourceNotFoundException", call, ResourceArn=wrong, **more)
    refused("ValidationException", p.list_tags_for_resource, ResourceArn="nonsense")


def test_jobs(w):
    p = w.panorama
    job = p.create_job_for_devices(DeviceIds=[w.device_id], JobType="REBOOT")["Jobs"][0]["JobId"]
    error = refused("ConflictException", p.create_job_for_devices, DeviceIds=[w.device_id], JobType="REBOOT")
    assert error.response["ResourceType"] == "DEVICE"
    assert w.cli("describe-device-job", "--job-id", job)["Status"] == "PENDING"
    assert p.describe_device_job(JobId=job)["JobType"] == "REBOOT"
    refused("ResourceNotFoundException", p.describe_device_job, JobId="device-none-0")
    assert [j["JobId"] for j in w.cli("list-devices-jobs")["DeviceJobs"]] == [j["JobId"] for j in p.list_devices_jobs()["DeviceJobs"]] == [job]


def test_delete_package(w):
    p = w.panorama
    p.create_package(PackageName="EMPTY")
    w.cli("delete-package", "--package-id", "packageName/EMPTY")
    refused("ResourceNotFoundException", p.describe_package, PackageId="packageName/EMPTY")
    refused("ResourceNotFoundException", p.delete_package, PackageId="packageName/EMPTY")
    error = refused("ConflictException", p.delete_package, PackageId="packageName/IMPORTED")
    assert "ForceDelete" in error.response["Error"]["Message"] and error.response["ResourceType"] == "PACKAGE"
    location = p.describe_package(PackageId="packageName/IMPORTED")["StorageLocation"]
    keys = lambda: [o["Key"] for o in w.s3.list_objects_v2(Bucket=location["Bucket"], Prefix=location["RepoPrefixLocation"] + "/").get("Contents", [])]
    assert keys()
    p.delete_package(PackageId="packageName/IMPORTED", ForceDelete=True)
    assert keys() == [] and p.list_nodes(PackageName="IMPORTED")["Nodes"] == []
    # What an appliance may still have to fetch stays, even if it is forced.
    error = refused("ConflictException", p.delete_package, PackageId=w.code_id, ForceDelete=True)
    assert "application instance" in error.response["Error"]["Message"]
    p.remove_application_instance(ApplicationInstanceId=w.instance)
    w.cli("delete-package", "--package-id", w.code_id, "--force-delete")
    names = [q["PackageName"] for q in p.list_packages()["Packages"]]
    assert names == ["SIDE", "BACK", "FRONT"], names
    for n in range(LIMITS["packages"] - len(names)):
        p.create_package(PackageName=f"P{n}")
    error = refused("ConflictException", p.create_package, PackageName="ONE_TOO_MANY")
    assert "maximum number of packages" in error.response["Error"]["Message"]
    refused("ConflictException", p.create_node_from_template_job, TemplateType="RTSP_CAMERA_STREAM", OutputPackageName="MORE",
            OutputPackageVersion="1.0", NodeName="MORE", TemplateParameters={"StreamUrl": "rtsp://10.0.2.2/x"})
    refused("ResourceNotFoundException", p.describe_package, PackageId="packageName/MORE")


def test_too_many_requests(w):
    """The guide's rates, with a burst of two seconds: the tools wait and repeat, so that nobody notices."""
    assert w.service.stop() == 0
    w.service.limit(requests_per_second=5, changes_per_second=1, burst_seconds=2)
    w.service.start()
    once = w.client(config=Config(retries={"max_attempts": 0}))
    answers = []
    for _ in range(40):
        try:
            once.list_packages()
            answers.append(200)
        except ClientError as error:
            assert error.response["Error"]["Code"] == "ThrottlingException", error
            answers.append(error.response["ResponseMetadata"]["HTTPStatusCode"])
    assert answers[:10] == [200] * 10 and 429 in answers, answers
    time.sleep(1)
    changes = []
    for n in range(5):
        try:
            once.tag_resource(ResourceArn=f"arn:aws:panorama:us-east-1:{ACCOUNT}:device/{w.device_id}", Tags={"n": str(n)})
            changes.append(200)
        except ClientError as error:
            changes.append(error.response["ResponseMetadata"]["HTTPStatusCode"])
    assert changes[:2] == [200, 200] and changes[-1] == 429, changes
    # There is no other region to go to; the CLI repeats by itself until it is answered.
    elsewhere = boto3.client("panorama", region_name="eu-west-1", endpoint_url="http://" + w.service.endpoints["api"],
                             aws_access_key_id=w.service.key["AWS_ACCESS_KEY_ID"], aws_secret_access_key=w.service.key["AWS_SECRET_ACCESS_KEY"],
                             config=Config(retries={"max_attempts": 0}))
    refused("SignatureDoesNotMatch", elsewhere.list_packages)
    for _ in range(3):
        w.cli("list-packages")


def test_all_of_them_were_called(w):
    known = set(w.panorama.meta.service_model.operation_names)
    assert len(known) == 34 and w.called == known, known ^ w.called


if __name__ == "__main__":
    run(globals(), Operations())
