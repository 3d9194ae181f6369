//! CPU time of the frame path; the numbers are in docs/performance.md.
//!
//!     cargo run --release -p belvedere-decoder --example measure -- decode CLIP.h264
//!     cargo run --release -p belvedere-decoder --example measure -- serve SOCKET     (frames for tests/camera/measure.py)
//!
//! CLIP: H.264 in the byte stream format with access unit delimiters.

use belvedere_decoder::convert::{Converter, size_for_applications};
use belvedere_decoder::libavcodec::Libavcodec;
use belvedere_decoder::{AccessUnit, Decoder};
use belvedere_frames::{FrameReader, Offered, Server, packet};
use std::time::{Duration, Instant};

/// Seconds of CPU time of this process.
fn cpu() -> f64 {
    // utime and stime, the 14th and 15th field, in hundredths; the name before them has no spaces here.
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    stat.split(' ').skip(13).take(2).map(|field| field.parse::<f64>().unwrap() / 100.0).sum()
}

fn access_units(stream: &[u8]) -> Vec<&[u8]> {
    let mut starts: Vec<usize> = (0..stream.len()).filter(|at| stream[*at..].starts_with(&[0, 0, 0, 1, 9])).collect();
    starts.push(stream.len());
    starts.windows(2).map(|pair| &stream[pair[0]..pair[1]]).collect()
}

fn decode(path: &str) {
    let stream = std::fs::read(path).unwrap();
    let units = access_units(&stream);
    let report = |name: &str, pictures: u32, seconds: f64| {
        println!("{name}: {:.2} ms of CPU time a picture ({pictures} pictures)", 1000.0 * seconds / f64::from(pictures));
    };
    for _ in 0..3 {
        let mut decoder = Libavcodec::new().unwrap();
        let mut pictures = 0;
        let begin = cpu();
        for bytes in &units {
            decoder.decode(AccessUnit { bytes, timestamp_us: 0 }, &mut |_| pictures += 1).unwrap();
        }
        report("decode", pictures, cpu() - begin);

        let place = std::env::temp_dir().join(format!("measure-{}.sock", std::process::id()));
        let server = Server::new();
        server.serve_at(&place).unwrap();
        let mut writer = server.writer("clip");
        let mut reader = FrameReader::subscribe(packet::connect(&place).unwrap(), "clip", "measure").unwrap();
        let mut decoder = Libavcodec::new().unwrap();
        let mut converter = Converter::default();
        let (mut pictures, mut published) = (0, 0);
        let begin = cpu();
        for bytes in &units {
            // A client that asks for every picture, in time, and has it released before the next.
            while reader.next(Duration::ZERO).unwrap().is_some() {}
            std::thread::sleep(Duration::from_millis(2));
            decoder
                .decode(AccessUnit { bytes, timestamp_us: 0 }, &mut |picture| {
                    pictures += 1;
                    let (width, height) = size_for_applications(picture.width, picture.height);
                    let offered = writer.offer(width, height, 0, |bytes, stride| converter.write(&picture, bytes, stride));
                    published += u32::from(matches!(offered, Offered::Published { .. }));
                })
                .unwrap();
        }
        report("decode, BGR into the ring, hand to a client", pictures, cpu() - begin);
        println!("  of which handed over: {published}");
        std::fs::remove_file(&place).unwrap();
    }
}

/// Offers 1920×1080 pictures 30 times a second; prints its own CPU time per picture now and then.
fn serve(path: &str) {
    let server = Server::new();
    server.serve_at(path).unwrap();
    let mut writer = server.writer("measure");
    writer.condition(true, "1920×1080");
    let source = vec![90; 1920 * 1080 * 3];
    let begin = Instant::now();
    for number in 1.. {
        writer.offer(1920, 1080, number, |bytes, _| {
            bytes.copy_from_slice(&source);
            true
        });
        let due = begin + Duration::from_millis(1000) * number as u32 / 30;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[1..] {
        ["decode", path] => decode(path),
        ["serve", path] => serve(path),
        _ => eprintln!("usage: measure decode CLIP.h264 | serve SOCKET"),
    }
}
