"""What people read when a manifest is wrong: RegisterPackageVersion's StatusDescription, CreateApplicationInstance's Fields.

The rules themselves are tested in formats/manifest; here they come out at the other end, through boto3."""

import base64
import copy
import hashlib
import concurrent.futures
import json
import pathlib

import project
import walking
from botocore.config import Config
from simulated_device import Device
from walking import ACCOUNT, refused

FIXTURES = pathlib.Path(__file__).parents[2] / "formats/manifest/tests"
CODE = f"{ACCOUNT}::CODE"


def register(w, name, document, files=()):
    """Registers a document as version 1.0 of a package; its status and what is said."""
    panorama, s3 = w.boto("panorama"), w.boto("s3", config=Config(retries={"max_attempts": 10}))
    if name not in w.places:
        made = panorama.create_package(PackageName=name)
        w.places[name] = made["StorageLocation"]
    place = w.places[name]
    for file, content in files:
        s3.put_object(Bucket=place["Bucket"], Key=f"{place['BinaryPrefixLocation']}/{file}", Body=content)
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    patch = hashlib.sha256(body + repr(files).encode()).hexdigest()
    s3.put_object(Bucket=place["Bucket"], Key=f"{place['ManifestPrefixLocation']}/1.0/{patch}.json", Body=body)
    panorama.register_package_version(PackageId=f"packageName/{name}", PackageVersion="1.0", PatchVersion=patch, MarkLatest=True)
    found = panorama.describe_package_version(PackageId=f"packageName/{name}", PackageVersion="1.0", PatchVersion=patch)
    said = found.get("StatusDescription", "")
    assert len(said) <= 255, said
    return found["Status"], said


def failed(w, document, *words, name="WRONG", files=()):
    status, said = register(w, name, document, files)
    assert status == "FAILED", (status, said)
    for word in words:
        assert word in said, f"{word!r} is not in {said!r}"
    return said


def changed(document, changes):
    """As formats/manifest/tests/support says."""
    document = copy.deepcopy(document)
    for change in changes:
        steps = change["at"].split("/")[1:]
        at = document
        for step in steps[:-1]:
            at = at[int(step) if isinstance(at, list) else step]
        last = int(steps[-1]) if isinstance(at, list) else steps[-1]
        value = change.get("set")
        if isinstance(value, dict) and "$repeat" in value:
            value = value.get("$after", "") + value["$repeat"][0] * value["$repeat"][1]
        if isinstance(value, dict) and "$copies" in value:
            value = [value["$copies"][0]] * value["$copies"][1]
        if change.get("remove"):
            del at[last]
        else:
            at[last] = value
    return document


def test_the_sample_is_registered(w):
    w.places = {}
    w.project = w.folder / "sample"
    w.project.mkdir()
    project.make(w.project, ACCOUNT, "FRONT_DOOR", model_bytes=1 << 16)
    w.documents = {n: json.loads((w.project / f"packages/{ACCOUNT}-{n}-1.0/package.json").read_text()) for n in ("CODE", "MODEL")}
    w.assets = [(file.name, file.read_bytes()) for file in sorted((w.project / "assets").iterdir())]
    for name, document in w.documents.items():
        assert register(w, name, document, w.assets) == ("REGISTER_COMPLETED", "")
    w.graph = json.loads((w.project / "graphs/sample/graph.json").read_text())
    w.overrides = json.loads((w.project / "graphs/sample/override.json").read_text())


def test_what_the_schema_refuses(w):
    """Some of the fixtures, all the way: what the crate says is what the tools show."""
    sample = json.loads((FIXTURES / "rules/schema/complete-package.json").read_text())
    fixtures = [json.loads(line) for line in (FIXTURES / "rules/schema/package.json").read_text().splitlines()]
    for fixture in fixtures[::12]:
        if not fixture["invalid"][-1]["at"]:
            continue
        said = failed(w, changed(sample, fixture["invalid"]))
        whole = fixture["message"]
        assert said == whole or len(whole) > 255 and said[:200] == whole[:200], (said, whole)


def test_what_panorama_cli_makes_first(w):
    empty = {"nodePackage": {"envelopeVersion": "2021-01-01", "name": "WRONG", "version": "1.0", "description": "d",
                             "assets": [], "interfaces": []}}
    failed(w, empty, "nodePackage.interfaces: is empty, and needs at least one element")
    failed(w, b"{\"nodePackage\": ", "not good JSON", "line 1")
    failed(w, b"\xff\xfe{}", "UTF-8")
    failed(w, b" " * 262145, "longer than 262144 characters")


