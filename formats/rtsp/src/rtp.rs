//! RTP's header (RFC 3550, 5.1), and what the numbers of two packets in a row say about what lies between.

/// A packet that is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Of its format.
    pub payload_type: u8,
    /// The last of its access unit, if the camera keeps to the rules.
    pub marker: bool,
    /// One more each packet.
    pub sequence: u16,
    /// In 1/90000 s.
    pub timestamp: u32,
    /// Of its source.
    pub source: u32,
    /// Without header, extension and padding.
    pub payload: &'a [u8],
}

/// Reads a packet; `None` when it is not one.
pub fn packet(bytes: &[u8]) -> Option<Packet<'_>> {
    let (header, mut rest) = bytes.split_at_checked(12)?;
    if header[0] >> 6 != 2 {
        return None;
    }
    let word = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    // Contributing sources, then the extension.
    rest = rest.get(usize::from(header[0] & 0x0f) * 4..)?;
    if header[0] & 0x10 != 0 {
        let (extension, behind) = rest.split_at_checked(4)?;
        rest = behind.get(usize::from(u16::from_be_bytes([extension[2], extension[3]])) * 4..)?;
    }
    if header[0] & 0x20 != 0
        && let Some(padding) = rest.last()
    {
        // Some set the bit and pad nothing: a length that cannot be is none.
        let padding = usize::from(*padding);
        if padding <= rest.len() {
            rest = &rest[..rest.len() - padding];
        }
    }
    Some(Packet {
        payload_type: header[1] & 0x7f,
        marker: header[1] & 0x80 != 0,
        sequence: u16::from_be_bytes([header[2], header[3]]),
        timestamp: word(4),
        source: word(8),
        payload: rest,
    })
}

/// How a packet follows the one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Continuity {
    /// Nothing is missing.
    Next,
    /// Packets were lost.
    Lost,
    /// The camera counts anew; whether something is missing cannot be told.
    Restart,
    /// It was there before.
    Repeated,
    /// Of a source that was not there before: it counts when it goes on.
    Stranger,
}

/// No camera loses so many packets at a time, over TCP, and goes on within [`LONGEST_LOSS`].
const LARGEST_LOSS: u16 = 512;
/// In 1/90000 s.
const LONGEST_LOSS: u32 = 10 * 90_000;
/// In 1/90000 s: 30 access units a second.
const USUAL_STEP: u32 = 3000;
/// A packet that comes late is no older than this.
const LATEST: u16 = 256;

/// Follows the numbers of a stream. TCP loses nothing, but cameras do: they drop packets when the network is slow, begin
/// to count anew, change their source's number, and send packets twice.
#[derive(Debug, Default)]
pub struct Order {
    last: Option<(u32, u16, u32)>,
    /// Length, first and last bytes of the last payload.
    print: (usize, u64, u64),
    /// The last difference between two time stamps.
    step: u32,
}

fn print(payload: &[u8]) -> (usize, u64, u64) {
    let number = |bytes: &[u8]| bytes.iter().take(8).fold(0, |sum, byte| sum << 8 | u64::from(*byte));
    (payload.len(), number(payload), number(&payload[payload.len().saturating_sub(8)..]))
}

impl Order {
    /// How `packet` follows. After [`Continuity::Repeated`] and [`Continuity::Stranger`] it is not remembered.
    pub fn follow(&mut self, packet: &Packet<'_>) -> Continuity {
        let seen = print(packet.payload);
        let Some((source, sequence, timestamp)) = self.last else {
            self.remember(packet, 0, seen);
            return Continuity::Next;
        };
        let ahead = packet.sequence.wrapping_sub(sequence);
        let later = packet.timestamp.wrapping_sub(timestamp);
        let backwards = ahead >= 0x8000;
        let continuity = if source != packet.source {
            // Another number, and the same count: the same stream.
            if ahead != 1 {
                return Continuity::Stranger;
            }
            Continuity::Next
        } else if ahead == 1 {
            Continuity::Next
        } else if ahead == 0 {
            if later == 0 && seen == self.print {
                return Continuity::Repeated;
            }
            // A camera that does not count.
            Continuity::Next
        } else if backwards && ahead.wrapping_neg() <= LATEST && (later == 0 || later >= 1 << 31) {
            return Continuity::Repeated;
        } else if backwards {
            Continuity::Restart
        } else if ahead < LARGEST_LOSS || (later > 2 * self.step.max(USUAL_STEP) && later <= LONGEST_LOSS) {
            Continuity::Lost
        } else {
            Continuity::Restart
        };
        self.remember(packet, later, seen);
        continuity
    }

