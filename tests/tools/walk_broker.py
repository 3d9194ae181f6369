"""The devices' side as clients see it that nobody here wrote: mosquitto_pub, mosquitto_sub, paho, and plain sockets."""

import base64
import json
import os
import pathlib
import queue
import random
import signal
import socket
import ssl
import struct
import subprocess
import time

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

import walking
from simulated_device import Device
from walking import waits

PATIENCE = 60
FIVE, THREE = mqtt.MQTTv5, mqtt.MQTTv311


def properties(packet, **values):
    made = Properties(packet)
    for name, value in values.items():
        setattr(made, name, value)
    return made


class Client:
    """paho, with everything that happened to it."""

    def __init__(self, device, version=FIVE, clean=True, expiry=None, will=None, alpn=None, port=None, keepalive=60, manual=False):
        self.messages, self.ended, self.subscribed, self.acknowledged = queue.Queue(), queue.Queue(), queue.Queue(), queue.Queue()
        connected = queue.Queue()
        options = {"clean_session": clean} if version == THREE else {}
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=device.thing, protocol=version,
                                  reconnect_on_failure=False, manual_ack=manual, **options)
        context = ssl.create_default_context(cafile=str(device.ca))
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(str(device.folder / "device.certificate.pem"), str(device.folder / "device.private-key.pem"))
        if alpn:
            context.set_alpn_protocols(alpn)
        self.client.tls_set_context(context)
        self.client.max_inflight_messages_set(50)
        if will:
            self.client.will_set(*will)
        if device.password:
            self.client.username_pw_set(device.thing, device.password)
        self.client.on_connect = lambda c, u, flags, reason, p: connected.put((flags, reason, p))
        self.client.on_message = lambda c, u, m: self.messages.put(m)
        self.client.on_subscribe = lambda c, u, mid, codes, p: self.subscribed.put([str(code) for code in codes])
        self.client.on_publish = lambda c, u, mid, reason, p: self.acknowledged.put(reason)
        self.client.on_disconnect = lambda c, u, flags, reason, p: (connected.put((flags, reason, p)), self.ended.put(str(reason)))
        more = {}
        if version == FIVE:
            more["clean_start"] = clean
            if expiry is not None:
                more["properties"] = properties(PacketTypes.CONNECT, SessionExpiryInterval=expiry)
        self.client.connect("127.0.0.1", port or device.mqtt["port"], keepalive=keepalive, **more)
        self.client.loop_start()
        flags, self.reason, self.properties = connected.get(timeout=PATIENCE)
        self.present = getattr(flags, "session_present", False)

    def subscribe(self, topic, qos=1, **options):
        if options:
            self.client.subscribe(topic, options=SubscribeOptions(qos=qos, **options))
        else:
            self.client.subscribe(topic, qos)
        return self.subscribed.get(timeout=PATIENCE)

    def publish(self, topic, payload, qos=1, **more):
        self.client.publish(topic, payload, qos, **more)
        if qos:
            return self.acknowledged.get(timeout=PATIENCE)

    def next(self, patience=PATIENCE):
        return self.messages.get(timeout=patience)

    def silent(self, seconds=0.5):
        try:
            message = self.messages.get(timeout=seconds)
        except queue.Empty:
            return True
        raise AssertionError(f"unexpected: {message.topic} {message.payload}")

    def close(self, **more):
        self.client.disconnect(**more)
        self.client.loop_stop()

    def cut(self):
        """As a power cut does."""
        self.client.loop_stop()
        self.client.socket().close()


def provision(w, name):
    archive = w.service.aws("panorama", "provision-device", "--name", name, "--output", "text", "--query", "Certificates")
    device = Device(base64.b64decode(archive), w.folder / name)
    device.provision()
    device.device_id = device.configuration["device_id"]
    return device


def mosquitto(device, program, *arguments, port=None, timeout=60):
    """mosquitto_pub or mosquitto_sub with a device's certificate."""
    done = subprocess.run(
        [program, "-h", "127.0.0.1", "-p", str(port or device.mqtt["port"]), "-i", device.thing,
         *(["-u", device.thing, "-P", device.password] if device.password else []),
         "--cafile", str(device.ca), "--cert", str(device.folder / "device.certificate.pem"),
         "--key", str(device.folder / "device.private-key.pem"), "--tls-version", "tlsv1.3", *arguments],
        capture_output=True, text=True, timeout=timeout)
    return done.returncode, done.stdout, done.stderr


