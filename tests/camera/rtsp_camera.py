#!/usr/bin/env python3
"""An RTSP camera with one bad habit at a time. One file, standard library only.

    rtsp_camera.py CLIP.h264 [--quirk NAME]... [--port 8554] [--user U --password P] [--rate 15]
    rtsp_camera.py --list

TCP interleaved; plays the clip in a loop, in real time. `--say` prints every request and answer. With port 0 a free
one is taken; the first line printed is the URL. With quirks of passwords the user is viewer and the password secret.
"""
import argparse, base64, hashlib, os, random, re, socket, struct, sys, threading, time

QUIRKS = {
    "stale-nonce": "digest; a nonce is good for one request, the next one is answered 401 with stale=TRUE and a new nonce",
    "sha256-only": "digest with algorithm SHA-256 and no other",
    "content-type-charset": "Content-Type: application/sdp; charset=utf-8",
    "session-timeout-zero": "Session: …;timeout=0",
    "transport-no-interleaved": "the answer to SETUP leaves interleaved= out (the asked-for channels are meant)",
    "redirect": "DESCRIBE is answered 302 with another path on this camera",
    "garbage": "every 3 s 37 bytes that belong to nothing between two interleaved frames",
    "server-request": "every 5 s the camera asks the client something (OPTIONS *) and wants an answer",
    "nal-29": "every 2 s a packet of FU-B (type 29), which packetization mode 1 does not have",
    "sdp-latin1": "s= holds a byte that is no UTF-8",
    "rtpinfo-no-url": "RTP-Info holds seq and rtptime only",
    "slow-answers": "every answer takes 4 s; with --user and --password there are four of them before the first picture",
    # Of how answers are written
    "lf-only": "lines of answers end with LF alone",
    "lower-case": "names of headers in lower case, folded over two lines",
    "no-cseq": "answers have no CSeq",
    "wrong-cseq": "every answer has CSeq 1",
    "dribble": "answers come byte by byte, 4 ms apart",
    "continue": "100 Continue before every answer",
    # Of addresses
    "base-relative": "Content-Base: /live/",
    "base-star": "Content-Base: *",
    "base-none": "no Content-Base",
    "control-absolute": "the control address is absolute, with a host that leads nowhere",
    "control-query": "the control address has a query of its own",
    "control-rfc": "knows the control address only as RFC 3986 resolves it: an absolute path",
    "control-none": "no control address at all",
    "redirect-twice": "redirects, closes the connection, and redirects again",
    # Of passwords
    "basic": "basic authentication",
    "digest-odd": "digest with qop=auth-int,auth, algorithm in quotes, opaque with quotes in it, no comma between two",
    "digest-both": "offers SHA-256 first and knows MD5 alone",
    "digest-session": "digest with algorithm MD5-sess",
    "digest-lines": "three headers: NTLM, Basic, Digest",
    "close-after-401": "closes the connection after each 401",
    # Of the session
    "play-late": "packets come one second before PLAY's answer",
    "channels-other": "SETUP's answer says other channels than were asked for",
    "channels-wrong": "packets come on another channel than SETUP's answer says",
    "keep-alive-404": "timeout=4, and every request after PLAY is answered 404",
    "keep-alive-needed": "timeout=4, and without a request every 4 s the stream ends",
    "range-457": "PLAY with a Range is refused",
    "get-parameter-needed": "timeout=4, and without a GET_PARAMETER every 4 s the stream ends; other requests do not count",
    "time-out-of-play": "SETUP says no timeout, PLAY says timeout=4, and without a request every 4 s the stream ends",
    "session-spaces": "the session's name has spaces in it, and requests with another one are refused",
    "no-answers": "no request is answered once PLAY was",
    # Of the description
    "audio-first": "an audio medium first, H.265 beside the H.264",
    "no-rtpmap": "no a=rtpmap",
    "no-sprop": "a=fmtp has no parameter sets",
    "no-fmtp": "no a=fmtp",
    "sets-in-description": "parameter sets are nowhere but in the description",
    "pps-in-description": "picture parameter sets are nowhere but in the description, sequence parameter sets are in both",
    "sprop-byte-stream": "the description has its parameter sets in one, with start codes, and they are nowhere else",
    # Of packets
    "other-channels": "packets on channels that nobody asked for, empty ones too",
    "rtcp": "RTCP that makes no sense, and a BYE every 3 s",
    "padding": "packets are padded; every other one says so and is not",
    "extension": "packets have a header extension and contributing sources",
    "not-rtp": "every 2 s a packet of 50 bytes that is no RTP",
    "garbage-dollar": "every 3 s 60 bytes that begin like a packet of 60,000",
    "half-messages": "every 3 s the beginning of a message without its end, or a body that is said and not there",
    "source-changes": "every 3 s another SSRC, sequence and time stamp",
    "sequence-restarts": "every 3 s the sequence begins anew",
    "stamps-jump": "time stamps begin before their end, and every 3 s they jump, forwards and back",
    "stamps-stuck": "all packets have one time stamp",
    "stamps-of-sets": "parameter sets have time stamps of their own",
    "no-markers": "no packet has the marker bit",
    "all-markers": "every packet has the marker bit",
    "twice": "every packet comes twice",
    "aggregates": "parameter sets and the first slice, if it is short, in one STAP-A",
    "byte-stream": "start codes in the packets",
    "no-end-bit": "the last fragment is not marked as such",
    "sets-turned": "picture parameter sets in front of the sequence parameter set",
    "extra-units": "delimiters, filler, end of sequence before key pictures, SEI",
    "fields": "two access units of the clip, fields of one picture, have one time stamp, and one marker at the end",
    "fields-marked": "the same, with a marker at the end of each",
    "empty-end": "the last fragment is empty",
    "small": "fragments of 40 bytes, of parameter sets too",
    "layers": "a prefix before each slice and a slice of another layer behind it (H.264, annex G)",
    "sei-behind": "SEI behind the slices, with the marker",
    "burst": "all pictures of a second at once",
    "rtcp-among": "RTCP on the channel of the pictures",
    "swapped": "every 4 s two packets in the wrong order",
    "loss": "every 4 s a packet is missing",
    "no-sei": "the clip's SEI is left out: recovery points are not marked",
}
connections = 0


