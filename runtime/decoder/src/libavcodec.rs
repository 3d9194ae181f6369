//! The back end on the CPU: libavcodec's H.264 decoder, one thread per camera.
//!
//! # The binding
//!
//! Some twenty functions and ten members of two structures. FFmpeg has no accessors for those members, so their offsets come
//! from `layout.rs`, which `build-libavcodec` computes with the C compiler from the headers of the very library that is
//! linked (the other ways: bindgen needs libclang on every build machine for so few functions; hand-written `#[repr(C)]`
//! structures are wrong without notice as soon as somebody builds another version; C glue is C in the product). The
//! structures themselves are opaque here and made by the library. [`Libavcodec::new`] refuses a library of another
//! major version than the layout's, within which FFmpeg promises that public members stay where they are.
//!
//! One thread: with frame threads each thread adds one picture of delay and no CPU time is saved; the parallelism is in
//! the number of cameras.

use crate::{AccessUnit, DecodeError, Decoder, Picture};
use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::{NonNull, null_mut};

mod layout {
    #![allow(missing_docs, dead_code)]
    include!(env!("BELVEDERE_LIBAVCODEC_LAYOUT"));
}

/// No larger picture is decoded: 4096×2304. Bounds the memory that a hostile stream can ask for.
const MAXIMUM_PIXELS: i64 = 4096 * 2304;

/// - `low_delay`: no picture is held back that need not be.
/// - `unaligned`: cropping is exact. Without it a picture that is cropped at the left by what is no multiple of the
///   processor's vectors keeps up to 63 columns that are not part of it.
/// - `output_corrupt`: pictures before the recovery point come too, marked as such; which of them are shown is decided by
///   [`crate::gate`]. Without it a stream that has neither IDR pictures nor recovery points gives none, ever.
const FLAGS: &CStr = c"+low_delay+unaligned+output_corrupt";

#[repr(C)]
struct Context {
    _opaque: [u8; 0],
}
#[repr(C)]
struct Packet {
    _opaque: [u8; 0],
}
#[repr(C)]
struct Frame {
    _opaque: [u8; 0],
}

unsafe extern "C" {
    fn avcodec_version() -> u32;
    fn avcodec_find_decoder(identifier: c_int) -> *const c_void;
    fn avcodec_alloc_context3(codec: *const c_void) -> *mut Context;
    fn avcodec_open2(context: *mut Context, codec: *const c_void, options: *mut c_void) -> c_int;
    fn avcodec_free_context(context: *mut *mut Context);
    fn avcodec_flush_buffers(context: *mut Context);
    fn avcodec_send_packet(context: *mut Context, packet: *const Packet) -> c_int;
    fn avcodec_receive_frame(context: *mut Context, frame: *mut Frame) -> c_int;
    fn av_packet_alloc() -> *mut Packet;
    fn av_packet_free(packet: *mut *mut Packet);
    fn av_packet_unref(packet: *mut Packet);
    fn av_packet_from_data(packet: *mut Packet, data: *mut u8, size: c_int) -> c_int;
    fn av_frame_alloc() -> *mut Frame;
    fn av_frame_free(frame: *mut *mut Frame);
    fn av_malloc(size: usize) -> *mut c_void;
    fn av_free(memory: *mut c_void);
    fn av_opt_set_int(object: *mut c_void, name: *const c_char, value: i64, flags: c_int) -> c_int;
    fn av_opt_set(object: *mut c_void, name: *const c_char, value: *const c_char, flags: c_int) -> c_int;
    fn av_strerror(error: c_int, text: *mut c_char, bytes: usize) -> c_int;
    fn av_log_set_level(level: c_int);
}

/// Decodes one stream with libavcodec.
pub struct Libavcodec {
    context: NonNull<Context>,
    packet: NonNull<Packet>,
    frame: NonNull<Frame>,
}

// SAFETY: a context may be used from any thread, by one at a time, which `&mut self` grants.
unsafe impl Send for Libavcodec {}

fn unavailable(what: &str) -> DecodeError {
    DecodeError::Unavailable(what.to_owned())
}

fn text(error: c_int) -> String {
    let mut bytes = [0 as c_char; 128];
    // SAFETY: the size is that of the buffer; the function always ends the text with a zero.
    unsafe {
        av_strerror(error, bytes.as_mut_ptr(), bytes.len());
        CStr::from_ptr(bytes.as_ptr()).to_string_lossy().into_owned()
    }
}