def kill_and_start(w):
    """kill -9, and up again on the same ports."""
    w.service.process.send_signal(signal.SIGKILL)
    w.service.process.wait()
    w.service.start()


def test_provision(w):
    w.a, w.b = provision(w, "garden"), provision(w, "gate")


def test_mosquitto_in_both_versions(w):
    for version in ("mqttv311", "mqttv5"):
        topic = f"panorama/{w.a.thing}/news/{version}"
        code, _, error = mosquitto(w.a, "mosquitto_pub", "-V", version, "-q", "1", "-t", topic, "-r", "-m", "kept " + version)
        assert code == 0, error
        code, output, error = mosquitto(w.a, "mosquitto_sub", "-V", version, "-q", "1", "-t", f"panorama/{w.a.thing}/#", "-C", "1", "-W", "30")
        assert code == 0 and output == f"kept {version}\n", (output, error)
        code, _, error = mosquitto(w.a, "mosquitto_pub", "-V", version, "-q", "1", "-t", topic, "-r", "-n")
        assert code == 0, error
        code, output, _ = mosquitto(w.a, "mosquitto_sub", "-V", version, "-t", f"panorama/{w.a.thing}/#", "-C", "1", "-W", "1")
        assert output == "", output


@walking.own_broker("mosquitto tells its own limits")
def test_what_version_5_is_told(w):
    client = Client(w.a)
    told = client.properties
    assert (told.MaximumQoS, told.MaximumPacketSize, told.ReceiveMaximum, told.TopicAliasMaximum) == (1, 149504, 100, 8), told
    assert not hasattr(told, "ServerKeepAlive") and not hasattr(told, "SessionExpiryInterval")
    client.close()
    client = Client(w.a, keepalive=0, expiry=10**9)
    assert (client.properties.ServerKeepAlive, client.properties.SessionExpiryInterval) == (1200, 7 * 24 * 3600)
    client.close(properties=properties(PacketTypes.DISCONNECT, SessionExpiryInterval=0))
    # Whoever comes back before the service has read the farewell takes the session over.
    status = lambda: w.boto("panorama").describe_device(DeviceId=w.a.device_id)["DeviceConnectionStatus"]
    waits("the farewell", lambda: status() != "ONLINE")
    assert not Client(w.a, clean=False).present


def test_properties_reach_the_subscriber(w):
    client, topic = Client(w.a), f"panorama/{w.a.thing}/p"
    client.subscribe(topic)
    given = properties(PacketTypes.PUBLISH, ContentType="text/plain", UserProperty=[("a", "1"), ("a", "2")], MessageExpiryInterval=30,
                       CorrelationData=b"\x00\x01", ResponseTopic=topic + "/back", TopicAlias=3)
    client.publish(topic, "one", properties=given)
    # The alias alone stands for the topic from now on.
    client.publish("", "two", properties=properties(PacketTypes.PUBLISH, TopicAlias=3))
    first, second = client.next(), client.next()
    got = first.properties
    assert (got.ContentType, got.UserProperty, got.CorrelationData, got.ResponseTopic) == ("text/plain", [("a", "1"), ("a", "2")], b"\x00\x01", topic + "/back")
    assert 25 <= got.MessageExpiryInterval <= 30, got
    assert (second.topic, second.payload) == (topic, b"two")
    # Not what the client itself says, if it asks so. (mosquitto 2.0 hears this only with a filter's first subscription.)
    if w.service.broker:
        client.client.unsubscribe(topic)
    assert client.subscribe(topic, noLocal=True) == ["Granted QoS 1"]
    client.publish(topic, "three")
    client.silent()
    client.close()


def all_topics(thing):
    shadows = [f"$aws/things/{thing}/shadow/{part}{operation}" for part in ("", "name/device/") for operation in ("get", "update", "delete")]
    jobs = [f"$aws/things/{thing}/jobs/{part}" for part in ("get", "start-next", "$next/get", "device-0/get", "device-0/update")]
    return shadows + jobs + [f"panorama/{thing}", f"panorama/{thing}/x", f"belvedere/things/{thing}/connection"]