def nals(stream):
    starts, i = [], 0
    while (j := stream.find(b"\0\0\1", i)) >= 0:
        starts.append(j)
        i = j + 3
    return [stream[a + 3:b].rstrip(b"\0") for a, b in zip(starts, starts[1:] + [len(stream)])]


def units(stream):
    result, current, slices = [], [], False
    for nal in nals(stream):
        k = nal[0] & 31
        if current and ((k in (6, 7, 8, 9) and slices) or (k in (1, 5) and slices and nal[1] & 0x80)):
            result.append(current)
            current, slices = [], False
        current.append(nal)
        slices |= k in (1, 5)
    return result + [current]


class Camera:
    def __init__(self, args):
        self.args, self.quirks = args, set(args.quirk)
        self.units = units(open(args.clip, "rb").read())[args.first:]
        if self.has("no-sei"):
            self.units = [[n for n in u if n[0] & 31 != 6] for u in self.units]
        self.sps = next((n for u in self.units for n in u if n[0] & 31 == 7), b"")
        self.pps = [n for n in dict.fromkeys(n for u in self.units for n in u if n[0] & 31 == 8)]
        told = [7, 8] if self.has("sets-in-description", "sprop-byte-stream") else []
        told += [8] if self.has("pps-in-description") else []
        self.units = [[n for n in u if n[0] & 31 not in told] for u in self.units]
        if self.has("fields"):
            self.units = [a + b for a, b in zip(self.units[::2], self.units[1::2])]

    def has(self, *names):
        return any(n in self.quirks for n in names)

    def sdp(self, base):
        sets = [self.sps, *self.pps]
        sprop = ",".join(base64.b64encode(s).decode() for s in sets)
        if self.has("sprop-byte-stream"):
            sprop = base64.b64encode(b"".join(b"\0\0\0\1" + s for s in sets)).decode()
        fmtp = "a=fmtp:96 packetization-mode=1;profile-level-id=42001f"
        fmtp += "" if self.has("no-sprop") else ";sprop-parameter-sets=" + sprop
        lines = ["v=0", "o=- 1 1 IN IP4 0.0.0.0", "s=field", "c=IN IP4 0.0.0.0", "t=0 0", "a=control:*"]
        if self.has("audio-first"):
            lines += ["m=audio 0 RTP/AVP 0", "a=control:track0"]
            lines += ["m=video 0 RTP/AVP 97 96", "a=rtpmap:97 H265/90000"]
        else:
            lines += ["m=video 0 RTP/AVP 96"]
        lines += [] if self.has("no-rtpmap") else ["a=rtpmap:96 H264/90000"]
        lines += [] if self.has("no-fmtp") else [fmtp]
        lines += [] if self.has("control-none") else ["a=control:" + self.control()]
        end = "\r\n"
        text = (end.join(lines) + end).encode()
        return text.replace(b"s=field", b"s=K\xfcche") if self.has("sdp-latin1") else text


    def control(self):
        if self.has("control-absolute"):
            return "rtsp://192.0.2.1:8554/live/track1"
        return "/track1" if self.has("control-rfc") else "track1?x=1&y=2" if self.has("control-query") else "track1"

    def knows(self, uri, base):
        """Whether SETUP's address is the one that this camera means."""
        if self.has("control-none"):
            return uri.rstrip("/") == base.rstrip("/")
        if self.has("control-absolute"):
            return uri == self.control()
        if self.has("control-rfc"):
            return re.fullmatch(r"rtsp://[^/]+/track1", uri) is not None
        return uri == base + self.control()


