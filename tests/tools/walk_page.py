"""The page at /, in a real browser. BELVEDERE_PICTURES=FOLDER keeps the pictures."""

import os
import pathlib
import urllib.error
import urllib.parse
import urllib.request

import project
import walking
from browser import Browser
from simulated_device import Device
from walking import ACCOUNT

PROGRAM = pathlib.Path(os.environ["BELVEDERE_BIN"]) / "belvedere-service"
EVIL = "<b>bold</b><script>document.title='broken'</script>"


def get(url, headers=None, data=None):
    """Status, headers and text; redirects are not followed."""
    class Stay(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *_):
            return None
    request = urllib.request.Request(url, data=data, headers=headers or {})
    try:
        answer = urllib.request.build_opener(Stay).open(request, timeout=30)
    except urllib.error.HTTPError as error:
        answer = error
    return answer.status, answer.headers, answer.read().decode()


def test_a_fleet_to_look_at(w):
    panorama = w.boto("panorama")
    w.url = "http://" + w.service.endpoints["api"]
    w.pictures = pathlib.Path(os.environ.get("BELVEDERE_PICTURES", w.folder))
    lobby = Device(panorama.provision_device(Name="lobby", Description=EVIL)["Certificates"], w.folder / "lobby")
    lobby.provision()
    w.link = lobby.link()
    assert w.link.subscribe(lobby.shadow("device", "#"))
    w.link.ask(lobby.shadow("device", "update"), {"state": {"reported": {
        "software_version": "1.4.2", "board": "simulated", "uptime_s": 5, "network": {
            "Ethernet0Status": {"ConnectionStatus": "CONNECTED", "IpAddress": "192.168.7.21/24", "HwAddress": "52:54:00:12:34:56"},
            "Ethernet1Status": {"ConnectionStatus": "NOT_CONNECTED", "IpAddress": "", "HwAddress": "52:54:00:12:34:57"}}}}})
    warehouse = Device(panorama.provision_device(Name="warehouse")["Certificates"], w.folder / "warehouse")
    warehouse.provision()
    panorama.provision_device(Name="car-park")
    panorama.create_node_from_template_job(
        TemplateType="RTSP_CAMERA_STREAM", OutputPackageName="FRONT_DOOR", OutputPackageVersion="1.0", NodeName="FRONT_DOOR",
        TemplateParameters={"StreamUrl": "rtsp://10.0.2.2:8554/words", "Username": "viewer", "Password": "swordfish-9"})
    sample = w.folder / "sample"
    sample.mkdir()
    project.make(sample, ACCOUNT, "FRONT_DOOR", model_bytes=1 << 16)
    w.service.run("panorama-cli", "package-application", cwd=sample)
    graph = (sample / "graphs/sample/graph.json").read_text()
    override = (sample / "graphs/sample/override.json").read_text()
    w.instance = panorama.create_application_instance(
        Name="people", Description=EVIL, DefaultRuntimeContextDevice=lobby.configuration["device_id"],
        ManifestPayload={"PayloadData": graph}, ManifestOverridesPayload={"PayloadData": override})["ApplicationInstanceId"]


def test_a_stranger_learns_nothing(w):
    status, headers, text = get(w.url + "/")
    assert status == 200 and "Sign in" in text
    for word in ("lobby", ACCOUNT, "us-east-1", "1.4.2", w.instance):
        assert word not in text, word
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
    assert (headers["cache-control"], headers["referrer-policy"]) == ("no-store", "no-referrer")
    for cookie in ("belvedere_page=00", "belvedere_page=", "other=1"):
        assert "lobby" not in get(w.url + "/", {"Cookie": cookie})[2]
    assert get(w.url + "/?link=00")[0] == 403
    form = lambda secret: f"access_key_id={w.service.key['AWS_ACCESS_KEY_ID']}&secret_access_key={secret}".encode()
    right = w.service.key["AWS_SECRET_ACCESS_KEY"].replace("+", "%2B").replace("/", "%2F")
    assert get(w.url + "/sign-in", data=form("wrong"))[0] == 403
    assert get(w.url + "/sign-in", {"Sec-Fetch-Site": "cross-site"}, form(right))[0] == 403
    status, headers, _ = get(w.url + "/sign-in", data=form(right))
    assert status == 303 and "HttpOnly" in headers["set-cookie"] and "SameSite" in headers["set-cookie"], headers
    assert right not in headers["set-cookie"]
    cookie = {"Cookie": headers["set-cookie"].split(";")[0]}
    assert "lobby" in get(w.url + "/", cookie)[2]
    assert "swordfish" not in get(w.url + "/", cookie)[2]
    # An API request to the same path is the API's.
    assert w.boto("s3").list_buckets()["Buckets"]


