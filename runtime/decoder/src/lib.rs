//! From H.264 to pictures, once per camera.
//!
//! - [`Decoder`]: what a back end is. [`libavcodec`] is the one on the CPU; NVDEC and V4L2 stateful decoders fit beside.
//! - [`convert`]: the size applications see, and BGR24.
//! - [`stream`]: one camera's connection: records in, pictures offered to the ring. [`gate`]: where decoding begins, and
//!   which pictures are fit to be seen; [`timeline`]: their time stamps. Both pure.
//! - [`service`]: listens for cameras.
//!
//! Everything that comes in is hostile: a camera can be replaced by anything that speaks RTSP. So this is a process of
//! its own, without network, files and new privileges, and what it says to others is pictures and numbers.

pub mod convert;
pub mod gate;
pub mod libavcodec;
pub mod service;
pub mod stream;
pub mod timeline;

/// One coded picture.
#[derive(Debug, Clone, Copy)]
pub struct AccessUnit<'a> {
    /// H.264, byte stream format (Annex B).
    pub bytes: &'a [u8],
    /// Comes out again with the picture.
    pub timestamp_us: i64,
}

/// A decoded picture, planar 4:2:0 with 8 bits, in the decoder's memory.
#[derive(Debug, Clone, Copy)]
pub struct Picture<'a> {
    /// Pixels, after cropping.
    pub width: u32,
    /// Pixels, after cropping.
    pub height: u32,
    /// Luma, blue difference, red difference; chroma has half the width and height, rounded up.
    pub planes: [&'a [u8]; 3],
    /// Bytes from row to row.
    pub strides: [usize; 3],
    /// Luma uses 0…255 instead of 16…235.
    pub full_range: bool,
    /// The matrix of BT.709 instead of BT.601.
    pub bt709: bool,
    /// Of its access unit.
    pub timestamp_us: i64,
    /// Parts of it are the decoder's guess, because the access unit was damaged.
    pub concealed: bool,
    /// It refers to pictures that were not there, or may do so: decoding began at no IDR picture, and no recovery point
    /// was reached yet.
    pub unrecovered: bool,
}

/// Why an access unit gave no picture.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Damaged or not H.264: what follows makes no sense before the next key picture.
    #[error("an access unit cannot be decoded: {0}")]
    Damaged(String),
    /// H.264, but of a kind that applications do not get.
    #[error(
        "pictures are not 8-bit 4:2:0, which is what applications get: set the camera to profile Baseline, Main or High"
    )]
    Format,
    /// The back end cannot work at all.
    #[error("the decoder cannot be used: {0}")]
    Unavailable(String),
}

/// A back end that decodes one stream.
pub trait Decoder {
    /// Takes the next access unit and calls `sink` for each picture that is complete with it, in the order in which
    /// they are to be shown, those that are not fit to be shown among them ([`Picture::unrecovered`]). With streams
    /// without B pictures that is one picture per access unit, at once.
    fn decode(&mut self, unit: AccessUnit<'_>, sink: &mut dyn FnMut(Picture<'_>)) -> Result<(), DecodeError>;

    /// Forgets what came before: the next access unit is a key picture after a gap.
    fn reset(&mut self);
}
