//! The session description (SDP, RFC 8866), as far as it says where the H.264 is. What cannot be read is left out: ten
//! lines of these documents count, and cameras write the others as they please.

use crate::{nal, parameter_sets};
use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// Media of a description; further ones are left out.
pub const MAXIMUM_MEDIA: usize = 32;
/// Bytes of a control address.
pub const MAXIMUM_CONTROL: usize = 2048;

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// The H.264 of a description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Video {
    /// Of its RTP packets.
    pub payload_type: u8,
    /// `a=control` of the medium, as it stands there.
    pub control: Option<String>,
    /// `a=control` of the session.
    pub session_control: Option<String>,
    /// Parameter sets that were told in advance.
    pub parameter_sets: Vec<Vec<u8>>,
}

/// Why there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Missing {
    /// No medium at all: not a description.
    Media,
    /// No video.
    Video,
    /// Video of another kind: its name in capitals.
    H264(String),
}

#[derive(Default)]
struct Medium {
    kind: String,
    formats: Vec<u8>,
    /// Encoding by payload type, in capitals.
    encodings: Vec<(u8, String)>,
    parameters: Vec<(u8, String)>,
    control: Option<String>,
}

impl Medium {
    /// The encoding of one of its formats, said or not.
    fn encoding(&self, format: u8) -> String {
        if let Some((_, name)) = self.encodings.iter().find(|(known, _)| *known == format) {
            return name.clone();
        }
        match format {
            25 => "CELB",
            26 => "JPEG",
            28 => "NV",
            31 => "H261",
            32 => "MPV",
            33 => "MP2T",
            34 => "H263",
            // No `a=rtpmap`: its parameters may say it, and when they say nothing we can only try.
            96..=127 if self.encodings.is_empty() => "H264",
            _ => "UNKNOWN",
        }
        .to_owned()
    }
}

/// Reads a description.
pub fn video(text: &[u8]) -> Result<Video, Missing> {
    let mut session_control = None;
    let mut media: Vec<Medium> = Vec::new();
    let mut left_out = false;
    for line in text.split(|byte| *byte == b'\n' || *byte == b'\r') {
        // Names may be in any encoding; what counts is ASCII.
        let line = String::from_utf8_lossy(line);
        let Some((kind, value)) = line.trim().split_once('=') else { continue };
        let (kind, value) = (kind.trim(), value.trim());
        if kind == "m" {
            left_out = media.len() == MAXIMUM_MEDIA;
            if !left_out {
                let words: Vec<_> = value.split_ascii_whitespace().collect();
                media.push(Medium {
                    kind: words.first().map(|word| word.to_ascii_lowercase()).unwrap_or_default(),
                    formats: words
                        .iter()
                        .skip(3)
                        .filter_map(|word| word.parse().ok())
                        .filter(|format| *format < 128)
                        .collect(),
                    ..Medium::default()
                });
            }
        } else if kind == "a" && !left_out {
            attribute(value, &mut session_control, media.last_mut());
        }
    }
    if media.is_empty() {
        return Err(Missing::Media);
    }
    let mut other = None;
    for medium in media.iter().filter(|medium| medium.kind == "video") {
        for format in &medium.formats {
            let encoding = medium.encoding(*format);
            if encoding == "H264" {
                let parameters = medium.parameters.iter().filter(|(known, _)| known == format);
                return Ok(Video {
                    payload_type: *format,
                    control: medium.control.clone(),
                    session_control,
                    parameter_sets: parameters.flat_map(|(_, text)| sets(text)).take(parameter_sets::MAXIMUM_SETS).collect(),
                });
            }
            other.get_or_insert(encoding);
        }
    }
    Err(other.map_or(Missing::Video, Missing::H264))
}

fn attribute(value: &str, session_control: &mut Option<String>, medium: Option<&mut Medium>) {
    let (name, value) = value.split_once(':').map_or((value, ""), |(name, value)| (name.trim(), value.trim()));
    let name = name.to_ascii_lowercase();
    if name == "control" {
        if value.len() <= MAXIMUM_CONTROL {
            let control = medium.map_or(session_control, |medium| &mut medium.control);
            control.get_or_insert_with(|| value.to_owned());
        }
        return;
    }
    let Some(medium) = medium else { return };
    let Some((format, rest)) = value.split_once(char::is_whitespace) else { return };
    let Ok(format) = format.parse() else { return };
    match name.as_str() {
        "rtpmap" => {
            let encoding = rest.trim().split('/').next().unwrap_or("").trim().to_ascii_uppercase();
            let readable = encoding.chars().filter(char::is_ascii_graphic).take(32).collect();
            medium.encodings.push((format, readable));
        }
        "fmtp" => medium.parameters.push((format, rest.trim().to_owned())),
        _ => {}
    }
}