    /// The stranger goes on, so it is the stream now.
    pub fn adopt(&mut self, packet: &Packet<'_>) {
        self.remember(packet, 0, print(packet.payload));
    }

    fn remember(&mut self, packet: &Packet<'_>, later: u32, seen: (usize, u64, u64)) {
        if later != 0 && later < LONGEST_LOSS {
            self.step = later;
        }
        self.last = Some((packet.source, packet.sequence, packet.timestamp));
        self.print = seen;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(first: u8, middle: &[u8]) -> Vec<u8> {
        [&[first, 0xe0, 0x12, 0x34, 0, 0, 0, 9, 0, 0, 0, 7], middle].concat()
    }

    #[test]
    fn headers_are_taken_off() {
        let payload = |bytes: Vec<u8>| packet(&bytes).map(|packet| packet.payload.to_vec());
        let whole = bytes(0x80, b"abc");
        let expected = Packet { payload_type: 96, marker: true, sequence: 0x1234, timestamp: 9, source: 7, payload: b"abc" };
        assert_eq!(packet(&whole), Some(expected));
        assert_eq!(payload(bytes(0x82, b"11112222abc")).as_deref(), Some(&b"abc"[..]), "contributing sources");
        assert_eq!(payload(bytes(0x90, b"\xbe\xde\0\x01xxxxabc")).as_deref(), Some(&b"abc"[..]), "an extension");
        assert_eq!(payload(bytes(0xa0, b"abc\0\0\x03")).as_deref(), Some(&b"abc"[..]), "padding");
        assert_eq!(payload(bytes(0xa0, b"abc\xff")).as_deref(), Some(&b"abc\xff"[..]), "padding that cannot be");
        assert_eq!(payload(bytes(0xa0, b"abc\0")).as_deref(), Some(&b"abc\0"[..]), "no padding, whatever the bit says");
        assert_eq!(payload(bytes(0xa0, b"")).as_deref(), Some(&b""[..]));
        for broken in [vec![], vec![0x80; 11], bytes(0x40, b"abc"), bytes(0x8f, b"abc"), bytes(0x90, b"\0\0\0\xff")] {
            assert_eq!(packet(&broken), None);
        }
    }

    #[test]
    fn numbers_say_what_is_missing() {
        use Continuity::*;
        // Sequence, time stamp, source; a packet of 20 an access unit, each 3000 later.
        for (what, before, packets) in [
            ("in order", (10, 3000, 1), vec![((11, 3000, 1), Next), ((12, 6000, 1), Next)]),
            ("around the end", (65535, u32::MAX, 1), vec![((0, 2999, 1), Next)]),
            ("a loss", (10, 3000, 1), vec![((12, 3000, 1), Lost), ((13, 3000, 1), Next)]),
            ("a long loss", (10, 3000, 1), vec![((4000, 300_000, 1), Lost)]),
            ("twice", (10, 3000, 1), vec![((10, 3000, 1), Repeated), ((9, 3000, 1), Repeated), ((11, 3000, 1), Next)]),
            ("counted anew", (40_000, 3000, 1), vec![((0, 6000, 1), Restart), ((1, 6000, 1), Next)]),
            ("counted anew, forwards", (40_000, 3000, 1), vec![((60_000, 3000, 1), Restart)]),
            ("counted anew, soon", (20, 300_000, 1), vec![((1, 303_000, 1), Restart)]),
            ("counted anew with another time", (40_000, 3000, 1), vec![((60_000, 1 << 31, 1), Restart)]),
            ("not counted at all", (0, 3000, 1), vec![((0, 6000, 1), Next), ((0, 9000, 1), Next)]),
            ("a stranger", (10, 3000, 1), vec![((77, 5, 2), Stranger), ((11, 3000, 1), Next)]),
            ("another source, the same count", (10, 3000, 1), vec![((11, 3000, 2), Next)]),
        ] {
            let mut order = Order::default();
            let follow = |order: &mut Order, (sequence, timestamp, source): (u16, u32, u32)| {
                order.follow(&Packet { payload_type: 96, marker: false, sequence, timestamp, source, payload: b"x" })
            };
            assert_eq!(follow(&mut order, before), Next);
            for (numbers, expected) in packets {
                assert_eq!(follow(&mut order, numbers), expected, "{what}: {numbers:?}");
            }
        }
    }
}
