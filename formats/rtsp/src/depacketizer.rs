//! H.264 in RTP (RFC 6184): from packets to access units in the byte stream format.
//!
//! Packetization modes 0 and 1 (single NAL units, STAP-A, FU-A); packets of other types are left out, as ffmpeg does.
//! Where an access unit ends is said by the marker bit, the time stamp and the slices themselves; cameras get each of
//! the first two wrong, so none is believed before it proved right:
//!
//! | the camera | an access unit ends |
//! |---|---|
//! | sets the marker at the end of each access unit (known from the second on) | with the marker, at once |
//! | never sets it, or sets it in the middle too | with the first packet of the next one |
//! | sends all with one time stamp | before a slice that begins a picture, and what lies before that slice |
//! | gives parameter sets a time stamp of their own | not there: a picture is not complete without a slice |
//!
//! After a loss the access unit is left out and the next one says so ([`CodedPicture::gap`]).

use crate::nal;
use crate::parameter_sets::{self, Name, ParameterSets};
use crate::rtp::{Continuity, Order, Packet, packet};
use std::collections::VecDeque;

const START_CODE: [u8; 4] = [0, 0, 0, 1];
const STAP_A: u8 = 24;
const FU_A: u8 = 28;

/// One access unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodedPicture {
    /// H.264, byte stream format; all parameter sets inside where decoding can begin.
    pub bytes: Vec<u8>,
    /// An IDR picture or a recovery point: decoding can begin here.
    pub key: bool,
    /// It refers to no other picture, but what follows it may refer to pictures before it.
    pub intra: bool,
    /// Something before it was lost.
    pub gap: bool,
}

/// Whether the marker bit says where access units end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Markers {
    Unknown,
    Right,
    Wrong,
}

/// The access unit that is coming in.
#[derive(Default)]
struct Current {
    bytes: Vec<u8>,
    timestamp: u32,
    slices: usize,
    idr: bool,
    recovery_point: bool,
    /// Of its slices, how many refer to other pictures.
    predicted: usize,
    sets: Vec<Name>,
    /// What came behind the last slice, if something did: it lies between two slices of the picture, or begins the next.
    tail: Option<Tail>,
    /// Where the NAL unit begins that comes in pieces.
    fragment: Option<usize>,
    /// Something of it is missing, or it is too large.
    damaged: bool,
    /// Its last packet had the marker.
    marked: bool,
}

/// How the access unit was before NAL units came that are no slices.
#[derive(Clone, Copy)]
struct Tail {
    bytes: usize,
    recovery_point: bool,
    sets: usize,
}

/// See the module.
pub struct Depacketizer {
    payload_type: u8,
    /// Bytes of an access unit.
    limit: usize,
    sets: ParameterSets,
    order: Order,
    stranger: Option<Vec<u8>>,
    current: Current,
    markers: Markers,
    /// The time stamp of the access unit that a marker ended.
    ended: Option<u32>,
    gap: bool,
    ready: VecDeque<CodedPicture>,
}

impl Depacketizer {
    /// Takes packets of one payload type. An access unit of more than `limit` bytes is left out.
    pub fn new(payload_type: u8, parameter_sets: &[Vec<u8>], limit: usize) -> Self {
        let mut sets = ParameterSets::default();
        parameter_sets.iter().for_each(|set| sets.insert(set));
        Depacketizer {
            payload_type,
            limit,
            sets,
            order: Order::default(),
            stranger: None,
            current: Current::default(),
            markers: Markers::Unknown,
            ended: None,
            // Whoever comes first has nothing before it.
            gap: true,
            ready: VecDeque::new(),
        }
    }

    /// The next access unit that is complete. To be asked after each packet until there is none.
    pub fn picture(&mut self) -> Option<CodedPicture> {
        self.ready.pop_front()
    }

    /// Takes a packet; what is none, or of another format, is left out.
    pub fn push(&mut self, bytes: &[u8]) {
        let Some(packet) = packet(bytes) else { return };
        if packet.payload_type == self.payload_type && self.continuity(&packet, bytes) {
            self.packet(&packet);
        }
    }