def test_what_packages_name_must_be_there(w):
    good = json.loads(json.dumps(w.documents["CODE"]).replace('"CODE"', '"WRONG"'))
    body = good["nodePackage"]
    implementation = 'nodePackage.assets[0] "code_asset".implementations[0]'
    failed(w, good, f"{implementation}.assetUri", "upload the file")
    tarball, descriptor = (body["assets"][0]["implementations"][0][member] for member in ("assetUri", "descriptorUri"))
    files = dict(w.assets)
    failed(w, good, f"{implementation}.assetUri", "SHA-256", files=[(tarball, b"not it")])
    failed(w, good, f"{implementation}.descriptorUri", "upload the file", files=[(tarball, files[tarball])])
    assert register(w, "WRONG", good, [(descriptor, files[descriptor])]) == ("REGISTER_COMPLETED", "")

    def with_descriptor(content):
        name = hashlib.sha256(content).hexdigest() + ".json"
        document = copy.deepcopy(good)
        document["nodePackage"]["assets"][0]["implementations"][0]["descriptorUri"] = name
        return document, [(name, content)]

    model = b'{"mlModelDescriptor": {"envelopeVersion": "2021-01-01", "framework": "PYTORCH", "inputs": []}}'
    for content, words in [
        (model, ('needs a "runtimeDescriptor"',)),
        (b"{", ("not good JSON",)),
        (b'{"runtimeDescriptor": {"envelopeVersion": "2021-01-01"}}', ("names no file to run",)),
        (b'{"runtimeDescriptor": {"envelopeVersion": "2021-01-01", "entry": {"name": ""}}}', ("runtimeDescriptor.entry.name",)),
        (b" " * (1 << 20) + b"{}", ("larger than",)),
    ]:
        document, files = with_descriptor(content)
        failed(w, document, f"{implementation}.descriptorUri", *words, files=files)
    failed(w, w.documents["CODE"], 'nodePackage.name: "CODE" is not "WRONG"')
    failed(w, json.loads(json.dumps(good).replace('"1.0"', '"1.1"')), 'nodePackage.version: "1.1" is not "1.0"')


def test_names_of_the_longest_kind_are_cut_and_the_useful_part_stays(w):
    document = copy.deepcopy(w.documents["CODE"])
    document["nodePackage"]["interfaces"][0]["name"] = "n" * 128
    document["nodePackage"]["interfaces"][0]["inputs"] = [{"name": "p" * 50, "type": "int32", "default": "d" * 500}]
    said = failed(w, document)
    assert said.startswith('nodePackage.interfaces[0] "nnnn') and ".inputs[0]" in said and "is not of type int32" in said, said


def test_nodes_keep_to_the_model(w):
    """What the schema allows may be longer than the API can show."""
    document = json.loads(json.dumps(w.documents["CODE"]).replace('"CODE"', '"LONG"'))
    interface = document["nodePackage"]["interfaces"][0]
    interface["description"] = "d" * 1000
    interface["inputs"] = [{"name": "text", "type": "string", "default": "t" * 1000}, {"name": "empty", "type": "string", "default": ""}]
    interface["outputs"][0]["description"] = "o" * 1000
    assert register(w, "LONG", document, w.assets) == ("REGISTER_COMPLETED", "")
    listed = w.boto("panorama").list_nodes(PackageName="LONG")["Nodes"]
    assert [len(node["Description"]) for node in listed] == [255], listed


def test_a_device_and_a_camera(w):
    panorama = w.boto("panorama")
    made = panorama.provision_device(Name="garden")
    archive = made["Certificates"]
    device = Device(archive if isinstance(archive, bytes) else base64.b64decode(archive), w.folder / "device")
    device.provision()
    w.device_id = made["DeviceId"]
    panorama.create_node_from_template_job(
        TemplateType="RTSP_CAMERA_STREAM", OutputPackageName="FRONT_DOOR", OutputPackageVersion="1.0", NodeName="FRONT_DOOR",
        TemplateParameters={"StreamUrl": "rtsp://10.0.0.9/1"})


def create(w, graph=None, overrides=None, **more):
    arguments = dict(
        DefaultRuntimeContextDevice=w.device_id, ManifestPayload={"PayloadData": json.dumps(graph or w.graph)},
        ManifestOverridesPayload={"PayloadData": json.dumps(overrides or w.overrides)}, **more)
    return arguments, w.boto("panorama").create_application_instance


def wrong(w, field, *words, graph=None, overrides=None, **more):
    arguments, call = create(w, graph, overrides, **more)
    error = refused("ValidationException", call, **arguments)
    fields = error.response["Fields"]
    assert [f["Name"] for f in fields] == [field], fields
    for word in words:
        assert word in fields[0]["Message"] and word in error.response["Error"]["Message"], (word, fields)


