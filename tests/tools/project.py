"""A small application project in the original layout, as `panorama-cli` leaves it after a build."""

import gzip
import hashlib
import io
import json
import tarfile


def _tarball(size):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        body = bytes(i * 7919 % 251 for i in range(size))
        entry = tarfile.TarInfo("panorama/app.py")
        entry.size = len(body)
        archive.addfile(entry, io.BytesIO(body))
    return gzip.compress(content.getvalue(), compresslevel=1, mtime=0)


def _asset(folder, content, ending):
    name = hashlib.sha256(content).hexdigest() + ending
    (folder / "assets" / name).write_bytes(content)
    return name


def make(folder, account, camera, model_bytes=9 * 1024 * 1024):
    """Writes the project. The model is larger than the multipart threshold unless told otherwise."""
    for name in ("assets", "graphs/sample", f"packages/{account}-CODE-1.0", f"packages/{account}-MODEL-1.0"):
        (folder / name).mkdir(parents=True)
    tarball = _asset(folder, _tarball(4096), ".tar.gz")
    runtime = _asset(folder, json.dumps({"runtimeDescriptor": {
        "envelopeVersion": "2021-01-01", "entry": {"path": "python3", "name": "/panorama/app.py"},
    }}).encode(), ".json")
    model = _asset(folder, bytes(i * 31 % 256 for i in range(1 << 16)) * (model_bytes >> 16), ".tar.gz")
    descriptor = _asset(folder, json.dumps({"mlModelDescriptor": {
        "envelopeVersion": "2021-01-01", "framework": "PYTORCH", "frameworkVersion": "1.8",
        "precisionMode": "FP32", "inputs": [{"name": "data", "shape": [1, 3, 160, 160]}],
    }}).encode(), ".json")
    code = {"nodePackage": {
        "envelopeVersion": "2021-01-01", "name": "CODE", "version": "1.0", "description": "Code of the sample.",
        "assets": [{"name": "code_asset", "implementations": [
            {"type": "container", "assetUri": tarball, "descriptorUri": runtime}]}],
        "interfaces": [{"name": "interface", "category": "business_logic", "asset": "code_asset",
                        "inputs": [{"name": "video_in", "type": "media"}, {"name": "threshold", "type": "float32", "default": 0.5}],
                        "outputs": [{"name": "video_out", "type": "media"}]}],
    }}
    (folder / f"packages/{account}-CODE-1.0/package.json").write_text(json.dumps(code, indent=4))
    package = {"nodePackage": {
        "envelopeVersion": "2021-01-01", "name": "MODEL", "version": "1.0",
        "assets": [{"name": "model_asset", "implementations": [
            {"type": "model", "assetUri": model, "descriptorUri": descriptor}]}],
        "interfaces": [{"name": "model", "category": "ml_model", "asset": "model_asset",
                        "inputs": [{"name": "video_in", "type": "media"}], "outputs": [{"name": "video_out", "type": "media"}]}],
    }}
    (folder / f"packages/{account}-MODEL-1.0/package.json").write_text(json.dumps(package, indent=4))
    graph = {"nodeGraph": {
        "envelopeVersion": "2021-01-01",
        "packages": [
            {"name": f"{account}::CODE", "version": "1.0"}, {"name": f"{account}::MODEL", "version": "1.0"},
            {"name": "panorama::abstract_rtsp_media_source", "version": "1.0"}, {"name": "panorama::hdmi_data_sink", "version": "1.0"},
        ],
        "nodes": [
            {"name": "code_node", "interface": f"{account}::CODE.interface"},
            {"name": "model_node", "interface": f"{account}::MODEL.model"},
            {"name": "camera_node", "interface": "panorama::abstract_rtsp_media_source.rtsp_v1_interface",
             "overridable": True, "overrideMandatory": True, "decorator": {"title": "Camera"}},
            {"name": "output_node", "interface": "panorama::hdmi_data_sink.hdmi0"},
            {"name": "threshold", "interface": "float32", "value": 0.4, "overridable": True},
        ],
        "edges": [
            {"producer": "camera_node.video_out", "consumer": "code_node.video_in"},
            {"producer": "code_node.video_out", "consumer": "output_node.video_in"},
            {"producer": "threshold", "consumer": "code_node.threshold"},
        ],
    }}
    (folder / "graphs/sample/graph.json").write_text(json.dumps(graph, indent=4))
    overrides = {"nodeGraphOverrides": {
        "envelopeVersion": "2021-01-01",
        "packages": [{"name": f"{account}::{camera}", "version": "1.0"}],
        "nodes": [{"name": "front_door", "interface": f"{account}::{camera}.{camera}"}],
        "nodeOverrides": [{"replace": "camera_node", "with": [{"name": "front_door"}]}],
    }}
    (folder / "graphs/sample/override.json").write_text(json.dumps(overrides, indent=4))
