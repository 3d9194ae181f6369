//! A secure world, its storage, or a kernel, that says anything: every message is understood or refused, and what is answered
//! to it has the shape that it came in.
#![no_main]

use belvedere_tee::Code;
use belvedere_tee::call;
use belvedere_tee::keeper::{Kept, Refusal, Standing, Wrapped};
use belvedere_tee::supplicant::{Request, Value, file_name};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(request) = Request::decode(data) {
        let count = u32::from_le_bytes([data[4], data[5], data[6], data[7]]);
        for value in [Value::None, Value::Handle(7), Value::Length(1), Value::Memory(3)] {
            let answer = request.answer(Code::SUCCESS, value);
            assert_eq!(answer.len(), 8 + 32 * count as usize);
            assert_eq!(answer[4..8], count.to_le_bytes());
            // The kinds of the parameters stay: Linux compares them.
            for index in 0..count as usize {
                let at = 8 + 32 * index;
                assert_eq!(answer[at..at + 8], data[at..at + 8]);
            }
        }
    }
    let _ = (call::invoked(data), call::opened(data));
    if let Ok(kept) = Kept::decode(data) {
        assert_eq!(kept.encode(), data);
    }
    if let Ok(wrapped) = Wrapped::decode(data) {
        assert_eq!(wrapped.encode(), data);
    }
    if let Some((numbers, rest)) = data.split_first_chunk::<16>() {
        let number = |at: usize| numbers[at..].iter().take(8).rev().fold(0u64, |sum, &byte| sum << 8 | u64::from(byte));
        let (a, b) = (number(0), number(8));
        if let Ok(standing) = Standing::decode((a, b)) {
            let (c, d) = standing.encode();
            assert_eq!((a, b), (c.into(), d.into()));
        }
        if let Some(code) = rest.first_chunk() {
            let code = Code(u32::from_le_bytes(*code));
            assert!(Refusal::from_code(code).is_none_or(|refusal| refusal.code() == code));
        }
    }
    if let Some(name) = file_name(data) {
        assert!(!name.is_empty() && !name.contains(['/', '\0']) && name != ".." && name != ".");
    }
});