def test_nothing_of_another_device_is_in_reach(w):
    filters = [f"{t}{end}" for t in all_topics(w.b.thing) for end in ("", "/accepted", "/#")]
    filters += ["#", "+/#", "$aws/#", "$aws/things/+/shadow/#", "$aws/things/+/jobs/#", "panorama/+", "panorama/#", "belvedere/#",
                f"$share/group/panorama/{w.b.thing}/x", f"$share/group/panorama/{w.a.thing}/x", f"panorama/{w.a.thing}x/#",
                "$aws/certificates/create-from-csr/json/accepted", "$SYS/#"]
    client = Client(w.a)
    for name in filters:
        assert client.subscribe(name) == ["Not authorized"], name
    client.close()
    w.b.listener = Client(w.b)
    for name in (f"panorama/{w.b.thing}/#", f"$aws/things/{w.b.thing}/shadow/#", f"$aws/things/{w.b.thing}/jobs/#", f"belvedere/things/{w.b.thing}/#"):
        assert w.b.listener.subscribe(name) == ["Granted QoS 1"]
    for topic in all_topics(w.b.thing) + ["anywhere", f"$aws/things/{w.a.thing}/jobs/notify", f"$aws/things/{w.a.thing}/shadow/update/accepted"]:
        client = Client(w.a)
        if w.service.broker:  # mosquitto says so, and lets the connection stand
            assert str(client.publish(topic, "{}")) == "Not authorized", topic
            client.close()
            continue
        client.client.publish(topic, "{}", 1)
        assert client.ended.get(timeout=PATIENCE) == "Not authorized", topic
        client.client.loop_stop()
    code, _, error = mosquitto(w.a, "mosquitto_pub", "-V", "mqttv311", "-q", "1", "-t", f"panorama/{w.b.thing}", "-m", "x")
    assert code != 0 or w.service.broker, error
    # Nor with another name, nor with a will there.
    no = "Not authorized" if w.service.broker else "Client identifier not valid"
    assert str(Client(type("", (), {**w.a.__dict__, "thing": w.b.thing})()).reason) == no
    client = Client(w.a, will=(f"panorama/{w.b.thing}", "x"))
    if w.service.broker:  # mosquitto asks when the will is due
        client.cut()
    else:
        assert str(client.reason) == "Not authorized"
    w.b.listener.silent()
    assert w.b.listener.ended.empty()
    w.b.listener.close()


def test_queued_messages_survive_kill_9_and_come_in_order(w):
    for version, device in ((THREE, w.a), (FIVE, w.b)):
        options = {"clean": False, **({"expiry": 3600} if version == FIVE else {})}
        topic = f"panorama/{device.thing}/queue"
        client = Client(device, version, manual=True, **options)
        assert not client.present
        client.subscribe(topic)
        for n in range(150):
            client.publish(topic, f"{n}")
        # A hundred are under way, and no more until one of them is acknowledged.
        under_way = [client.next() for _ in range(100)]
        client.silent()
        for message in under_way[:10]:
            client.client.ack(message.mid, 1)
        assert [int(m.payload) for m in under_way] + [int(client.next().payload) for _ in range(10)] == list(range(110))
        time.sleep(1)
        # One more that the service itself says while the client is away.
        client.cut()
        kill_and_start(w)
        job = w.service.aws("panorama", "create-job-for-devices", "--device-ids", device.device_id, "--job-type", "REBOOT")["Jobs"][0]["JobId"]
        client = Client(device, version, manual=True, **options)
        assert client.present
        came = [client.next() for _ in range(100)]
        assert [int(m.payload) for m in came] == list(range(10, 110)) and all(m.dup for m in came), [(m.payload, m.dup) for m in came][:5]
        # The same identifiers as before.
        assert [m.mid for m in came[:90]] == [m.mid for m in under_way[10:]]
        for message in came:
            client.client.ack(message.mid, 1)
        for n in range(110, 150):
            message = client.next()
            assert int(message.payload) == n
            client.client.ack(message.mid, 1)
        client.silent()
        client.subscribe(device.jobs("#"))
        client.publish(device.jobs("get"), "{}")
        pending = client.next()
        assert pending.topic == device.jobs("get/accepted") and json.loads(pending.payload)["queuedJobs"][0]["jobId"] == job
        client.client.ack(pending.mid, 1)
        client.close()
        # Away in order; what the service says meanwhile waits, a restart later as well.
        publisher = Job(w, device, job)
        publisher.end()
        kill_and_start(w)
        client = Client(device, version, **options)
        assert client.present
        topics = [client.next().topic for _ in range(2)]
        assert topics == [device.jobs("notify"), device.jobs("notify-next")], topics
        client.silent()
        client.close()
        # A clean start forgets all of it.
        assert not Client(device, version, clean=True).present
        assert not Client(device, version, **options).present
        Client(device, version, clean=True).close()