impl Libavcodec {
    /// A decoder for one stream.
    pub fn new() -> Result<Self, DecodeError> {
        // SAFETY: takes nothing, returns a number.
        let version = unsafe { avcodec_version() };
        if version >> 16 != layout::VERSION as u32 >> 16 {
            return Err(DecodeError::Unavailable(format!(
                "it was built for libavcodec {} and found {}",
                layout::VERSION >> 16,
                version >> 16
            )));
        }
        // SAFETY: each function is called as its documentation asks; every pointer is checked before it is used, and
        // is owned by the value made at once, whose Drop frees them (its functions accept null inside).
        unsafe {
            // Its own messages name addresses and offsets in hostile data; ours say what matters. -8 is "quiet".
            av_log_set_level(-8);
            let codec = avcodec_find_decoder(layout::CODEC_H264 as c_int);
            if codec.is_null() {
                return Err(unavailable("this libavcodec has no H.264 decoder"));
            }
            let context = NonNull::new(avcodec_alloc_context3(codec)).ok_or(unavailable("no memory"))?;
            let packet = NonNull::new(av_packet_alloc());
            let frame = NonNull::new(av_frame_alloc());
            let (Some(packet), Some(frame)) = (packet, frame) else {
                avcodec_free_context(&mut context.as_ptr());
                if let Some(packet) = packet {
                    av_packet_free(&mut packet.as_ptr());
                }
                return Err(unavailable("no memory"));
            };
            let decoder = Libavcodec { context, packet, frame };
            let result = av_opt_set(context.as_ptr().cast(), c"flags".as_ptr(), FLAGS.as_ptr(), 0);
            if result < 0 {
                return Err(DecodeError::Unavailable(format!("option flags: {}", text(result))));
            }
            for (name, value) in [(c"threads", 1), (c"max_pixels", MAXIMUM_PIXELS)] {
                let result = av_opt_set_int(context.as_ptr().cast(), name.as_ptr(), value, 0);
                if result < 0 {
                    return Err(DecodeError::Unavailable(format!("option {name:?}: {}", text(result))));
                }
            }
            let result = avcodec_open2(context.as_ptr(), codec, null_mut());
            if result < 0 {
                return Err(DecodeError::Unavailable(text(result)));
            }
            Ok(decoder)
        }
    }

    /// Fills the packet with a copy, behind which the library wants zeroed bytes that it may read.
    fn fill(&mut self, unit: AccessUnit<'_>) -> Result<(), DecodeError> {
        let padding = layout::INPUT_PADDING as usize;
        let size = c_int::try_from(unit.bytes.len()).map_err(|_| unavailable("an access unit is too large"))?;
        // SAFETY: the allocation has room for the bytes and the padding; av_packet_from_data takes it over when it
        // succeeds and leaves it with us when not. The packet's pts lies at its offset, an aligned 64-bit number.
        unsafe {
            let memory = av_malloc(unit.bytes.len() + padding).cast::<u8>();
            if memory.is_null() {
                return Err(unavailable("no memory"));
            }
            memory.copy_from_nonoverlapping(unit.bytes.as_ptr(), unit.bytes.len());
            memory.add(unit.bytes.len()).write_bytes(0, padding);
            let result = av_packet_from_data(self.packet.as_ptr(), memory, size);
            if result < 0 {
                av_free(memory.cast());
                return Err(unavailable("no memory"));
            }
            self.packet.cast::<u8>().offset(layout::PACKET_PTS).cast::<i64>().write(unit.timestamp_us);
        }
        Ok(())
    }

    /// A member of the frame.
    ///
    /// # Safety
    /// `offset` is that of a member of type `T` in the layout.
    unsafe fn member<T: Copy>(&self, offset: isize) -> T {
        // SAFETY: inside the structure that av_frame_alloc made, and aligned as in C.
        unsafe { self.frame.cast::<u8>().offset(offset).cast::<T>().read() }
    }