    /// Whether the packet is to be read.
    fn continuity(&mut self, packet: &Packet<'_>, bytes: &[u8]) -> bool {
        match self.order.follow(packet) {
            Continuity::Next => {}
            Continuity::Repeated => return false,
            Continuity::Lost => self.lose(),
            Continuity::Restart => self.restart(),
            Continuity::Stranger => {
                let before = self.stranger.take();
                let Some(before) = before
                    .as_deref()
                    .and_then(crate::rtp::packet)
                    .filter(|before| before.source == packet.source && packet.sequence.wrapping_sub(before.sequence) == 1)
                else {
                    self.stranger = Some(bytes.to_vec());
                    return false;
                };
                self.restart();
                self.order.adopt(&before);
                self.packet(&before);
                return self.continuity(packet, bytes);
            }
        }
        self.stranger = None;
        true
    }

    /// Something is missing: of the current access unit, or whole ones behind it.
    fn lose(&mut self) {
        self.current = Current::default();
        self.ended = None;
        self.gap = true;
    }

    /// The camera counts anew: what was there is complete unless it says otherwise.
    fn restart(&mut self) {
        if self.current.fragment.is_some() {
            self.lose();
        } else {
            self.flush();
            self.ended = None;
        }
    }

    fn packet(&mut self, packet: &Packet<'_>) {
        let payload = packet.payload;
        match nal::kind(payload) {
            // It took a number, and that is all.
            0 if payload.is_empty() => return,
            FU_A if payload.len() > 2 => self.fragment(packet),
            STAP_A => {
                let mut rest = &payload[1..];
                while let Some((length, behind)) = rest.split_first_chunk::<2>() {
                    let length = usize::from(u16::from_be_bytes(*length)).min(behind.len());
                    let (nal, behind) = behind.split_at(length);
                    self.whole(nal, packet.timestamp);
                    rest = behind;
                }
            }
            1..=23 => self.whole(payload, packet.timestamp),
            // A start code has no business here, and some cameras send one.
            0 if payload.starts_with(&[0, 0, 1]) => self.whole(&payload[3..], packet.timestamp),
            0 if payload.starts_with(&START_CODE) => self.whole(&payload[4..], packet.timestamp),
            // STAP-B, MTAP, FU-B are of a mode that was not agreed on; the others are nothing.
            _ => return,
        }
        self.current.marked = packet.marker;
        if packet.marker && self.markers == Markers::Right && self.current.slices > 0 {
            self.ended = Some(self.current.timestamp);
            self.flush();
        }
    }

    /// A NAL unit in one piece.
    fn whole(&mut self, nal: &[u8], timestamp: u32) {
        if nal.is_empty() {
            return;
        }
        self.begin(nal, timestamp);
        let start = self.current.bytes.len();
        self.append(&START_CODE);
        self.append(nal);
        self.finish(start);
    }

    fn fragment(&mut self, packet: &Packet<'_>) {
        let (indicator, header, piece) = (packet.payload[0], packet.payload[1], &packet.payload[2..]);
        if header & 0x80 != 0 {
            let first = indicator & 0xe0 | header & 0x1f;
            let mut beginning = [0; 32];
            let length = piece.len().min(beginning.len() - 1);
            beginning[0] = first;
            beginning[1..=length].copy_from_slice(&piece[..length]);
            self.begin(&beginning[..=length], packet.timestamp);
            self.current.fragment = Some(self.current.bytes.len());
            self.append(&START_CODE);
            self.append(&[first]);
        } else if self.current.fragment.is_none() {
            // Its beginning is missing, although no number is; or a marker lied in the middle of it.
            if self.ended == Some(packet.timestamp) {
                self.markers = Markers::Wrong;
            }
            self.current.damaged = true;
            self.current.slices += 1;
            return;
        } else if self.current.marked {
            self.markers = Markers::Wrong;
        }
        self.append(piece);
        if header & 0x40 != 0
            && let Some(start) = self.current.fragment.take()
        {
            self.finish(start);
        }
    }