def test_the_page_in_a_browser(w):
    browser = Browser(w.folder / "browser")
    try:
        browser.look(1180, 1000)
        browser.open(w.service.run(PROGRAM, "page", "--data", w.service.data).strip())
        assert browser.value("location.search") == "", "the link does not stay in the address"
        assert browser.value("document.title") == "Belvedere"
        rows = browser.value("[...document.querySelectorAll('#devices tbody tr')].map(r => r.innerText)")
        assert len(rows) == 3, rows
        lobby = next(r for r in rows if "lobby" in r)
        for word in ("online", "Ethernet0 192.168.7.21/24", "Ethernet1 not connected", "1.4.2", "in "):
            assert word in lobby, (word, lobby)
        assert "awaiting provisioning" in next(r for r in rows if "car-park" in r)
        applications = browser.value("document.querySelector('#applications').innerText")
        assert "people" in applications and "code_node" in applications and "front_door" in applications, applications
        packages = browser.value("document.querySelector('#packages').innerText")
        assert "CODE" in packages and "MODEL" in packages and "register completed" in packages, packages
        assert browser.value("document.scripts.length") == 0
        assert browser.complaints() == [], browser.complaints()
        assert {u for u in browser.requests() if not u.startswith("data:")} <= {u for u in browser.requests() if u.startswith(w.url)}
        colours = {}
        for name, width, height, scheme in (
            ("light", 1180, 1000, "light"), ("dark", 1180, 1000, "dark"), ("phone", 375, 1400, "light"), ("phone-dark", 375, 1400, "dark"),
        ):
            browser.look(width, height, scheme)
            assert browser.value("document.documentElement.scrollWidth <= window.innerWidth"), f"{name}: wider than the window"
            colours[name] = browser.value("getComputedStyle(document.body).backgroundColor")
            browser.picture(w.pictures / f"page-{name}.png")
            assert (w.pictures / f"page-{name}.png").stat().st_size > 10_000
        assert colours["light"] != colours["dark"]
    finally:
        browser.end()


def test_signing_in_and_out_in_a_browser(w):
    made = w.service.run(PROGRAM, "keys", "--data", w.service.data, "create", "--description", "browser")
    key = dict(line.split("=", 1) for line in made.splitlines())
    browser = Browser(w.folder / "browser-2")
    try:
        browser.look(375, 700)
        browser.open(w.url + "/")
        browser.picture(w.pictures / "page-sign-in.png")
        fill = lambda secret: browser.does(
            f"document.querySelector('[name=access_key_id]').value = {key['AWS_ACCESS_KEY_ID']!r};"
            f"document.querySelector('[name=secret_access_key]').value = {secret!r};"
            "document.querySelector('button').click()")
        fill("wrong")
        assert "no such key" in browser.value("document.body.innerText")
        fill(key["AWS_SECRET_ACCESS_KEY"])
        assert "lobby" in browser.value("document.body.innerText")
        assert browser.value("document.cookie") == "", "scripts cannot read it"
        # A revoked key ends what it began.
        w.service.run(PROGRAM, "keys", "--data", w.service.data, "revoke", key["AWS_ACCESS_KEY_ID"])
        browser.open(w.url + "/")
        assert "Sign in" in browser.value("document.body.innerText")
        browser.open(w.service.run(PROGRAM, "page", "--data", w.service.data).strip())
        assert "lobby" in browser.value("document.body.innerText")
        browser.does("document.querySelector('header button').click()")
        assert "Sign in" in browser.value("document.body.innerText")
    finally:
        browser.end()


def test_guessing_is_slow(w):
    form = b"access_key_id=AKIAGUESS&secret_access_key=x"
    answers = [get(w.url + "/sign-in", data=form)[0] for _ in range(12)]
    assert 429 in answers and set(answers) <= {403, 429}, answers
    # Nobody's wrong attempts keep the right key out (service x02).
    right = urllib.parse.urlencode({"access_key_id": w.service.key["AWS_ACCESS_KEY_ID"], "secret_access_key": w.service.key["AWS_SECRET_ACCESS_KEY"]}).encode()
    assert get(w.url + "/sign-in", data=right)[0] == 303
    assert get(w.url + "/")[0] == 200
    w.link.close()


if __name__ == "__main__":
    walking.run(globals())
