"""Jobs and shadows on their topics, as AWS IoT Core documents them."""

import base64
import json

import walking
from simulated_device import Device, Refused
from walking import waits


def says_no(link, topic, document):
    """The body of a refusal."""
    try:
        link.ask(topic, document)
    except Refused as refusal:
        return json.loads(str(refusal))
    raise AssertionError(f"{topic} {document} was not refused")


def create(w, **options):
    config = [] if not options else ["--device-job-config", json.dumps(options)]
    kind = "OTA" if options else "REBOOT"
    return w.service.aws("panorama", "create-job-for-devices", "--device-ids", w.id, "--job-type", kind, *config)["Jobs"][0]["JobId"]


def test_provision(w):
    archive = w.service.aws("panorama", "provision-device", "--name", "garden", "--output", "text", "--query", "Certificates")
    w.device = Device(base64.b64decode(archive), w.folder / "device")
    w.device.provision()
    w.id = w.device.configuration["device_id"]
    w.link = w.device.link()
    assert w.link.subscribe(w.device.jobs("#")) and w.link.subscribe(f"$aws/things/{w.device.thing}/shadow/#")


def test_nothing_to_do(w):
    jobs = w.device.jobs
    assert {**w.link.ask(jobs("get"), {"clientToken": "t1"}), "timestamp": 0} == {"clientToken": "t1", "inProgressJobs": [], "queuedJobs": [], "timestamp": 0}
    assert "execution" not in w.link.ask(jobs("start-next"), {}) and "execution" not in w.link.ask(jobs("$next/get"), "")
    assert says_no(w.link, jobs("get"), "{")["code"] == "InvalidJson"
    refusal = says_no(w.link, jobs(f"{w.id}-0/get"), {"clientToken": "t2"})
    assert (refusal["code"], refusal["clientToken"]) == ("ResourceNotFound", "t2"), refusal
    assert says_no(w.link, jobs(f"{w.id}-0/update"), {"status": "IN_PROGRESS"})["code"] == "ResourceNotFound"


def test_a_job_from_its_queue_to_its_end(w):
    jobs = w.device.jobs
    job = create(w, OTAJobConfig={"ImageVersion": "1.2.3"})
    listed = w.link.wait(jobs("notify"))["jobs"]
    assert [j["jobId"] for j in listed["QUEUED"]] == [job] and "IN_PROGRESS" not in listed, listed
    told = w.link.wait(jobs("notify-next"))["execution"]
    assert told["jobDocument"] == {"operation": "OTA", "imageVersion": "1.2.3", "allowMajorVersionUpdate": False}, told
    assert (told["thingName"], told["status"], told["versionNumber"], told["executionNumber"]) == (w.device.thing, "QUEUED", 1, 1)
    assert w.link.ask(jobs("get"), {})["queuedJobs"][0]["jobId"] == job
    without = w.link.ask(jobs(f"{job}/get"), {"includeJobDocument": False, "executionNumber": 1})["execution"]
    assert "jobDocument" not in without and without["queuedAt"] <= without["lastUpdatedAt"]
    assert says_no(w.link, jobs(f"{job}/get"), {"executionNumber": 2})["code"] == "ResourceNotFound"
    begun = w.link.ask(jobs("start-next"), {"statusDetails": {"progress": "DOWNLOADING"}, "stepTimeoutInMinutes": 5, "clientToken": "t"})
    execution = begun["execution"]
    assert (begun["clientToken"], execution["status"], execution["versionNumber"]) == ("t", "IN_PROGRESS", 2)
    assert execution["startedAt"] >= execution["queuedAt"] and 200 < execution["approximateSecondsBeforeTimedOut"] <= 300
    # Begun again is the same execution as it is.
    again = w.link.ask(jobs("start-next"), {"statusDetails": {"progress": "other"}})["execution"]
    assert (again["versionNumber"], again["statusDetails"]) == (2, {"progress": "DOWNLOADING"})
    assert w.service.aws("panorama", "describe-device-job", "--job-id", job)["Status"] == "DOWNLOADING"
    assert w.link.ask(jobs("get"), "")["inProgressJobs"][0]["versionNumber"] == 2
    refusal = says_no(w.link, jobs(f"{job}/update"), {"status": "IN_PROGRESS", "expectedVersion": 1, "clientToken": "v"})
    assert (refusal["code"], refusal["clientToken"], refusal["executionState"]["versionNumber"]) == ("VersionMismatch", "v", 2)
    for bad in ({"status": "DONE"}, {"status": "TIMED_OUT"}, {"status": "IN_PROGRESS", "stepTimeoutInMinutes": 0},
                {"status": "IN_PROGRESS", "statusDetails": {f"n{n}": "v" for n in range(11)}}, {"status": "IN_PROGRESS", "clientToken": "t" * 65}):
        assert says_no(w.link, jobs(f"{job}/update"), bad)["code"] == "InvalidRequest", bad
    answer = w.link.ask(jobs(f"{job}/update"), {
        "status": "IN_PROGRESS", "expectedVersion": "2", "statusDetails": {"progress": "VERIFYING"}, "stepTimeoutInMinutes": -1,
        "includeJobExecutionState": True, "includeJobDocument": True})
    assert answer["executionState"] == {"status": "IN_PROGRESS", "statusDetails": {"progress": "VERIFYING"}, "versionNumber": 3}
    assert answer["jobDocument"]["operation"] == "OTA"
    assert w.link.ask(jobs("$next/get"), "")["execution"]["approximateSecondsBeforeTimedOut"] > 3600
    answer = w.link.ask(jobs(f"{job}/update"), {"status": "SUCCEEDED"})
    assert sorted(answer) == ["timestamp"], answer
    assert w.link.wait(jobs("notify"))["jobs"] == {} and "execution" not in w.link.wait(jobs("notify-next"))
    assert says_no(w.link, jobs(f"{job}/get"), {})["code"] == "TerminalStateReached"
    assert says_no(w.link, jobs(f"{job}/update"), {"status": "FAILED"})["code"] == "InvalidStateTransition"


