//! Cameras with bad habits: what plays in ffmpeg plays here. Each row of [`ROWS`] is a camera of
//! `tests/camera/rtsp_camera.py` that plays a clip in real time; what is wanted of all is the same: pictures all the time
//! from the first seconds on, in one session, with time stamps that rise, and a status that says what is true.
//!
//! `BELVEDERE_LONG=1` watches each for a minute.

mod appliance;

use appliance::{Appliance, Process, folder};
use belvedere_camera::machine::Policy;
use belvedere_frames::FrameReader;
use belvedere_interfaces::camera::{StreamConfiguration, StreamState};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Pictures a second.
const RATE: u64 = 15;
/// Cameras at a time: each is a program of its own.
const AT_A_TIME: usize = 24;

/// One camera, and what is wanted of it.
struct Row {
    /// Its name in the table of field cases, or one like it.
    name: &'static str,
    clip: &'static str,
    arguments: &'static [&'static str],
    /// Seconds up to the first picture.
    first: u64,
    /// Of 100 pictures so many, at least. 96 allows for the edges of the time that is watched.
    share: u64,
    size: (u32, u32),
}

const SIZE: (u32, u32) = (320, 240);

/// A clip as it is.
const fn clip(name: &'static str, size: (u32, u32)) -> Row {
    Row { name, clip: name, arguments: &[], first: 5, share: 96, size }
}