    fn picture(&self) -> Result<Picture<'_>, DecodeError> {
        // SAFETY: offsets and types of public members, from the library's own headers.
        let (width, height, format, pts, flags, errors, range, space, pointers, sizes) = unsafe {
            (
                self.member::<c_int>(layout::FRAME_WIDTH),
                self.member::<c_int>(layout::FRAME_HEIGHT),
                self.member::<c_int>(layout::FRAME_FORMAT) as isize,
                self.member::<i64>(layout::FRAME_PTS),
                self.member::<c_int>(layout::FRAME_FLAGS) as isize,
                self.member::<c_int>(layout::FRAME_DECODE_ERROR_FLAGS),
                self.member::<c_int>(layout::FRAME_COLOR_RANGE) as isize,
                self.member::<c_int>(layout::FRAME_COLORSPACE) as isize,
                self.member::<[*const u8; 3]>(layout::FRAME_DATA),
                self.member::<[c_int; 3]>(layout::FRAME_LINESIZE),
            )
        };
        if format != layout::PIXELS_YUV420P && format != layout::PIXELS_YUVJ420P {
            return Err(DecodeError::Format);
        }
        let odd = || unavailable("libavcodec gave a picture of impossible size");
        let (Ok(columns), Ok(rows)) = (usize::try_from(width), usize::try_from(height)) else { return Err(odd()) };
        let mut planes: [&[u8]; 3] = [&[]; 3];
        let mut strides = [0; 3];
        for plane in 0..3 {
            let (columns, rows) = if plane == 0 { (columns, rows) } else { (columns.div_ceil(2), rows.div_ceil(2)) };
            let stride = usize::try_from(sizes[plane]).map_err(|_| odd())?;
            if pointers[plane].is_null() || stride < columns || rows == 0 || columns == 0 {
                return Err(odd());
            }
            strides[plane] = stride;
            // SAFETY: for this pixel format the library guarantees `rows` rows of at least `columns` bytes, `stride`
            // apart; the memory is referenced by the frame, which `&self` keeps from being filled again.
            planes[plane] = unsafe { std::slice::from_raw_parts(pointers[plane], stride * (rows - 1) + columns) };
        }
        Ok(Picture {
            width: width as u32,
            height: height as u32,
            planes,
            strides,
            full_range: range == layout::RANGE_FULL || format == layout::PIXELS_YUVJ420P,
            // What the stream does not say is, by the field's convention, BT.709 for high definition and BT.601 below.
            bt709: space == layout::SPACE_BT709 || (space == layout::SPACE_UNSPECIFIED && height >= 720),
            timestamp_us: pts,
            concealed: errors != 0,
            unrecovered: flags & layout::FRAME_FLAG_CORRUPT != 0,
        })
    }
}

impl Decoder for Libavcodec {
    fn decode(&mut self, unit: AccessUnit<'_>, sink: &mut dyn FnMut(Picture<'_>)) -> Result<(), DecodeError> {
        self.fill(unit)?;
        // SAFETY: context and packet are ours and valid. The packet is emptied in every case.
        let sent = unsafe {
            let sent = avcodec_send_packet(self.context.as_ptr(), self.packet.as_ptr());
            av_packet_unref(self.packet.as_ptr());
            sent
        };
        // All pictures are taken out after each packet, so that there is always room for the next one.
        if sent < 0 {
            return Err(DecodeError::Damaged(text(sent)));
        }
        loop {
            // SAFETY: context and frame are ours and valid; the function empties the frame before it fills it.
            let received = unsafe { avcodec_receive_frame(self.context.as_ptr(), self.frame.as_ptr()) };
            match received as isize {
                0.. => sink(self.picture()?),
                layout::ERROR_AGAIN | layout::ERROR_END => return Ok(()),
                _ => return Err(DecodeError::Damaged(text(received))),
            }
        }
    }

    /// With a new context: avcodec_flush_buffers keeps what the decoder believes about the order of pictures, and one
    /// damaged access unit can make it hold every later picture back by one.
    fn reset(&mut self) {
        match Libavcodec::new() {
            Ok(new) => *self = new,
            // SAFETY: the context is ours and open.
            Err(_) => unsafe { avcodec_flush_buffers(self.context.as_ptr()) },
        }
    }
}

impl Drop for Libavcodec {
    fn drop(&mut self) {
        // SAFETY: made by the matching functions, freed once.
        unsafe {
            av_frame_free(&mut self.frame.as_ptr());
            av_packet_free(&mut self.packet.as_ptr());
            avcodec_free_context(&mut self.context.as_ptr());
        }
    }
}