def test_a_job_that_takes_too_long(w):
    jobs = w.device.jobs
    job = create(w)
    w.link.wait(jobs("notify-next"))
    w.link.ask(jobs("start-next"), {"stepTimeoutInMinutes": 1})
    # A minute is the least that can be asked for: move the clock instead.
    w.service.ask("UPDATE device_job SET step_deadline_ms = 1 WHERE status = 'IN_PROGRESS'")
    assert w.link.wait(jobs("notify"))["jobs"] == {} and "execution" not in w.link.wait(jobs("notify-next"))
    assert w.service.aws("panorama", "describe-device-job", "--job-id", job)["Status"] == "FAILED"
    refusal = says_no(w.link, jobs(f"{job}/update"), {"status": "SUCCEEDED"})
    assert (refusal["code"], refusal["executionState"]["status"]) == ("InvalidStateTransition", "TIMED_OUT")
    # It no longer stands in the way.
    assert create(w) != job
    w.link.wait(jobs("notify-next"))


def test_classic_and_named_shadows(w):
    for name in ("", "name/mine/"):
        topic = lambda operation: f"$aws/things/{w.device.thing}/shadow/{name}{operation}"
        shown = name.split("/")[1] if name else w.device.thing
        refusal = says_no(w.link, topic("get"), {"clientToken": "t"})
        assert (refusal["code"], refusal["message"], refusal["clientToken"]) == (404, f"No shadow exists with name: '{shown}'", "t")
        answer = w.link.ask(topic("update"), {"state": {"desired": {"a": 1, "b": {"c": 2}}}, "clientToken": "u"})
        stamp = {"timestamp": answer["timestamp"]}
        assert answer == {"state": {"desired": {"a": 1, "b": {"c": 2}}}, "metadata": {"desired": {"a": stamp, "b": {"c": stamp}}},
                          "version": 1, "timestamp": answer["timestamp"], "clientToken": "u"}, answer
        documents = w.link.wait(topic("update/documents"))
        assert (documents["previous"]["version"], documents["current"]["version"]) == (0, 1), documents
        delta = w.link.wait(topic("update/delta"))
        assert (delta["state"], delta["metadata"]["b"], delta["clientToken"]) == ({"a": 1, "b": {"c": 2}}, {"c": stamp}, "u"), delta
        w.link.ask(topic("update"), {"state": {"reported": {"a": 1}}, "version": 1})
        refusal = says_no(w.link, topic("update"), {"state": {"reported": {"a": 2}}, "version": 1, "clientToken": "w"})
        assert (refusal["code"], refusal["message"], refusal["clientToken"]) == (409, "Version conflict", "w")
        got = w.link.ask(topic("get"), "")
        assert got["state"] == {"desired": {"a": 1, "b": {"c": 2}}, "reported": {"a": 1}, "delta": {"b": {"c": 2}}} and got["version"] == 2
        assert says_no(w.link, topic("update"), {"state": {"reported": {"large": "x" * 8192}}})["code"] == 413
        for bad in ("{", {}, {"state": {"wanted": {}}}, {"state": {}, "clientToken": "t" * 65}):
            assert says_no(w.link, topic("update"), bad)["code"] == 400, bad
        assert w.link.ask(topic("delete"), "")["version"] == 2
        assert says_no(w.link, topic("delete"), "")["code"] == 404
        # Versions go on where they were.
        assert w.link.ask(topic("update"), {"state": {"reported": {}}})["version"] == 4


def test_jobs_end_with_their_device(w):
    w.service.aws("panorama", "delete-device", "--device-id", w.id)
    # It is told that nothing is left to do, too, but its messages go with it: it may be gone before it hears that.
    w.link.wait_for_end()
    assert w.service.aws("panorama", "list-devices-jobs")["DeviceJobs"] == []
    waits("no job is left", lambda: w.service.ask("SELECT count(*) FROM device_job") == [("0",)], 5)


walking.run(globals())