/// The plain clip with a quirk.
const fn quirk(name: &'static str, arguments: &'static [&'static str]) -> Row {
    Row { name, clip: "plain", arguments, first: 5, share: 96, size: SIZE }
}

macro_rules! quirks {
    ($($name:literal),*) => { [$(quirk($name, &["--quirk", $name])),*] };
}

fn rows() -> Vec<Row> {
    let mut rows = vec![
        // The table of field cases: clips …
        clip("plain", SIZE),
        clip("two-pps", SIZE),
        clip("sps-buffer-too-small", SIZE),
        clip("recovery-points-only", SIZE),
        clip("cropped", (318, 244)),
        clip("b-pyramid", SIZE),
        // … and quirks with times of their own.
        Row { first: 19, ..quirk("slow-answers", &["--quirk", "slow-answers", "--user", "viewer", "--password", "secret"]) },
        Row { first: 9, ..quirk("dribble", &["--quirk", "dribble"]) },
        // Pictures are lost up to the next key picture, one second later at most: one time in four seconds.
        Row { share: 72, ..quirk("loss", &["--quirk", "loss"]) },
        // Others of the kind, made here: see `made`.
        Row { arguments: &["--quirk", "no-sei"], clip: "recovery-points-only", ..clip("no-key-pictures", SIZE) },
        // Begun in its middle, and played in a loop without its beginning: at each turn pictures are missing.
        Row { arguments: &["--first", "5"], first: 8, share: 70, ..clip("intra-refresh", (176, 144)) },
        Row { share: 90, ..clip("size-changes", (0, 0)) },
        Row { share: 90, ..clip("profile-changes", (176, 144)) },
        clip("interlaced", (176, 144)),
        clip("slices", (176, 144)),
        Row { arguments: &["--quirk", "all-markers"], clip: "slices", share: 90, ..clip("slices-all-markers", (176, 144)) },
        Row { arguments: &["--quirk", "no-markers"], clip: "slices", ..clip("slices-no-markers", (176, 144)) },
        clip("monochrome", (176, 144)),
        clip("cropped-all-sides", (320 - 2 - 4, 240 - 6 - 8)),
        clip("long-references", (176, 144)),
        Row { clip: "fields", arguments: &["--quirk", "fields"], ..clip("fields", (64, 64)) },
        Row {
            clip: "fields",
            arguments: &["--quirk", "fields", "--quirk", "fields-marked"],
            ..clip("fields-marked", (64, 64))
        },
        Row { clip: "fields", arguments: &["--rate", "30"], ..clip("fields-stamped", (64, 64)) },
        Row { share: 72, ..quirk("swapped", &["--quirk", "swapped"]) },
    ];
    rows.extend(quirks![
        // The table of field cases.
        "stale-nonce", "sha256-only", "nal-29", "garbage", "server-request", "content-type-charset", "session-timeout-zero",
        "transport-no-interleaved", "rtpinfo-no-url", "redirect", "sdp-latin1", // Others of the kind.
        "lf-only", "lower-case", "no-cseq", "wrong-cseq", "continue", "base-relative", "base-star", "base-none",
        "control-absolute", "control-query", "control-rfc", "control-none", "redirect-twice", "basic", "digest-odd",
        "digest-both", "digest-session", "digest-lines", "close-after-401", "play-late", "channels-other", "channels-wrong",
        "keep-alive-404", "keep-alive-needed", "range-457", "audio-first", "no-rtpmap", "no-sprop", "no-fmtp",
        "other-channels", "rtcp", "padding", "extension", "not-rtp", "garbage-dollar", "source-changes",
        "sequence-restarts", "stamps-jump", "stamps-stuck", "stamps-of-sets", "no-markers", "all-markers", "twice",
        "aggregates", "byte-stream", "no-end-bit", "extra-units", "get-parameter-needed", "time-out-of-play",
        "session-spaces", "no-answers", "sets-in-description", "pps-in-description", "sprop-byte-stream", "empty-end",
        "small", "layers", "sei-behind", "burst", "rtcp-among", "half-messages", "sets-turned"
    ]);
    rows
}

/// Clips that ffmpeg makes; the others lie in tests/camera/clips.
fn made(folder: &Path, clip: &str) -> PathBuf {
    let path = folder.join(format!("{clip}.h264"));
    let encode = |to: &Path, source: &str, x264: &str, more: &[&str]| {
        let mut command = Command::new("ffmpeg");
        command.args(["-v", "error", "-y", "-f", "lavfi", "-i", &format!("testsrc2=rate=15:{source}")]);
        command.args(["-c:v", "libx264", "-preset", "veryfast", "-crf", "30", "-threads", "1"]).args(more);
        command.args(["-x264-params", x264, "-f", "h264"]).arg(to);
        assert!(command.status().expect("ffmpeg runs").success(), "{clip}");
    };
    let usual = "size=176x144:duration=3";
    match clip {
        "intra-refresh" => encode(&path, usual, "intra-refresh=1:keyint=30:bframes=0", &[]),
        "interlaced" => encode(&path, usual, "tff=1:keyint=15", &["-flags", "+ilme+ildct"]),
        "slices" => encode(&path, usual, "slices=4:keyint=15:bframes=0", &[]),
        "monochrome" => encode(&path, usual, "keyint=15", &["-pix_fmt", "gray"]),
        "long-references" => encode(&path, usual, "ref=8:bframes=5:b-adapt=0:b-pyramid=strict:keyint=40:open-gop=1", &[]),
        "size-changes" | "profile-changes" => {
            let (one, other) = (folder.join(format!("{clip}-1")), folder.join(format!("{clip}-2")));
            if clip == "size-changes" {
                encode(&one, "size=176x144:duration=2", "keyint=15:bframes=0", &[]);
                encode(&other, "size=320x240:duration=2", "keyint=15:bframes=0", &[]);
            } else {
                encode(&one, "size=176x144:duration=2", "keyint=15:bframes=0", &["-profile:v", "baseline"]);
                encode(&other, "size=176x144:duration=2", "keyint=15:bframes=0:ref=3", &["-profile:v", "high"]);
            }
            let both = [std::fs::read(one).unwrap(), std::fs::read(other).unwrap()].concat();
            std::fs::write(&path, both).unwrap();
        }
        "cropped-all-sides" => {
            let crop = "h264_metadata=crop_left=2:crop_right=4:crop_top=6:crop_bottom=8";
            let mut command = Command::new("ffmpeg");
            command.args(["-v", "error", "-y", "-f", "h264", "-i"]).arg(self::folder("clips/plain.h264"));
            command.args(["-c", "copy", "-bsf:v", crop, "-f", "h264"]).arg(&path);
            assert!(command.status().expect("ffmpeg runs").success());
        }
        _ => return self::folder("clips").join(format!("{clip}.h264")),
    }
    path
}

/// A camera that runs, and the connections over which it was asked to play.
struct Camera {
    _process: Process,
    url: String,
    sessions: Arc<Mutex<BTreeSet<String>>>,
}

fn start(row: &Row, clip: &Path) -> Camera {
    let mut child = Command::new(folder("rtsp_camera.py"))
        .arg(clip)
        .args(["--port", "0", "--say"])
        .args(row.arguments)
        .stdout(Stdio::piped())
        .spawn()
        .expect("tests/camera/rtsp_camera.py starts");
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut url = String::new();
    output.read_line(&mut url).unwrap();
    let sessions = Arc::new(Mutex::new(BTreeSet::new()));
    let seen = sessions.clone();
    std::thread::spawn(move || {
        for line in output.lines().map_while(Result::ok) {
            // "[connection] > PLAY …"
            if let Some((connection, request)) = line.split_once(" > ")
                && request.starts_with("PLAY ")
            {
                seen.lock().unwrap().insert(connection.to_owned());
            }
        }
    });
    Camera { _process: Process(child), url: url.trim().to_owned(), sessions }
}

/// What was seen of a stream.
#[derive(Default)]
struct Seen {
    first: Option<Duration>,
    pictures: u64,
    sizes: BTreeSet<(u32, u32)>,
    longest_silence: Duration,
    backwards: u32,
}

/// Counts by the pictures' numbers, which go on whether somebody looks or not: the machine may be busy.
fn look(mut reader: FrameReader, first: Duration, length: Duration) -> Seen {
    let mut seen = Seen::default();
    let begin = Instant::now();
    let (mut last, mut end) = (begin, begin + first + length);
    let (mut first_number, mut last_number, mut last_time) = (None, 0, i64::MIN);
    while Instant::now() < end {
        let Ok(Some(frame)) = reader.next(Duration::from_millis(200)) else { continue };
        let now = Instant::now();
        if first_number.is_none() {
            seen.first = Some(now - begin);
            first_number = Some(frame.sequence);
            end = now + length;
        } else {
            seen.longest_silence = seen.longest_silence.max(now - last);
        }
        last = now;
        last_number = frame.sequence;
        seen.backwards += u32::from(frame.timestamp_us <= last_time);
        last_time = frame.timestamp_us;
        seen.sizes.insert((frame.layout().width, frame.layout().height));
    }
    seen.pictures = first_number.map_or(0, |number| last_number - number);
    seen.longest_silence = seen.longest_silence.max(last.elapsed());
    seen
}

#[test]
#[ignore = "takes a minute and needs ffmpeg: tests/camera/run"]
fn what_plays_in_ffmpeg_plays_here() {
    let length = Duration::from_secs(if std::env::var_os("BELVEDERE_LONG").is_some() { 60 } else { 10 });
    let only = std::env::var("BELVEDERE_CAMERA").ok();
    let place = tempfile::tempdir().unwrap();
    let appliance = Appliance::new(Policy::default());
    let mut wrong = Vec::new();
    println!("{:26} {:>8} {:>8} {:>8} {:>8}  status", "camera", "first", "pictures", "silence", "sessions");
    let rows: Vec<Row> = rows()
        .into_iter()
        .filter(|row| only.as_ref().is_none_or(|only| only.split(',').any(|only| only == row.name)))
        .collect();
    for rows in rows.chunks(AT_A_TIME) {
        let cameras: Vec<Camera> = rows.iter().map(|row| start(row, &made(place.path(), row.clip))).collect();
        let streams = rows.iter().zip(&cameras).map(|(row, camera)| {
            let password = row.arguments.contains(&"--password")
                || row.arguments.last().is_some_and(|quirk| {
                    ["stale-nonce", "sha256-only", "basic", "close-after-401"].contains(quirk)
                        || quirk.starts_with("digest-")
                });
            StreamConfiguration {
                stream_id: row.name.into(),
                url: camera.url.clone(),
                username: password.then(|| "viewer".into()),
                password: password.then(|| "secret".into()),
            }
        });
        appliance.watch_all(streams.collect());
        let looking: Vec<_> = rows
            .iter()
            .map(|row| {
                let reader = appliance.reader_of(row.name);
                let first = Duration::from_secs(row.first + 5);
                std::thread::spawn(move || look(reader, first, length))
            })
            .collect();
        for ((row, camera), looking) in rows.iter().zip(&cameras).zip(looking) {
            let seen = looking.join().unwrap();
            let status = appliance.statuses().into_iter().find(|status| status.stream_id == row.name).unwrap();
            let sessions = camera.sessions.lock().unwrap().len();
            let first = seen.first.map_or(f64::INFINITY, |first| first.as_secs_f64());
            let silence = seen.longest_silence.as_secs_f64();
            println!(
                "{:26} {first:6.1} s {:8} {silence:6.1} s {sessions:8}  {:?} {}",
                row.name, seen.pictures, status.state, status.detail
            );
            let wanted = length.as_secs() * RATE * row.share / 100;
            let sizes_right = row.size == (0, 0) || seen.sizes == BTreeSet::from([row.size]);
            let told = format!("{}×{}", row.size.0, row.size.1);
            let told_right = row.size == (0, 0) || status.detail.starts_with(&told);
            for (right, what) in [
                (first <= row.first as f64, "the first picture comes too late"),
                (seen.pictures >= wanted, "too few pictures"),
                (seen.longest_silence <= Duration::from_secs(3), "too long without a picture"),
                (sessions == 1, "not one session"),
                (sizes_right, "pictures of another size"),
                (seen.backwards == 0, "time stamps that go back"),
                (status.state == StreamState::Playing && told_right, "the status is not true"),
            ] {
                if !right {
                    wrong.push(format!(
                        "{}: {what} ({wanted} wanted, sizes {:?}, {} backwards)",
                        row.name, seen.sizes, seen.backwards
                    ));
                }
            }
        }
        appliance.watch_all(vec![]);
    }
    assert!(wrong.is_empty(), "{} of {} cameras:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
}
