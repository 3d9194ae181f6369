//! RTP packets of H.264, each after its length: access units within their bound come out, whatever goes in.
#![no_main]

use belvedere_rtsp::depacketizer::Depacketizer;
use libfuzzer_sys::fuzz_target;

const LIMIT: usize = 1 << 14;

fuzz_target!(|data: &[u8]| {
    let mut depacketizer = Depacketizer::new(96, &[vec![0x67, 66, 0, 31, 0x80], vec![0x68, 0xce]], LIMIT);
    let mut rest = data;
    while let Some((length, behind)) = rest.split_first_chunk::<2>() {
        let length = usize::from(u16::from_le_bytes(*length)).min(behind.len());
        let (packet, behind) = behind.split_at(length);
        depacketizer.push(packet);
        while let Some(picture) = depacketizer.picture() {
            assert!(picture.bytes.starts_with(&[0, 0, 0, 1]) && picture.bytes.len() <= LIMIT);
        }
        rest = behind;
    }
});