    fn append(&mut self, bytes: &[u8]) {
        let current = &mut self.current;
        if current.bytes.len() + bytes.len() > self.limit {
            current.damaged = true;
        }
        if !current.damaged {
            current.bytes.extend_from_slice(bytes);
        }
    }

    /// Ends the access unit before a NAL unit that begins another one. Of `nal` the first bytes are enough.
    fn begin(&mut self, nal: &[u8], timestamp: u32) {
        if let Some(start) = self.current.fragment.take() {
            // Some cameras never mark the last piece.
            self.finish(start);
        }
        let kind = nal::kind(nal);
        let slice = matches!(kind, nal::SLICE | nal::PARTITION_A | nal::IDR).then(|| nal::slice(nal)).flatten();
        let goes_on = slice.is_some_and(|slice| !slice.first);
        if self.current.slices > 0 {
            let new_time = timestamp != self.current.timestamp;
            if goes_on {
                if self.current.marked {
                    self.markers = Markers::Wrong;
                }
                self.current.tail = None;
            } else if slice.is_some() || new_time {
                if self.current.marked && self.markers == Markers::Unknown {
                    self.markers = Markers::Right;
                }
                self.split();
            } else if self.current.tail.is_none() {
                // GStreamer repeats parameter sets in front of every slice of a key picture, so the next slice says whether
                // this one is complete.
                let Current { bytes, recovery_point, sets, .. } = &self.current;
                self.current.tail = Some(Tail { bytes: bytes.len(), recovery_point: *recovery_point, sets: sets.len() });
            }
        } else if goes_on {
            // Its beginning was lost, or it went out because a marker lied.
            if self.ended == Some(timestamp) {
                self.markers = Markers::Wrong;
            }
            self.current.damaged = true;
        }
        if self.current.slices == 0 {
            self.current.timestamp = timestamp;
        }
        if slice.is_some_and(|slice| slice.first) {
            self.ended = None;
        }
    }

    /// A NAL unit is there as a whole, from its start code at `start` on.
    fn finish(&mut self, start: usize) {
        if self.current.damaged {
            // Its slices count all the same: with them it ends.
            self.current.slices += 1;
            return;
        }
        let mut from = start + START_CODE.len();
        // Several NAL units in one, with start codes between them: some cameras cut a byte stream as it comes.
        loop {
            let end = nal::start_code(&self.current.bytes, from);
            let mut nal = &self.current.bytes[from..end.unwrap_or(self.current.bytes.len())];
            while end.is_some() && nal.last() == Some(&0) {
                // Of the next one's start code.
                nal = &nal[..nal.len() - 1];
            }
            let kind = nal::kind(nal);
            match kind {
                nal::SLICE | nal::PARTITION_A | nal::IDR => {
                    self.current.slices += 1;
                    self.current.idr |= kind == nal::IDR;
                    self.current.predicted += usize::from(!nal::slice(nal).is_some_and(|slice| slice.intra));
                }
                nal::SEI => self.current.recovery_point |= nal::recovery_point(nal),
                nal::SEQUENCE | nal::PICTURE => {
                    if let Some(name) = parameter_sets::name(nal)
                        && !self.current.sets.contains(&name)
                        && self.current.sets.len() < parameter_sets::MAXIMUM_SETS
                    {
                        self.current.sets.push(name);
                    }
                    self.sets.insert(nal);
                }
                // Nothing for a decoder, and filler may be most of a stream.
                nal::DELIMITER | nal::FILLER if end.is_none() && from == start + START_CODE.len() => {
                    self.current.bytes.truncate(start);
                    return;
                }
                _ => {}
            }
            match end {
                Some(end) => from = end + 3,
                None => return,
            }
        }
    }

    /// The current access unit is complete but for what came behind its last slice, which begins the next one.
    fn split(&mut self) {
        let mut behind = Vec::new();
        if let Some(tail) = self.current.tail.take()
            && !self.current.damaged
        {
            behind = self.current.bytes.split_off(tail.bytes);
            self.current.recovery_point = tail.recovery_point;
            self.current.sets.truncate(tail.sets);
        }
        self.flush();
        if !behind.is_empty() {
            self.append(&behind);
            self.finish(0);
        }
    }

