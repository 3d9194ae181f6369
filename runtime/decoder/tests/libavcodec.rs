//! The back end against a real stream, whole and damaged.

use belvedere_decoder::convert::Converter;
use belvedere_decoder::libavcodec::Libavcodec;
use belvedere_decoder::{AccessUnit, Decoder};

const STREAM: &[u8] = include_bytes!("data/red-blue-64x48.h264");

/// Cut before each access unit delimiter.
fn access_units() -> Vec<&'static [u8]> {
    let delimiter = [0, 0, 0, 1, 9];
    let mut starts: Vec<usize> = (0..STREAM.len()).filter(|at| STREAM[*at..].starts_with(&delimiter)).collect();
    starts.push(STREAM.len());
    starts.windows(2).map(|pair| &STREAM[pair[0]..pair[1]]).collect()
}

#[test]
fn every_access_unit_gives_its_picture_at_once_with_its_timestamp() {
    let units = access_units();
    assert_eq!(units.len(), 10);
    let mut decoder = Libavcodec::new().unwrap();
    let mut converter = Converter::default();
    for (number, bytes) in units.iter().enumerate() {
        let timestamp_us = 1_700_000_000_000_000 + number as i64 * 100_000;
        let mut pictures = 0;
        decoder
            .decode(AccessUnit { bytes, timestamp_us }, &mut |picture| {
                pictures += 1;
                assert_eq!((picture.width, picture.height), (64, 48));
                assert_eq!(picture.timestamp_us, timestamp_us);
                assert!(!picture.concealed && !picture.full_range && !picture.bt709);
                let mut out = vec![0; 64 * 48 * 3];
                assert!(converter.write(&picture, &mut out, 64 * 3));
                let pixel = |x: usize, y: usize| -> [u8; 3] { out[(y * 64 + x) * 3..][..3].try_into().unwrap() };
                let white = (0..64).filter(|x| pixel(*x, 3)[1] > 128).count();
                assert_eq!(white, 4 * (number + 1), "the bar of picture {number}");
                let near = |a: [u8; 3], b: [u8; 3]| a.iter().zip(b).all(|(a, b)| a.abs_diff(b) < 24);
                assert!(near(pixel(10, 30), [0, 0, 255]), "red is {:?}", pixel(10, 30));
                assert!(near(pixel(54, 30), [255, 0, 0]), "blue is {:?}", pixel(54, 30));
            })
            .unwrap();
        assert_eq!(pictures, 1, "no picture is held back");
    }
}

#[test]
fn decoding_begins_again_at_the_next_key_picture_after_a_reset() {
    let units = access_units();
    let mut decoder = Libavcodec::new().unwrap();
    let mut count = |from: usize, to: usize| {
        let mut pictures = 0;
        for bytes in &units[from..to] {
            decoder.decode(AccessUnit { bytes, timestamp_us: 0 }, &mut |_| pictures += 1).unwrap();
        }
        decoder.reset();
        pictures
    };
    assert_eq!(count(0, 3), 3);
    assert_eq!(count(5, 10), 5);
}

/// Neither a crash nor a picture of impossible size, whatever arrives; and the next stream is decoded as ever.
#[test]
fn damage_is_survived() {
    let units = access_units();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    for _ in 0..60 {
        let mut decoder = Libavcodec::new().unwrap();
        for unit in &units {
            let mut bytes = unit.to_vec();
            match random(4) {
                0 => bytes.truncate(random(bytes.len())),
                1 => (0..4).for_each(|_| {
                    let at = random(bytes.len());
                    bytes[at] ^= 1 << random(8);
                }),
                2 => {
                    let by = random(bytes.len());
                    bytes.rotate_left(by);
                }
                _ => {}
            }
            if bytes.is_empty() {
                continue;
            }
            let _ = decoder.decode(AccessUnit { bytes: &bytes, timestamp_us: 0 }, &mut |picture| {
                let (width, height) = belvedere_decoder::convert::size_for_applications(picture.width, picture.height);
                let mut out = vec![0; (width * height * 3) as usize];
                assert!(Converter::default().write(&picture, &mut out, width as usize * 3));
            });
        }
        decoder.reset();
        let mut pictures = 0;
        for bytes in &units {
            let _ = decoder.decode(AccessUnit { bytes, timestamp_us: 0 }, &mut |_| pictures += 1);
        }
        assert_eq!(pictures, 10);
    }
}

#[test]
fn larger_pictures_than_the_limit_are_refused() {
    // A sequence parameter set that asks for 16384×16384 (Baseline, level 6.2), hand-written bits:
    // pic_width_in_mbs_minus1 and pic_height_in_map_units_minus1 are 1023.
    struct Bits(Vec<bool>);
    impl Bits {
        fn fixed(&mut self, value: u32, bits: u32) {
            (0..bits).rev().for_each(|bit| self.0.push(value >> bit & 1 == 1));
        }
        fn golomb(&mut self, value: u32) {
            let bits = 32 - (value + 1).leading_zeros();
            self.fixed(0, bits - 1);
            self.fixed(value + 1, bits);
        }
    }
    let parameter_set = |side: u32| {
        let mut bits = Bits(Vec::new());
        for (value, width) in [(66, 8), (0, 8), (62, 8)] {
            bits.fixed(value, width);
        }
        for value in [0, 0, 2, 1] {
            bits.golomb(value); // identifier, frame number bits, order type 2, one reference picture
        }
        bits.fixed(0, 1);
        bits.golomb(side / 16 - 1);
        bits.golomb(side / 16 - 1);
        bits.fixed(0b1100, 4); // whole pictures, direct 8×8, no cropping, no usability information
        bits.fixed(1, 1);
        while bits.0.len() % 8 != 0 {
            bits.fixed(0, 1);
        }
        let mut bytes = vec![0, 0, 0, 1, 0x67];
        bytes.extend(bits.0.chunks(8).map(|byte| byte.iter().fold(0, |sum, bit| sum << 1 | u8::from(*bit))));
        bytes
    };
    // Without a slice nothing is allocated and nothing shown; with one that follows, the size is refused.
    let units = access_units();
    let mut bytes = units[0].to_vec();
    // The picture parameter set and slice of the small stream refer to parameter set 0, which is replaced.
    let end = bytes.windows(5).position(|window| window[..4] == [0, 0, 0, 1] && window[4] & 31 == 8).unwrap();
    bytes.splice(0..end, parameter_set(16384));
    let mut decoder = Libavcodec::new().unwrap();
    let mut pictures = 0;
    let result = decoder.decode(AccessUnit { bytes: &bytes, timestamp_us: 0 }, &mut |_| pictures += 1);
    assert!(result.is_err() && pictures == 0, "{result:?}, {pictures} pictures");
}
