//! A secure world, or a kernel, that says anything: every message is understood or refused, and what is answered to it has the
//! shape that it came in.
#![no_main]

use belvedere_tee::call;
use belvedere_tee::supplicant::{Request, Value, file_name};
use belvedere_tee::{Code, keys, rollback};
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
    if let Ok(Ok(parameters)) = call::invoked(data) {
        let _ = rollback::value(&parameters);
    }
    let _ = (call::opened(data), keys::result(data), keys::handle(data), keys::point(data), keys::signature(data));
    if let Some(name) = file_name(data) {
        assert!(!name.is_empty() && !name.contains(['/', '\0']) && name != ".." && name != ".");
    }
});