    /// The current access unit is complete.
    fn flush(&mut self) {
        if let Some(start) = self.current.fragment.take() {
            self.finish(start);
        }
        if self.current.slices == 0 {
            // What comes before a picture waits for it.
            return;
        }
        let current = std::mem::take(&mut self.current);
        self.current.bytes = Vec::with_capacity(current.bytes.len());
        let key = current.idr || current.recovery_point;
        let intra = current.predicted == 0;
        let mut bytes = current.bytes;
        if (key || intra) && !current.damaged {
            let mut present = current.sets;
            let first_picture = present.iter().position(|(kind, _)| *kind == nal::PICTURE).unwrap_or(present.len());
            let turned = present[first_picture..].iter().any(|(kind, _)| *kind == nal::SEQUENCE);
            if turned || self.sets.missing(&present).any(|set| nal::kind(set) == nal::PICTURE) {
                // A decoder that begins here reads no picture parameter set before the sequence parameter set that it is
                // for, and that lies behind what is put in front, or behind the camera's own.
                present.retain(|(kind, _)| *kind != nal::SEQUENCE);
            }
            let missing: Vec<&[u8]> = self.sets.missing(&present).collect();
            let length: usize = missing.iter().map(|set| START_CODE.len() + set.len()).sum();
            if length > 0 {
                let mut whole = Vec::with_capacity(length + bytes.len());
                for set in missing {
                    whole.extend_from_slice(&START_CODE);
                    whole.extend_from_slice(set);
                }
                whole.append(&mut bytes);
                bytes = whole;
            }
        }
        if current.damaged || bytes.len() > self.limit {
            self.gap = true;
            return;
        }
        self.ready.push_back(CodedPicture { bytes, key, intra, gap: std::mem::take(&mut self.gap) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPS: [u8; 5] = [0x67, 66, 0, 31, 0x80];
    const PPS: [u8; 2] = [0x68, 0xce];
    /// First slice of an IDR picture, a further one, first slice of a picture that refers to others, a further one.
    const KEY: [u8; 4] = [0x65, 0b1000_1000, 0x80, 7];
    const KEY_MORE: [u8; 4] = [0x65, 0b0110_0010, 0x00, 7];
    const NEXT: [u8; 4] = [0x41, 0b1001_1000, 0x80, 7];
    const NEXT_MORE: [u8; 4] = [0x41, 0b0111_0000, 0x80, 7];
    const LIMIT: usize = 10_000;

    /// Makes packets and shows what comes out of them.
    struct Camera {
        depacketizer: Depacketizer,
        sequence: u16,
        source: u32,
    }

    impl Camera {
        fn new() -> Self {
            Self::with(&[])
        }

        fn with(sets: &[Vec<u8>]) -> Self {
            Camera { depacketizer: Depacketizer::new(96, sets, LIMIT), sequence: 65530, source: 1 }
        }

        fn send(&mut self, time: u32, marker: bool, payload: &[u8]) -> Vec<CodedPicture> {
            let mut packet = vec![0x80, 96 | u8::from(marker) << 7];
            packet.extend(self.sequence.to_be_bytes());
            packet.extend((time * 3000).to_be_bytes());
            packet.extend(self.source.to_be_bytes());
            packet.extend_from_slice(payload);
            self.sequence = self.sequence.wrapping_add(1);
            self.depacketizer.push(&packet);
            std::iter::from_fn(|| self.depacketizer.picture()).collect()
        }

        /// Sends all; what comes out in short: the NAL units' types, `k` for key, `i` for intra, `g` for a gap.
        fn shown(&mut self, packets: &[(u32, bool, &[u8])]) -> Vec<String> {
            packets.iter().flat_map(|(time, marker, payload)| self.send(*time, *marker, payload)).map(short).collect()
        }
    }

    fn short(picture: CodedPicture) -> String {
        let mut text = String::new();
        let mut at = 0;
        while let Some(found) = nal::start_code(&picture.bytes, at) {
            text.push_str(&format!("{} ", nal::kind(&picture.bytes[found + 3..])));
            at = found + 3;
        }
        for (what, letter) in [(picture.key, 'k'), (picture.intra, 'i'), (picture.gap, 'g')] {
            text.extend(what.then_some(letter));
        }
        text
    }

    #[test]
    fn from_the_second_access_unit_on_a_right_marker_ends_it_at_once() {
        let mut camera = Camera::new();
        assert!(camera.shown(&[(1, false, &SPS), (1, false, &PPS), (1, true, &KEY)]).is_empty());
        assert_eq!(camera.shown(&[(2, true, &NEXT)]), ["7 8 5 kig", "1 "]);
        assert_eq!(camera.shown(&[(3, true, &NEXT)]), ["1 "]);
        assert_eq!(camera.shown(&[(4, false, &KEY), (4, true, &KEY_MORE)]), ["7 8 5 5 ki"], "sets are put in front");
    }

    #[test]
    fn without_markers_or_with_wrong_ones_the_slices_and_time_stamps_say_it() {
        for markers in [[false; 4], [true; 4]] {
            let mut camera = Camera::new();
            let mut all = Vec::new();
            for time in 1..5 {
                let first: &[u8] = if time == 1 { &KEY } else { &NEXT };
                let more: &[u8] = if time == 1 { &KEY_MORE } else { &NEXT_MORE };
                all.extend(camera.shown(&[
                    (time, markers[0], &SPS),
                    (time, markers[1], &PPS),
                    (time, markers[2], first),
                    (time, markers[3], more),
                ]));
            }
            assert_eq!(all, ["7 8 5 5 kig", "7 8 1 1 ", "7 8 1 1 "], "{markers:?}");
        }
    }

    #[test]
    fn one_time_stamp_for_all_and_one_of_their_own_for_parameter_sets() {
        let mut camera = Camera::new();
        let packets: [(u32, bool, &[u8]); 6] = [
            (0, false, &KEY),
            (0, false, &KEY_MORE),
            (0, false, &NEXT),
            (0, false, &NEXT_MORE),
            (0, false, &NEXT),
            (0, false, &NEXT),
        ];
        assert_eq!(camera.shown(&packets), ["5 5 kig", "1 1 ", "1 "]);
        let mut camera = Camera::new();
        let packets: [(u32, bool, &[u8]); 5] =
            [(1, true, &SPS), (2, true, &PPS), (3, true, &[6, 5, 1, 1, 0x80]), (4, true, &KEY), (5, true, &NEXT)];
        assert_eq!(camera.shown(&packets), ["7 8 6 5 kig", "1 "]);
    }

    /// GStreamer's payloader with `config-interval=-1`, and a stream of slices.
    #[test]
    fn parameter_sets_between_the_slices_of_a_picture_do_not_end_it() {
        let mut camera = Camera::new();
        let key: [(u32, bool, &[u8]); 7] = [
            (1, false, &[9, 0x10]),
            (1, false, &SPS),
            (1, false, &PPS),
            (1, false, &KEY),
            (1, false, &SPS),
            (1, false, &PPS),
            (1, true, &KEY_MORE),
        ];
        assert!(camera.shown(&key).is_empty());
        let next: [(u32, bool, &[u8]); 3] = [(2, false, &[9, 0x30]), (2, false, &NEXT), (2, true, &NEXT_MORE)];
        assert_eq!(camera.shown(&next), ["7 8 5 7 8 5 kig", "1 1 "]);
        assert_eq!(camera.shown(&key), ["7 8 5 7 8 5 ki"]);
        // With one time stamp for all they belong to what follows, and so does a recovery point.
        let mut camera = Camera::new();
        let recovery: &[u8] = &[6, 6, 1, 0xc4, 0x80];
        let packets: [(u32, bool, &[u8]); 6] = [
            (0, false, &KEY),
            (0, false, &NEXT),
            (0, false, &PPS),
            (0, false, recovery),
            (0, false, &NEXT),
            (0, false, &NEXT),
        ];
        assert_eq!(camera.shown(&packets), ["5 kig", "1 ", "8 6 1 k"]);
    }

    #[test]
    fn pieces_are_put_together_and_types_of_other_modes_left_out() {
        let mut camera = Camera::new();
        camera.shown(&[(1, true, &KEY), (2, true, &NEXT)]);
        // FU-A, with a packet of FU-B between (field case nal-29), and the last piece not marked as such.
        let mut pieces = vec![0x7c, 0x85];
        pieces.extend_from_slice(&KEY[1..]);
        let out = camera.send(3, false, &pieces);
        assert!(out.is_empty());
        assert!(camera.shown(&[(3, false, &[0x7d, 0x85, 0, 0, 0x11, 0x22]), (3, false, &[0x7c, 0x05, 1, 2])]).is_empty());
        assert!(camera.send(3, true, &[0x7c, 0x05, 3, 4]).is_empty(), "its end is known with the next one");
        let next = camera.send(4, true, &NEXT);
        assert_eq!(next[0].bytes, [&[0, 0, 0, 1][..], &KEY, &[1, 2, 3, 4]].concat());
        assert_eq!(next.len(), 2);
        // STAP-A; and a byte stream as it comes.
        let mut aggregate = vec![0x78];
        for nal in [&SPS[..], &PPS, &[9, 0xf0], &KEY] {
            aggregate.extend((nal.len() as u16).to_be_bytes());
            aggregate.extend_from_slice(nal);
        }
        assert_eq!(camera.shown(&[(5, true, &aggregate)]), ["7 8 5 ki"]);
        let stream = [&[0, 0, 0, 1][..], &SPS, &[0, 0, 0, 1], &PPS, &[0, 0, 1], &KEY].concat();
        assert_eq!(camera.shown(&[(6, true, &stream)]), ["7 8 5 ki"]);
        assert_eq!(camera.shown(&[(7, false, &[0x0c, 0xff, 0xff]), (7, true, &NEXT), (8, true, &[])]), ["1 "], "no filler");
    }

    #[test]
    fn a_loss_costs_its_access_unit_and_the_next_one_says_so() {
        let mut camera = Camera::new();
        camera.shown(&[(1, true, &KEY), (2, true, &NEXT)]);
        assert!(camera.send(3, false, &[0x7c, 0x81, 0x98, 0x80]).is_empty());
        camera.sequence += 1;
        assert_eq!(camera.shown(&[(3, true, &[0x7c, 0x41, 1]), (4, true, &NEXT), (5, true, &NEXT)]), ["1 g", "1 "]);
        // The first slice is lost, the second is not an access unit.
        camera.sequence += 1;
        assert_eq!(camera.shown(&[(6, true, &NEXT_MORE), (7, true, &NEXT)]), ["1 g"]);
        // The same without a number missing.
        assert_eq!(camera.shown(&[(8, true, &[0x7c, 0x01, 1]), (9, true, &NEXT)]), ["1 g"]);
    }

    #[test]
    fn a_camera_that_counts_anew_goes_on() {
        let mut camera = Camera::new();
        camera.shown(&[(1, true, &KEY), (2, true, &NEXT)]);
        (camera.sequence, camera.source) = (5, 77);
        assert_eq!(camera.shown(&[(900_000, true, &KEY), (900_001, true, &NEXT)]), ["5 ki", "1 "], "another source");
        camera.sequence = 40_000;
        assert_eq!(camera.shown(&[(5, true, &NEXT), (6, true, &NEXT)]), ["1 ", "1 "], "other numbers");
        // A single packet of somebody else is none of it.
        let (sequence, source) = (camera.sequence, camera.source);
        (camera.sequence, camera.source) = (9, 1234);
        assert!(camera.shown(&[(7, true, &NEXT)]).is_empty());
        (camera.sequence, camera.source) = (sequence, source);
        assert_eq!(camera.shown(&[(7, true, &NEXT)]), ["1 "]);
    }

    /// Field cases two-pps and recovery-points-only.
    #[test]
    fn every_parameter_set_is_there_where_decoding_can_begin() {
        let second = [0x68, 0x4f];
        let mut camera = Camera::with(&[SPS.to_vec(), PPS.to_vec(), second.to_vec()]);
        let recovery: &[u8] = &[6, 6, 1, 0xc4, 0x80];
        let intra: &[u8] = &[0x41, 0b1011_0000, 0x80];
        assert_eq!(camera.shown(&[(1, true, &NEXT), (2, false, recovery), (2, true, &NEXT)]), ["1 g", "7 8 8 6 1 k"]);
        assert_eq!(camera.shown(&[(3, true, intra)]), ["7 8 8 1 i"]);
        // One that changed on the way is the one that counts from then on.
        let changed = [0x68, 0x4f, 9];
        let pictures: Vec<_> = [(4, false, &changed[..]), (4, true, &NEXT), (5, true, &KEY)]
            .into_iter()
            .flat_map(|(time, marker, payload)| camera.send(time, marker, payload))
            .collect();
        assert_eq!(pictures[0].bytes, [&[0, 0, 0, 1][..], &changed, &[0, 0, 0, 1], &NEXT].concat());
        assert!(pictures[1].bytes.windows(3).any(|window| window == changed));
    }

    #[test]
    fn a_set_that_is_put_in_front_has_its_sequence_s_before_it() {
        let mut camera = Camera::with(&[SPS.to_vec(), PPS.to_vec()]);
        let packets: [(u32, bool, &[u8]); 3] = [(1, false, &SPS), (1, true, &KEY), (2, true, &NEXT)];
        assert_eq!(camera.shown(&packets), ["7 8 7 5 kig", "1 "]);
        assert_eq!(camera.shown(&[(3, false, &PPS), (3, true, &KEY)]), ["7 8 5 ki"]);
    }

    /// Of the kind of field case two-pps: no decoder that begins here reads a picture parameter set that comes first.
    #[test]
    fn sets_in_the_wrong_order_have_the_sequence_s_put_in_front() {
        for sets in [&[][..], &[SPS.to_vec(), PPS.to_vec()]] {
            let mut camera = Camera::with(sets);
            let key = |time: u32| [(time, false, &PPS[..]), (time, false, &SPS), (time, true, &KEY)];
            camera.shown(&key(1));
            assert_eq!(camera.shown(&[(2, true, &NEXT)]), ["7 8 7 5 kig", "1 "]);
            assert_eq!(camera.shown(&key(3)), ["7 8 7 5 ki"], "at each key picture");
        }
        // In the right order nothing is put in front.
        let mut camera = Camera::new();
        let second: &[u8] = &[0x68, 0x4f];
        let packets: [(u32, bool, &[u8]); 5] =
            [(1, false, &SPS), (1, false, &PPS), (1, false, second), (1, true, &KEY), (2, true, &NEXT)];
        assert_eq!(camera.shown(&packets), ["7 8 8 5 kig", "1 "]);
    }

    /// runtime D21: what is too large is left out, and what follows says so.
    #[test]
    fn an_access_unit_that_is_too_large_is_a_gap() {
        let mut camera = Camera::new();
        camera.shown(&[(1, true, &KEY), (2, true, &NEXT)]);
        let mut large = KEY.to_vec();
        large.resize(LIMIT - 4, 7);
        assert_eq!(camera.shown(&[(3, true, &large)]), ["5 ki"]);
        large.push(7);
        assert!(camera.shown(&[(4, true, &large)]).is_empty());
        assert_eq!(camera.shown(&[(5, true, &NEXT)]), ["1 g"]);
        // In pieces, without an end.
        let mut beginning = vec![0x7c, 0x85];
        beginning.extend_from_slice(&large[1..1000]);
        camera.send(6, false, &beginning);
        for _ in 0..1000 {
            assert!(camera.send(6, false, &[&[0x7c, 0x05][..], &[7; 1000]].concat()).is_empty());
            assert!(camera.depacketizer.current.bytes.capacity() <= 2 * LIMIT);
        }
        assert_eq!(camera.shown(&[(7, true, &NEXT), (8, true, &NEXT)]), ["1 g", "1 "]);
    }
}