def test_what_deployments_refuse_names_the_document_and_the_element(w):
    graph = lambda *changes: changed(w.graph, changes)
    overrides = lambda *changes: changed(w.overrides, changes)
    nodes = "/nodeGraph/nodes"
    wrong(w, "ManifestPayload", 'nodeGraph.nodes[0] "code_node".launch', '"later"',
          graph=graph({"at": f"{nodes}/0/launch", "set": "later"}))
    wrong(w, "ManifestPayload", 'nodeGraph.nodes[0] "code_node".interface', '"video" does not exist', "it has: interface",
          graph=graph({"at": f"{nodes}/0/interface", "set": f"{CODE}.video"}))
    wrong(w, "ManifestPayload", 'nodeGraph.packages[0]', f"{ACCOUNT}::NOT_THERE", "does not exist",
          graph=graph({"at": "/nodeGraph/packages/0/name", "set": f"{ACCOUNT}::NOT_THERE"}))
    wrong(w, "ManifestPayload", 'nodeGraph.packages[0]', "2.0", "not registered",
          graph=graph({"at": "/nodeGraph/packages/0/version", "set": "2.0"}))
    wrong(w, "ManifestPayload", "nodeGraph.packages[3]", 'no version "7.0"', "there is: 1.0",
          graph=graph({"at": "/nodeGraph/packages/3/version", "set": "7.0"}))
    wrong(w, "ManifestPayload", "nodeGraph.edges[2].consumer", '"treshold"', "threshold",
          graph=graph({"at": "/nodeGraph/edges/2/consumer", "set": "code_node.treshold"}))
    wrong(w, "ManifestOverridesPayload", "nodeGraphOverrides.packages[0]", f"{ACCOUNT}::BACK_DOOR", "does not exist",
          overrides=overrides({"at": "/nodeGraphOverrides/packages/0/name", "set": f"{ACCOUNT}::BACK_DOOR"}))
    wrong(w, "ManifestOverridesPayload", 'nodeGraphOverrides.nodeOverrides[0] "camera".replace', "camera_node",
          overrides=overrides({"at": "/nodeGraphOverrides/nodeOverrides/0/replace", "set": "camera"}))
    wrong(w, "ManifestOverridesPayload", 'nodeGraph.nodes[2] "camera_node"', "must be overridden",
          overrides=overrides({"at": "/nodeGraphOverrides/nodeOverrides", "set": []}))
    wrong(w, "ManifestOverridesPayload", "nodeGraphOverrides", '"nods"',
          overrides=overrides({"at": "/nodeGraphOverrides/nods", "set": []}))


def test_a_camera_needs_a_stream(w):
    """panorama-cli's own camera package has no stream that an appliance could be given."""
    document = {"nodePackage": {
        "envelopeVersion": "2021-01-01", "name": "HOMEMADE", "version": "1.0",
        "assets": [{"name": "rtsp", "implementations": [{"type": "system", "assetUri": "source/video/camera/rtsp/source_rtsp"}]}],
        "interfaces": [{"name": "FRONT_DOOR", "category": "media_source", "asset": "rtsp", "outputs": [{"name": "video_out", "type": "media"}]}]}}
    assert register(w, "HOMEMADE", document) == ("REGISTER_COMPLETED", "")
    overrides = json.loads(json.dumps(w.overrides).replace("::FRONT_DOOR", "::HOMEMADE"))
    wrong(w, "ManifestOverridesPayload", '"front_door"', "create-node-from-template-job", overrides=overrides)


def test_a_port_of_the_appliance_has_one_owner(w):
    document = json.loads(json.dumps(w.documents["CODE"]).replace('"CODE"', '"SERVER"'))
    document["nodePackage"]["interfaces"][0]["network"] = {"inboundPorts": [{"port": 80}]}
    assert register(w, "SERVER", document, w.assets) == ("REGISTER_COMPLETED", "")
    graph = json.loads(json.dumps(w.graph).replace("::CODE", "::SERVER"))
    graph["nodeGraph"]["networkRoutingRules"] = [{"node": "code_node", "containerPort": 80, "hostPort": 8080}]
    closed = w.overrides
    opened = lambda port: changed(closed, [{"at": "/nodeGraphOverrides/networkRoutingRules", "set": [
        {"node": "code_node", "containerPort": 80, **({"hostPort": port} if port else {})}]}])
    deploy = lambda overrides, **more: (lambda a, call: call(**a)["ApplicationInstanceId"])(*create(w, graph, overrides, **more))

    deploy(closed)  # wishes for 8080 and does not open it
    first = deploy(opened(None), Name="first")
    wrong(w, "ManifestOverridesPayload", "networkRoutingRules", "8080", "first", "hostPort", graph=graph, overrides=opened(8080))
    wrong(w, "ManifestOverridesPayload", "7999", graph=graph, overrides=opened(7999))
    second = deploy(opened(8081))
    third = deploy(opened(8080), ApplicationInstanceIdToReplace=first)  # takes the port over
    wrong(w, "ManifestOverridesPayload", "8081", second, graph=graph, overrides=opened(8081), ApplicationInstanceIdToReplace=third)
    w.boto("panorama").remove_application_instance(ApplicationInstanceId=second)
    deploy(opened(8081))
    # Of several in the same instant one gets it.
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        outcomes = [future.exception() for future in [pool.submit(deploy, opened(8090)) for _ in range(8)]]
    refusals = [outcome for outcome in outcomes if outcome]
    assert len(refusals) == 7 and all("8090" in str(refusal) for refusal in refusals), outcomes


walking.run(globals())