class Job:
    """A job that ends while its device is away."""

    def __init__(self, w, device, job):
        self.w, self.device, self.job = w, device, job

    def end(self):
        self.w.service.ask(f"UPDATE device_job SET status = 'IN_PROGRESS', step_deadline_ms = 1 WHERE device_id = '{self.device.device_id}'")
        waits("the job times out", lambda: self.w.service.aws("panorama", "describe-device-job", "--job-id", self.job)["Status"] == "FAILED")


def test_a_message_that_is_too_old_is_not_delivered(w):
    client = Client(w.a, clean=False, expiry=3600, manual=True)
    topic = f"panorama/{w.a.thing}/old"
    client.subscribe(topic)
    client.publish(topic, "short", properties=properties(PacketTypes.PUBLISH, MessageExpiryInterval=3))
    client.publish(topic, "long", properties=properties(PacketTypes.PUBLISH, MessageExpiryInterval=100))
    assert [client.next().payload, client.next().payload] == [b"short", b"long"]
    client.cut()
    time.sleep(3.5)
    client = Client(w.a, clean=False, expiry=3600)
    message = client.next()
    assert message.payload == b"long" and 90 <= message.properties.MessageExpiryInterval < 100
    client.silent()
    client.close(properties=properties(PacketTypes.DISCONNECT, SessionExpiryInterval=0))


def test_a_session_ends_at_its_time(w):
    client = Client(w.a, clean=False, expiry=1)
    client.subscribe(f"panorama/{w.a.thing}/x")
    client.close()
    time.sleep(5 if w.service.broker else 1.5)  # mosquitto looks now and then
    assert not Client(w.a, clean=False).present


def test_last_will(w):
    topic = f"belvedere/things/{w.a.thing}/connection"
    for version in (THREE, FIVE):
        options = {"clean": False, **({"expiry": 600} if version == FIVE else {})}
        client = Client(w.a, version, will=(topic, "gone", 1), **options)
        client.subscribe(topic)
        client.cut()
        time.sleep(0.5)
        client = Client(w.a, version, will=(topic, "gone", 1), **options)
        assert client.next().payload == b"gone"
        client.close()
        client = Client(w.a, version, **options)
        client.silent()
        client.close()
        Client(w.a, version).close()


@walking.own_broker("mosquitto has limits of its own: it counts neither subscriptions nor slashes")
def test_limits(w):
    client = Client(w.a)
    space = f"panorama/{w.a.thing}"
    codes = [client.subscribe(f"{space}/{n}")[0] for n in range(51)]
    assert codes == ["Granted QoS 1"] * 50 + ["Not authorized"], codes
    client.client.subscribe([(f"{space}/{n}", 0) for n in range(9)])
    assert client.ended.get(timeout=PATIENCE) == "Quota exceeded"
    client = Client(w.a)
    assert client.subscribe(f"{space}/#", qos=2) == ["Granted QoS 1"]
    client.publish(f"{space}/large", b"x" * 131072)
    assert len(client.next().payload) == 131072
    client.publish(f"{space}/1/2/3/4/5/6", "seven slashes")
    assert client.next().payload == b"seven slashes"
    client.client.publish(f"{space}/large", b"x" * 131073, 1)
    assert client.ended.get(timeout=PATIENCE) == "Packet too large"
    for topic in (f"{space}/1/2/3/4/5/6/7", f"{space}/{'x' * 256}"):
        client = Client(w.a)
        client.client.publish(topic, "x", 1)
        assert client.ended.get(timeout=PATIENCE) == "Not authorized"
    # QoS 2: refused, not silently less. paho itself keeps to what it was told: say it on the wire.
    client = Client(w.a, THREE)
    client.client.publish(f"{space}/x", "x", 2)
    client.ended.get(timeout=PATIENCE)


