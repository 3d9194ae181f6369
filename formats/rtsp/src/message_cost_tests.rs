//! What a camera can make the reader do: work in proportion to the bytes that came, whatever they are.

use super::*;
use std::cell::Cell;

thread_local! {
    static LOOKED_AT: Cell<usize> = const { Cell::new(0) };
}

/// Counts a byte that is looked at.
pub(super) fn look() {
    LOOKED_AT.set(LOOKED_AT.get() + 1);
}

/// How often each byte is looked at on average where `piece` comes again and again, all of it at once; and how many
/// things are found in it.
fn looks(piece: &[u8], expected: &Expected) -> (usize, usize) {
    let bytes = piece.repeat((100 << 10) / piece.len());
    let mut reader = Reader::default();
    reader.push(&bytes);
    LOOKED_AT.set(0);
    let mut found = 0;
    while reader.next(expected).unwrap().is_some() {
        found += 1;
    }
    (LOOKED_AT.get() / bytes.len(), found)
}

#[test]
fn many_small_messages_are_not_searched_again_for_each_of_them() {
    let playing = Expected { channel: Some(0), payload_type: Some(96) };
    for expected in [Expected::default(), playing] {
        for piece in [&b"RTSP/ 100\n\n"[..], b"RTSP/\n\n", b"OPTIONS *\r\n\r\n", b"RTSP/ 1\nContent-Length: 3\n\nabc"] {
            let (times, found) = looks(piece, &expected);
            assert!(times <= 2, "{:?}, {expected:?}: {times} looks at each byte", String::from_utf8_lossy(piece));
            assert_eq!(found, (100 << 10) / piece.len());
        }
    }
}

/// What begins like a message and is cut short has no end that could be looked for.
#[test]
fn beginnings_that_packets_cut_are_not_searched_beyond_the_packet() {
    let playing = Expected { channel: Some(0), payload_type: Some(96) };
    let piece = b"RTSP/$\0\0\x0c\x80\x60abcdefghij";
    let (times, found) = looks(piece, &playing);
    assert!(times <= 2, "{times} looks at each byte");
    assert_eq!(found, (100 << 10) / piece.len());
}