/// `sprop-parameter-sets` of a format's parameters.
fn sets(parameters: &str) -> Vec<Vec<u8>> {
    let value = parameters.split(';').find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("sprop-parameter-sets").then(|| value.trim().trim_matches('"'))
    });
    let sets = value.unwrap_or("").split(',').map(|set| BASE64.decode(set.trim().trim_end_matches('=')).unwrap_or_default());
    // One NAL unit each, without a start code; some encoders give what their library wrote, with start codes and all in one.
    sets.flat_map(|set| nal::units(&set)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const USUAL: &str = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=x\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\na=control:*\r\n\
        m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n\
        a=fmtp:96 packetization-mode=1;profile-level-id=42001f;sprop-parameter-sets=Z0IAHw==,aM4=\r\na=control:track1\r\n";

    fn found(text: &[u8]) -> (u8, Option<String>, usize) {
        let video = video(text).unwrap_or_else(|missing| panic!("{missing:?}: {}", String::from_utf8_lossy(text)));
        (video.payload_type, video.control, video.parameter_sets.len())
    }

    #[test]
    fn the_usual_one() {
        let video = video(USUAL.as_bytes()).unwrap();
        assert_eq!(video.session_control.as_deref(), Some("*"));
        assert_eq!(video.parameter_sets, [vec![0x67, 0x42, 0, 0x1f], vec![0x68, 0xce]]);
        assert_eq!((video.payload_type, video.control.as_deref()), (96, Some("track1")));
    }

    /// Field case sdp-latin1, and others of the kind.
    #[test]
    fn what_cameras_write_otherwise() {
        let control = Some("track1".to_owned());
        let with = |from: &str, to: &str| USUAL.replace(from, to).into_bytes();
        let mut latin1 = USUAL.as_bytes().to_vec();
        latin1.splice(USUAL.find("s=x").unwrap() + 2..USUAL.find("s=x").unwrap() + 3, *b"K\xfcche");
        assert_eq!(found(&latin1), (96, control.clone(), 2));
        for text in [
            with("\r\n", "\n"),
            with("\r\n", "\r"),
            with("H264/90000", "h264/90000/1"),
            with("a=rtpmap:96 H264/90000\r\n", ""),
            with("m=video 0", "m=audio 0 RTP/AVP 0 97\r\na=rtpmap:97 MPEG4-GENERIC/8000\r\na=control:track0\r\nm=video 0"),
            with("m=video 0 RTP/AVP 96", "m=video 0 RTP/AVP 98 96\r\na=rtpmap:98 H265/90000"),
            with("m=video", "m=video 0 RTP/AVP 26\r\na=control:jpeg\r\nm=video"),
            with("sprop-parameter-sets=Z0IAHw==,aM4=", "Sprop-Parameter-Sets = \"Z0IAHw,aM4\" "),
            with("s=x\r\n", "s=\r\nnonsense\r\n=\r\na\r\na=\r\na=:\r\n"),
            with("a=fmtp:96 ", "a=fmtp:96  "),
            with("v=0\r\n", ""),
            with("a=control:track1\r\n", "a=control: track1 \r\na=control:second\r\n"),
        ] {
            assert_eq!(found(&text), (96, control.clone(), 2), "{}", String::from_utf8_lossy(&text));
        }
        assert_eq!(found(&with(";sprop-parameter-sets=Z0IAHw==,aM4=", "")), (96, control.clone(), 0));
        assert_eq!(found(&with("Z0IAHw==,aM4=", "!!!,aM4=,,")), (96, control.clone(), 1));
        assert_eq!(found(b"m=video 0 RTP/AVP 96"), (96, None, 0));
    }

    /// Encoders whose library gives a byte stream encode that as it is: with start codes, and both sets in one.
    #[test]
    fn parameter_sets_with_start_codes() {
        let expected = [vec![0x67, 0x42, 0, 0x1f], vec![0x68, 0xce]];
        for written in [
            // 00 00 00 01 in front of each.
            "AAAAAWdCAB8=,AAAAAWjO", // 00 00 01, and a zero behind.
            "AAABZ0IAHwA=,AAABaM4=", // Both in one.
            "AAAAAWdCAB8AAAABaM4=",
        ] {
            let text = USUAL.replace("Z0IAHw==,aM4=", written);
            assert_eq!(video(text.as_bytes()).unwrap().parameter_sets, expected, "{written}");
        }
    }

    #[test]
    fn what_is_not_there_is_said() {
        let missing = |text: &str| video(text.as_bytes()).unwrap_err();
        assert_eq!(missing("v=0\r\n"), Missing::Media);
        assert_eq!(missing("m=audio 0 RTP/AVP 0\r\n"), Missing::Video);
        assert_eq!(missing("m=video 0 RTP/AVP 26\r\n"), Missing::H264("JPEG".into()));
        assert_eq!(missing("m=video 0 RTP/AVP 97\r\na=rtpmap:97 H265/90000\r\n"), Missing::H264("H265".into()));
        assert_eq!(missing(&"m=video 0 RTP/AVP 300\r\n".repeat(1000)), Missing::Video);
    }
}