def test_a_second_connection_takes_over(w):
    client = Client(w.a, clean=False, expiry=60, manual=True)
    topic = f"panorama/{w.a.thing}/takeover"
    client.subscribe(topic)
    client.publish(topic, "unacknowledged")
    client.next()
    second = Client(w.a, clean=False, expiry=60)
    said = client.ended.get(timeout=PATIENCE)
    assert said == "Session taken over" or w.service.broker, said  # mosquitto 2.0.11 says nothing
    assert second.present and second.next().payload == b"unacknowledged"
    time.sleep(0.5)
    devices = {d["DeviceId"]: d for d in w.service.aws("panorama", "list-devices")["Devices"]}
    assert devices[w.a.device_id]["DeviceAggregatedStatus"] == "ONLINE", devices
    second.publish(topic, "still here")
    assert second.next().payload == b"still here"
    second.close(properties=properties(PacketTypes.DISCONNECT, SessionExpiryInterval=0))


@walking.own_broker("the port of HTTPS is the service's, mosquitto has one of its own")
def test_mqtt_on_the_port_of_https(w):
    port = w.a.endpoints["https"]["port"]
    for version in (THREE, FIVE):
        client = Client(w.a, version, alpn=["x-amzn-mqtt-ca"], port=port)
        topic = f"panorama/{w.a.thing}/alpn"
        client.subscribe(topic)
        client.publish(topic, "over 443")
        assert client.next().payload == b"over 443"
        client.close()
    code, _, error = mosquitto(w.a, "mosquitto_pub", "-V", "mqttv311", "-q", "1", "--tls-alpn", "x-amzn-mqtt-ca", "-t", f"panorama/{w.a.thing}/x", "-m", "x", port=port)
    assert code == 0, error
    # The same port answers HTTPS meanwhile, also to those who ask for it by name.
    assert w.a.credentials()[0] == 200
    assert w.service.run("curl", "-sS", "--cacert", w.a.ca, f"https://127.0.0.1:{port}/healthz") == "ok\n"
    # Without a client certificate there is no MQTT there.
    context = ssl.create_default_context(cafile=str(w.a.ca))
    context.set_alpn_protocols(["x-amzn-mqtt-ca"])
    with context.wrap_socket(socket.create_connection(("127.0.0.1", port)), server_hostname="127.0.0.1") as stream:
        stream.sendall(connect(w.a.thing))
        assert ends(stream)


def text(value):
    value = value if isinstance(value, bytes) else value.encode()
    return struct.pack("!H", len(value)) + value


def packet(kind, body):
    length, left = b"", len(body)
    while True:
        left, digit = divmod(left, 128)
        length += bytes([digit | (128 if left else 0)])
        if not left:
            return bytes([kind]) + length + body


def connect(name, keepalive=60):
    return packet(0x10, text("MQTT") + b"\x04\x02" + struct.pack("!H", keepalive) + text(name))


def raw(w):
    context = ssl.create_default_context(cafile=str(w.a.ca))
    context.load_cert_chain(str(w.a.folder / "device.certificate.pem"), str(w.a.folder / "device.private-key.pem"))
    stream = socket.create_connection(("127.0.0.1", w.a.endpoints["mqtt"]["port"]))
    stream.settimeout(30)
    return context.wrap_socket(stream, server_hostname="127.0.0.1")


def ends(stream):
    """Whether the service ends the connection; what it said before does not matter."""
    try:
        while stream.recv(4096):
            pass
    except (ConnectionError, ssl.SSLError):
        pass
    return True