class Session:
    def __init__(self, camera, connection, number):
        self.camera, self.connection, self.number = camera, connection, number
        self.lock, self.playing, self.channel = threading.Lock(), False, 0
        self.nonce, self.good, self.alive = os.urandom(8).hex(), False, True
        self.played = self.heard = 0.0
        self.base = ""
        self.has = camera.has

    def send(self, data):
        with self.lock:
            self.connection.sendall(data)

    def answer(self, request, status, headers=(), body=b""):
        if self.has("slow-answers"):
            time.sleep(4)
        cseq = [] if self.has("no-cseq") else ["CSeq: " + ("1" if self.has("wrong-cseq") else request["cseq"])]
        lines = [f"RTSP/1.0 {status}", *cseq, *headers]
        if body:
            lines += [f"Content-Length: {len(body)}"]
        if self.camera.args.say:
            print(f"[{self.number}] <", " | ".join(lines), flush=True)
        if self.has("lower-case"):
            lines = [lines[0]] + [n.lower() + ":\r\n  " + v.strip() for n, _, v in (l.partition(":") for l in lines[1:])]
        if self.has("continue"):
            self.send(b"RTSP/1.0 100 Continue\r\n\r\n")
        end = "\n" if self.has("lf-only") else "\r\n"
        data = end.join(lines).encode() + 2 * end.encode() + body
        if self.has("dribble") and not self.playing:
            for at in range(len(data)):
                self.send(data[at:at + 1])
                time.sleep(0.004)
        else:
            self.send(data)

    def challenge(self, stale=""):
        self.nonce = os.urandom(8).hex()
        digest = f'WWW-Authenticate: Digest realm="field", nonce="{self.nonce}"'
        if self.has("sha256-only"):
            return [digest + ", algorithm=SHA-256" + stale]
        if self.has("basic"):
            return ['WWW-Authenticate: Basic realm="field"']
        if self.has("digest-odd"):
            return [digest + ' QOP="auth-int,auth" ,algorithm="MD5", opaque="a \\"b\\" c", charset=UTF-8,']
        if self.has("digest-both"):
            return [digest + ", algorithm=SHA-256", digest + ", algorithm=MD5"]
        if self.has("digest-session"):
            return [digest + ', algorithm=MD5-sess, qop="auth"']
        if self.has("digest-lines"):
            return ["WWW-Authenticate: NTLM", 'WWW-Authenticate: Basic realm="field"', digest]
        return [digest + stale]

    def authorised(self, request):
        args = self.camera.args
        if not args.user:
            return True
        given = request.get("authorization", "")
        if self.has("basic"):
            return given == "Basic " + base64.b64encode(f"{args.user}:{args.password}".encode()).decode()
        fields = {k.lower(): q or v for k, q, v in re.findall(r'(\w+)=(?:"((?:[^"\\]|\\.)*)"|([^,\s]*))', given)}
        if not given.startswith("Digest ") or self.has("digest-both") and "SHA" in fields.get("algorithm", ""):
            return False
        if self.has("digest-odd") and (fields.get("opaque") != 'a \\"b\\" c' or fields.get("qop") != "auth"):
            return False
        if self.has("close-after-401"):
            self.nonce = getattr(self.camera, "nonce", self.nonce)
        if fields.get("nonce") != self.nonce:
            return False
        new = hashlib.sha256 if fields.get("algorithm", "").upper().startswith("SHA-256") else hashlib.md5
        h = lambda text: new(text.encode()).hexdigest()
        first = h(f"{args.user}:field:{args.password}")
        if fields.get("algorithm", "").endswith("-sess"):
            first = h(f"{first}:{self.nonce}:{fields['cnonce']}")
        second = h(f"{request['method']}:{fields.get('uri')}")
        middle = f"{self.nonce}:{fields['nc']}:{fields['cnonce']}:{fields['qop']}" if fields.get("qop") else self.nonce
        return fields.get("response") == h(f"{first}:{middle}:{second}")

    def run(self):
        buffer = b""
        try:
            while True:
                while buffer[:1] == b"$" and len(buffer) >= 4 and len(buffer) >= 4 + struct.unpack(">H", buffer[2:4])[0]:
                    buffer = buffer[4 + struct.unpack(">H", buffer[2:4])[0]:]
                if buffer[:1] != b"$" and b"\r\n\r\n" in buffer:
                    head, _, buffer = buffer.partition(b"\r\n\r\n")
                    first, *rest = head.decode("utf-8", "replace").split("\r\n")
                    if not first.startswith("RTSP/"):
                        request = {n.strip().lower(): v.strip() for n, _, v in (l.partition(":") for l in rest)}
                        request["method"], request["uri"] = (first.split() + ["", ""])[:2]
                        length = int(request.get("content-length", 0))
                        while len(buffer) < length:
                            buffer += self.connection.recv(4096)
                        buffer = buffer[length:]
                        if self.camera.args.say:
                            print(f"[{self.number}] >", first, request.get("authorization", "")[:60], flush=True)
                        if not self.handle(request):
                            return
                    continue
                data = self.connection.recv(65536)
                if not data:
                    return
                buffer += data
        except OSError:
            pass
        finally:
            self.alive = False
            self.connection.close()

    def content_base(self, base):
        if self.has("base-none"):
            return []
        return ["Content-Base: " + ("/live/" if self.has("base-relative") else "*" if self.has("base-star") else base)]

    def handle(self, request):
        method, quirk = request["method"], self.has
        if method == "GET_PARAMETER" or not quirk("get-parameter-needed") or not self.playing:
            self.heard = time.monotonic()
        if self.playing and quirk("no-answers") and method != "TEARDOWN":
            return True
        if quirk("session-spaces") and "session" in request and request["session"] != self.name():
            self.answer(request, "454 Session Not Found")
            return True
        if self.playing and quirk("keep-alive-404") and method != "TEARDOWN":
            self.answer(request, "404 Not Found")
            return True
        if method == "OPTIONS":
            self.answer(request, "200 OK", ["Public: OPTIONS, DESCRIBE, SETUP, TEARDOWN, PLAY, GET_PARAMETER"])
            return True
        if not self.authorised(request):
            stale = ', stale="TRUE"' if quirk("stale-nonce") and request.get("authorization") else ""
            self.answer(request, "401 Unauthorized", self.challenge(stale))
            if quirk("close-after-401"):
                self.camera.nonce = self.nonce
                return False
            return True
        if quirk("stale-nonce"):
            self.nonce = "used up"
        base = request["uri"].rstrip("/") + "/"
        if method == "DESCRIBE":
            if quirk("redirect") and not request["uri"].rstrip("/").endswith("/moved"):
                self.answer(request, "302 Moved Temporarily", [f"Location: {request['uri'].rstrip('/')}/moved"])
                return True
            if quirk("redirect-twice") and not request["uri"].endswith("/b"):
                last = request["uri"].rsplit("/", 1)[-1]
                self.answer(request, "301 Moved", [f"Location: /live/{'b' if last == 'a' else 'a'}"])
                return last == "a"
            kind = "application/sdp; charset=utf-8" if quirk("content-type-charset") else "application/sdp"
            self.answer(request, "200 OK", [f"Content-Type: {kind}", *self.content_base(base)], self.camera.sdp(base))
        elif method == "SETUP":
            self.base = self.base or re.sub(r"(/live(/moved|/b)?).*", r"\1/", request["uri"])
            if not self.camera.knows(request["uri"], self.base):
                self.answer(request, "404 Not Found")
                return True
            asked = re.search(r"interleaved=(\d+)-(\d+)", request.get("transport", ""))
            if not asked:
                self.answer(request, "461 Unsupported Transport")
                return True
            self.channel = int(asked[1]) + (4 if quirk("channels-other") else 0)
            parts = ["RTP/AVP/TCP", "unicast"]
            if not quirk("transport-no-interleaved"):
                parts += [f"interleaved={self.channel}-{self.channel + 1}"]
            self.channel += 8 if quirk("channels-wrong") else 0
            short = quirk("keep-alive-404", "keep-alive-needed", "get-parameter-needed", "no-answers")
            time_out = "0" if quirk("session-timeout-zero") else "4" if short else "60"
            session = f"Session: {self.name()}" + ("" if quirk("time-out-of-play") else f";timeout={time_out}")
            self.answer(request, "200 OK", ["Transport: " + ";".join(parts), session])
        elif method == "PLAY" and quirk("range-457") and "range" in request:
            self.answer(request, "457 Invalid Range")
        elif method == "PLAY":
            if quirk("play-late"):
                self.begin()
                time.sleep(1)
            information = "seq=1;rtptime=0" if quirk("rtpinfo-no-url") else f"url={base}track1;seq=1;rtptime=0"
            session = f"Session: {self.name()}" + (";timeout=4" if quirk("time-out-of-play") else "")
            self.answer(request, "200 OK", [session, "Range: npt=0.000-", f"RTP-Info: {information}"])
            self.begin()
        elif method == "TEARDOWN":
            self.answer(request, "200 OK")
            return False
        else:
            self.answer(request, "200 OK", [f"Session: {self.name()}"])
        return True

    def name(self):
        return "12 34 AB CD" if self.has("session-spaces") else "1234ABCD"

    def begin(self):
        if not self.playing:
            self.playing, self.played = True, time.monotonic()
            threading.Thread(target=self.play, daemon=True).start()

    def play(self):
        try:
            self.stream()
        except OSError:
            pass

    def stream(self):
        sequence, ssrc, step = 1, random.getrandbits(32), 90000 // self.camera.args.rate
        offset = 2**32 - 5 * step if self.has("stamps-jump") else 0
        marks, held = {}, b""

        def due(name, seconds):
            if not self.has(name) or time.monotonic() - marks.setdefault(name, self.played) < seconds:
                return False
            marks[name] = time.monotonic()
            return True

        number = 0
        while self.alive:
            for unit in self.camera.units:
                stamp = 0 if self.has("stamps-stuck") else offset + number * step
                needed = self.has("keep-alive-needed", "get-parameter-needed", "time-out-of-play")
                if needed and time.monotonic() - self.heard > 4:
                    self.connection.shutdown(socket.SHUT_RDWR)
                if due("garbage", 3):
                    self.send(bytes(random.randrange(1, 35) for _ in range(37)))
                if due("garbage-dollar", 3):
                    self.send(b"$" + struct.pack(">BH", self.channel + random.randrange(9), 60000) + bytes(range(40, 96)))
                if due("half-messages", 3):
                    half = ("RTSP/1.0 200 OK\r\nCSeq: 4\r\n", "RTSP/", "PLAY ", "RTSP/1.0 200 OK\r\nContent-Length: 99999\r\n\r\n",
                            "RTSP/1.0 200 OK\r\nContent-Length: 60000\r\n\r\n")
                    self.send(random.choice(half).encode())
                if due("server-request", 5):
                    self.send(b"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\nSession: 1234ABCD\r\n\r\n")
                if due("not-rtp", 2):
                    self.send(b"$" + struct.pack(">BH", self.channel, 50) + bytes(range(50)))
                if self.has("other-channels"):
                    for channel, length in ((7, 40), (self.channel + 1, 0), (200, 12), (9, 0)):
                        self.send(b"$" + struct.pack(">BH", channel, length) + (b"\x80\x60" * 20)[:length])
                if self.has("rtcp"):
                    self.send(b"$" + struct.pack(">BH", self.channel + 1, 28) + b"\x80\xc8\xff\xff" + bytes(24))
                if due("rtcp", 3):
                    self.send(b"$" + struct.pack(">BHII", self.channel + 1, 8, 0x81cb0001, ssrc))
                if due("source-changes", 3):
                    sequence, ssrc, offset = random.getrandbits(16), random.getrandbits(32), random.getrandbits(32)
                if due("sequence-restarts", 3):
                    sequence = random.choice((0, 1, 40000))
                if due("stamps-jump", 3):
                    offset += random.choice((-1, 1)) * 90000 * 5000
                packets = []  # payload, marker, stamp
                if due("nal-29", 2):
                    packets.append((b"\x7d\x85\x00\x00\x11\x22", False, stamp))
                if self.has("sets-turned"):
                    unit = sorted(unit, key=lambda n: n[0] & 31 != 8)
                if self.has("extra-units"):
                    end = [b"\x0a"] if number and any(n[0] & 31 == 5 for n in unit) else []
                    unit = end + [b"\x09\xf0", b"\x0c" + b"\xff" * 40, b"\x06\x05\x03abc\x80", *unit]
                if self.has("aggregates"):
                    short = [n for n in unit if len(n) < 400]
                    if len(short) > 1 and short == unit[:len(short)]:
                        whole = b"\x78" + b"".join(struct.pack(">H", len(n)) + n for n in short)
                        packets.append((whole, len(short) == len(unit), stamp))
                        unit = unit[len(short):]
                if self.has("layers"):
                    before, behind = b"\x6e\x40\x80\x07", b"\x74\x40\x80\x07\x88\x80"
                    unit = [m for n in unit for m in ([before, n, behind] if n[0] & 31 in (1, 5) else [n])]
                if self.has("sei-behind"):
                    unit = [*unit, b"\x06\x05\x03abc\x80"]
                if self.has("byte-stream"):
                    unit = [b"\0\0\0\1".join([b"", *[n for n in unit if len(n) < 400]]), *[n for n in unit if len(n) >= 400]]
                    unit = [n for n in unit if n]
                for i, nal in enumerate(unit):
                    at, mark = stamp, i == len(unit) - 1
                    if self.has("stamps-of-sets") and nal[0] & 31 in (7, 8):
                        at -= 9
                    if self.has("fields-marked") and nal[0] & 31 in (1, 5):
                        mark = True
                    size = 40 if self.has("small") else 1300
                    if len(nal) <= (4 if self.has("small") else 1300):
                        packets.append((nal, mark, at))
                        continue
                    pieces = [nal[1:][k:k + size] for k in range(0, len(nal) - 1, size)]
                    pieces += [b""] if self.has("empty-end") or len(pieces) == 1 else []
                    last = 0 if self.has("no-end-bit") else 0x40
                    for k, piece in enumerate(pieces):
                        head = (0x80 if k == 0 else 0) | (last if k == len(pieces) - 1 else 0) | nal[0] & 31
                        packets.append((bytes([nal[0] & 0xe0 | 28, head]) + piece, mark and k == len(pieces) - 1, at))
                for payload, mark, at in packets:
                    mark = not self.has("no-markers") and (mark or self.has("all-markers"))
                    first, middle, behind = 0x80, b"", b""
                    if self.has("extension"):
                        first, middle = 0x92, b"\1\2\3\4\5\6\7\x08\xbe\xde\0\1abcd"
                    if self.has("padding") and (sequence % 2 == 0 or payload[-1] > len(payload)):
                        first |= 0x20
                        behind = b"\0\0\3" if sequence % 2 == 0 else b""
                    header = struct.pack(">BBHII", first, 96 | (0x80 if mark else 0), sequence & 0xffff, at & 0xffffffff, ssrc)
                    sequence += 1
                    if due("loss", 4):
                        continue
                    whole = header + middle + payload + behind
                    if self.has("rtcp-among"):
                        self.send(b"$" + struct.pack(">BHBBHI", self.channel, 8, 0x80, 200, 1, ssrc))
                    if due("swapped", 4):
                        held = whole
                        continue
                    for _ in range(2 if self.has("twice") else 1):
                        self.send(b"$" + struct.pack(">BH", self.channel, len(whole)) + whole)
                    if held:
                        self.send(b"$" + struct.pack(">BH", self.channel, len(held)) + held)
                        held = b""
                number += 1
                if self.has("burst") and number % self.camera.args.rate:
                    continue
                wait = self.played + number / self.camera.args.rate - time.monotonic()
                if wait > 0:
                    time.sleep(wait)
                if not self.alive:
                    return


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("clip", nargs="?")
    parser.add_argument("--quirk", action="append", default=[], choices=sorted(QUIRKS))
    parser.add_argument("--port", type=int, default=8554)
    parser.add_argument("--bind", default="127.0.0.1")
    parser.add_argument("--user")
    parser.add_argument("--password", default="")
    parser.add_argument("--rate", type=int, default=15)
    parser.add_argument("--first", type=int, default=0, help="begins with this access unit of the clip")
    parser.add_argument("--say", action="store_true")
    parser.add_argument("--list", action="store_true")
    args = parser.parse_args()
    if args.list or not args.clip:
        for name, text in QUIRKS.items():
            print(f"{name:26} {text}")
        return
    passwords = ("stale-nonce", "sha256-only", "basic", "close-after-401")
    if not args.user and any(q in passwords or q.startswith("digest-") for q in args.quirk):
        args.user, args.password = "viewer", "secret"
    camera = Camera(args)
    listener = socket.create_server((args.bind, args.port), reuse_port=False)
    print(f"rtsp://{args.bind}:{listener.getsockname()[1]}/live", flush=True)
    global connections
    while True:
        connection, _ = listener.accept()
        connections += 1
        threading.Thread(target=Session(camera, connection, connections).run, daemon=True).start()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(0)
