//! One camera's connection: records in, pictures offered to the ring.

use crate::convert::{Converter, size_for_applications};
use crate::gate::{Gate, Pass, Unit};
use crate::timeline::Timeline;
use crate::{AccessUnit, DecodeError, Decoder};
use belvedere_frames::{Offered, Server};
use belvedere_interfaces::access_units::{HEADER, Header, Kind, Report};
use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

/// Between two reports to `camera` at least, unless there is something new to say.
const REPORT_EVERY: Duration = Duration::from_millis(500);

/// What was done with the access units of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Statistics {
    /// Received.
    pub access_units: u64,
    /// Not decoded, because a key picture has to come first.
    pub before_key: u64,
    /// Could not be decoded.
    pub damaged: u64,
    /// Pictures decoded and offered to clients.
    pub pictures: u64,
    /// Pictures that were not fit to be shown: what they refer to was not there.
    pub unrecovered: u64,
    /// Of these, with concealed damage.
    pub concealed: u64,
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub enum End {
    /// The camera process closed it, or it failed.
    #[error("the connection ended: {0}")]
    Connection(#[source] io::Error),
    /// Not the records that belong here.
    #[error("the connection does not carry records of coded pictures")]
    Malformed,
    /// Another connection brings this stream now.
    #[error("another connection took the stream over")]
    Replaced,
    /// No decoder.
    #[error(transparent)]
    Decoder(#[from] DecodeError),
}

fn read_record(input: &mut impl Read, payload: &mut Vec<u8>) -> Result<Kind, End> {
    let mut header = [0; HEADER];
    input.read_exact(&mut header).map_err(End::Connection)?;
    let header = Header::decode(&header).map_err(|_| End::Malformed)?;
    payload.resize(header.length, 0);
    input.read_exact(payload).map_err(End::Connection)?;
    Ok(header.kind)
}

/// Reads the first record: which stream it is.
pub fn open(input: &mut impl Read) -> Result<String, End> {
    let mut payload = Vec::new();
    match read_record(input, &mut payload)? {
        Kind::Open => String::from_utf8(payload).map_err(|_| End::Malformed),
        _ => Err(End::Malformed),
    }
}

/// Decodes one stream until its connection ends; tells `reports` what comes of it. Returns why it ended, and what was
/// done.
pub fn run(
    input: &mut impl Read,
    reports: &mut impl Write,
    stream_id: &str,
    frames: &Server,
    decoder: &mut dyn Decoder,
) -> (End, Statistics) {
    let mut writer = frames.writer(stream_id);
    let mut converter = Converter::default();
    let mut gate = Gate::default();
    let mut timeline = Timeline::default();
    let mut reported: Option<(Report, Instant)> = None;
    let mut statistics = Statistics::default();
    let mut payload = Vec::new();
    // What clients were told, and what there is.
    let (mut size, mut last_size) = ((0, 0), (0, 0));
    let mut last_error = None;
    let end = loop {
        let kind = match read_record(input, &mut payload) {
            Ok(kind) => kind,
            Err(end) => break end,
        };
        let unit = match kind {
            Kind::Open => break End::Malformed,
            Kind::State { playing: true } => continue,
            Kind::State { playing: false } => {
                size = (0, 0);
                writer.condition(false, &String::from_utf8_lossy(&payload));
                continue;
            }
            Kind::AccessUnit { key, gap, intra, timestamp_us } => Unit { key, intra, gap, timestamp_us },
        };
        statistics.access_units += 1;
        match gate.pass(unit) {
            Pass::Skip => {
                statistics.before_key += 1;
                continue;
            }
            Pass::Restart => {
                decoder.reset();
                timeline.restart();
            }
            Pass::Decode => {}
        }
        let mut replaced = false;
        timeline.unit(unit.timestamp_us);
        let decoded = decoder.decode(AccessUnit { bytes: &payload, timestamp_us: unit.timestamp_us }, &mut |picture| {
            let timestamp_us = timeline.picture(picture.timestamp_us);
            if !gate.show(picture.timestamp_us, picture.unrecovered) {
                statistics.unrecovered += 1;
                return;
            }
            statistics.pictures += 1;
            statistics.concealed += u64::from(picture.concealed);
            last_size = (picture.width, picture.height);
            if size != last_size {
                size = (picture.width, picture.height);
                log::info!("stream {stream_id}: playing, {}×{}", size.0, size.1);
                writer.condition(true, &format!("{}×{}", size.0, size.1));
                last_error = None;
            }
            let (width, height) = size_for_applications(picture.width, picture.height);
            let offered =
                writer.offer(width, height, timestamp_us, |bytes, stride| converter.write(&picture, bytes, stride));
            replaced |= offered == Offered::Replaced;
        });
        if replaced {
            break End::Replaced;
        }
        let report = Report { pictures: statistics.pictures, width: last_size.0, height: last_size.1 };
        if due(reported, report) {
            reported = Some((report, Instant::now()));
            if let Err(error) = reports.write_all(&report.encode()) {
                break End::Connection(error);
            }
        }
        if let Err(error) = decoded {
            statistics.damaged += 1;
            gate.failed();
            // A broken camera sends thirty such access units a second: one line for each kind.
            if last_error.as_ref() != Some(&error) {
                log::warn!("stream {stream_id}: {error}");
                if error == DecodeError::Format {
                    writer.condition(false, &error.to_string());
                }
                last_error = Some(error);
            }
        }
    };
    log::info!("stream {stream_id}: {end}; {statistics:?}; {:?}", frames.counters(stream_id));
    (end, statistics)
}

/// Whether a report is to be sent.
fn due(before: Option<(Report, Instant)>, report: Report) -> bool {
    match before {
        None => report.pictures > 0,
        Some((before, at)) => {
            let other_size = (before.width, before.height) != (report.width, report.height);
            report.pictures > before.pictures && (other_size || at.elapsed() >= REPORT_EVERY)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use belvedere_interfaces::access_units::{MAXIMUM_ACCESS_UNIT, MAXIMUM_DETAIL, REPORT};

    /// Notes what it is given; an access unit that begins with `!` is damaged.
    #[derive(Default)]
    struct Fake {
        log: Vec<String>,
    }

    impl Decoder for Fake {
        fn decode(&mut self, unit: AccessUnit<'_>, sink: &mut dyn FnMut(crate::Picture<'_>)) -> Result<(), DecodeError> {
            let text = String::from_utf8_lossy(unit.bytes).into_owned();
            let damaged = text.starts_with('!');
            self.log.push(text);
            if damaged {
                return Err(DecodeError::Damaged("test".into()));
            }
            sink(crate::Picture {
                width: 2,
                height: 2,
                planes: [&[128; 4], &[128], &[128]],
                strides: [2, 1, 1],
                full_range: true,
                bt709: false,
                timestamp_us: unit.timestamp_us,
                concealed: false,
                unrecovered: unit.bytes.starts_with(b"?"),
            });
            Ok(())
        }

        fn reset(&mut self) {
            self.log.push("reset".into());
        }
    }

    fn record(kind: Kind, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Header::new(kind, payload).unwrap().encode().to_vec();
        bytes.extend_from_slice(payload);
        bytes
    }

    fn unit(text: &str, key: bool, gap: bool) -> Vec<u8> {
        record(Kind::AccessUnit { key, gap, intra: false, timestamp_us: 1 }, text.as_bytes())
    }

    fn feed(records: &[Vec<u8>]) -> (Vec<String>, End, Statistics) {
        let (mut fake, mut reports) = (Fake::default(), Vec::new());
        let (end, statistics) = run(&mut records.concat().as_slice(), &mut reports, "camera", &Server::new(), &mut fake);
        let mut reports = reports.chunks(REPORT).map(|bytes| Report::decode(bytes.try_into().unwrap()));
        // The first picture is told at once; the others come within less than half a second here.
        let expected = (statistics.pictures > 0).then_some(Report { pictures: 1, width: 2, height: 2 });
        assert_eq!((reports.next(), reports.next()), (expected, None));
        (fake.log, end, statistics)
    }

    #[test]
    fn decoding_begins_at_a_key_picture() {
        let (log, end, statistics) = feed(&[unit("a", false, false), unit("K", true, false), unit("b", false, false)]);
        assert_eq!(log, ["reset", "K", "b"]);
        assert!(matches!(end, End::Connection(_)));
        assert_eq!((statistics.access_units, statistics.before_key, statistics.pictures), (3, 1, 2));
    }

    #[test]
    fn after_a_loss_everything_up_to_the_next_key_picture_is_left_out() {
        let (log, ..) = feed(&[
            unit("K", true, false),
            unit("a", false, true),
            unit("b", false, false),
            unit("L", true, false),
            unit("c", false, false),
        ]);
        assert_eq!(log, ["reset", "K", "reset", "L", "c"]);
    }

    #[test]
    fn after_damage_everything_up_to_the_next_key_picture_is_left_out() {
        let (log, _, statistics) =
            feed(&[unit("K", true, false), unit("!", false, false), unit("b", false, false), unit("L", true, false)]);
        assert_eq!(log, ["reset", "K", "!", "reset", "L"]);
        assert_eq!(statistics.damaged, 1);
    }

    #[test]
    fn pictures_that_are_not_whole_are_not_offered() {
        let (log, _, statistics) = feed(&[unit("?K", true, false), unit("?b", false, false), unit("c", false, false)]);
        assert_eq!(log, ["reset", "?K", "?b", "c"]);
        assert_eq!((statistics.pictures, statistics.unrecovered), (1, 2));
    }

    #[test]
    fn a_new_size_is_told_at_once_and_the_same_one_now_and_then() {
        let report = Report { pictures: 5, width: 2, height: 2 };
        assert!(due(None, report) && !due(None, Report::default()));
        let now = Instant::now();
        assert!(!due(Some((report, now)), Report { pictures: 6, ..report }));
        assert!(due(Some((report, now)), Report { pictures: 6, width: 4, height: 2 }));
        let long_ago = now - REPORT_EVERY;
        assert!(due(Some((report, long_ago)), Report { pictures: 6, ..report }));
        assert!(!due(Some((report, long_ago)), report));
    }

    #[test]
    fn whatever_breaks_the_rules_ends_the_connection() {
        let mut too_long = Header { kind: Kind::Open, length: 8 }.encode().to_vec();
        too_long[0] = 2;
        too_long[4..8].copy_from_slice(&(MAXIMUM_ACCESS_UNIT as u32 + 1).to_le_bytes());
        for hostile in [record(Kind::Open, b"again"), too_long, vec![0xff; 64]] {
            let (log, end, _) = feed(&[unit("K", true, false), hostile, unit("b", false, false)]);
            assert_eq!(log, ["reset", "K"]);
            assert!(matches!(end, End::Malformed), "{end:?}");
        }
        for (input, expected) in [
            (record(Kind::Open, b"camera"), true),
            (record(Kind::Open, b"\xff"), false),
            (unit("K", true, false), false),
            (record(Kind::State { playing: true }, &[b'x'; MAXIMUM_DETAIL]), false),
            (vec![], false),
        ] {
            assert_eq!(open(&mut input.as_slice()).is_ok(), expected);
        }
    }
}