@walking.own_broker("they test our own reader of packets")
def test_hostile_packets_end_their_connection_and_nothing_else(w):
    # Connections that never get through the handshake: looked at again at the end.
    slow = [socket.create_connection(("127.0.0.1", w.a.endpoints[name]["port"])) for name in ("mqtt", "https") for _ in range(20)]
    began = time.monotonic()
    silent = raw(w)
    witness = Client(w.b)
    topic = f"panorama/{w.b.thing}/witness"
    witness.subscribe(topic)
    hello, space = connect(w.a.thing), f"panorama/{w.a.thing}/x"
    before = [
        b"\x00" * 64, b"\xff" * 64, b"GET / HTTP/1.1\r\n\r\n", b"\x10\xff\xff\xff\xff\xff", b"\x10\xff\xff\xff\x7f", b"\x10\x00",
        packet(0x30, text(space) + b"x"), packet(0x10, text("MQTT") + b"\x09\x02\x00\x3c" + text(w.a.thing)),
        packet(0x10, text("MQTT") + b"\x04\x02\x00\x3c" + b"\xff\xff"), packet(0x10, text("MQTT") + b"\x04\x02\x00\x3c" + text(b"\xff\xfe")),
        packet(0xC0, b""), packet(0x10, b"x" * 200_000)[:1000],
    ]
    after = [
        hello, packet(0x36, text(space) + b"\x00\x01x"), packet(0x32, text(space) + b"\x00\x00x"), packet(0x30, text(b"\xff\xfe") + b"x"),
        packet(0x30, b"\xff\xff"), packet(0x30, text("") + b"x"), packet(0x30, text(f"{space}/#") + b"x"), packet(0x82, b"\x00\x01"),
        packet(0x82, b"\x00\x01" + text(space) + b"\x03"), packet(0xA2, b"\x00\x01"),
        packet(0x40, b"\x00\x07"), packet(0x40, b"\x00"), packet(0xF0, b""), packet(0x20, b"\x00\x00"), b"\x32\xff\xff\xff\xff\xff",
        b"\x32\xff\xff\xff\x7f", packet(0x32, text(space) + b"\x00\x01" + b"x" * 200_000),
    ]
    for body in before + [hello + a for a in after]:
        with raw(w) as stream:
            try:
                stream.sendall(body)
            except (ConnectionError, ssl.SSLError):
                pass
            assert ends(stream), body[:40]
    # A good conversation with some bytes changed, cut off anywhere.
    seed = int.from_bytes(os.urandom(4))
    chance = random.Random(seed)
    good = hello + packet(0x82, b"\x00\x01" + text(space) + b"\x01") + packet(0x32, text(space) + b"\x00\x02hello") + packet(0xC0, b"")
    for _ in range(60):
        body = bytearray(good)
        for _ in range(chance.randint(1, 4)):
            body[chance.randrange(len(body))] = chance.randrange(256)
        with raw(w) as stream:
            try:
                stream.sendall(bytes(body[: chance.randint(1, len(body))]))
                stream.shutdown(socket.SHUT_WR)
                ends(stream)
            except (OSError, ValueError):
                pass
    witness.publish(topic, "well")
    assert witness.next().payload == b"well" and witness.ended.empty(), seed
    witness.close()
    assert "panicked" not in w.service.log(), seed
    # A client that says nothing is asked to leave after one and a half of its keep-alive.
    with raw(w) as stream:
        stream.sendall(connect(w.a.thing, keepalive=1))
        start = time.monotonic()
        assert ends(stream) and 1 < time.monotonic() - start < 10
    # Ten seconds for the handshake, and ten for CONNECT.
    for stream in slow:
        stream.settimeout(30)
        assert ends(stream)
    assert ends(silent)
    assert 5 < time.monotonic() - began < 60, time.monotonic() - began


def test_keys_are_given_at_a_bounded_rate(w):
    answers = [w.a.credentials()[0] for _ in range(75)]
    assert answers[:50] == [200] * 50 and 429 in answers, answers
    assert w.b.credentials()[0] == 200
    time.sleep(2)
    assert w.a.credentials()[0] == 200


def test_revoked_on_the_command_line(w):
    program = pathlib.Path(os.environ["BELVEDERE_BIN"]) / "belvedere-service"
    client = Client(w.b)
    assert w.b.credentials()[0] == 200
    listed = w.service.run(program, "devices", "--data", w.service.data, "list")
    assert f"{w.b.device_id}  connected  gate" in listed, listed
    start = time.monotonic()
    w.service.run(program, "devices", "--data", w.service.data, "revoke", w.b.device_id)
    assert client.ended.get(timeout=PATIENCE) == "Administrative action"
    seconds = time.monotonic() - start
    assert seconds < 5, seconds
    print(f"measured: a certificate revoked by another process ended its connection after {seconds:.1f} s")
    assert w.b.credentials()[0] == 403
    assert Client(w.b).reason.is_failure
    w.service.run(program, "devices", "--data", w.service.data, "revoke", w.b.device_id, fails=True)
    # Deleted through the API: at once.
    client = Client(w.a)
    start = time.monotonic()
    w.service.aws("panorama", "delete-device", "--device-id", w.a.device_id)
    assert client.ended.get(timeout=PATIENCE) == "Administrative action"


if __name__ == "__main__":
    walking.run(globals())
