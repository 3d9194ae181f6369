//! Templates of stacks, as whoever may call CloudFormation sends them: YAML or JSON, with its short forms.
#![no_main]

use belvedere_api::cloudformation::{template::Template, yaml};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(value) = yaml::parse(text) {
        // What was read is plain: it can be written, and is bounded by what came.
        assert!(value.to_string().len() <= 64 * text.len() + 1024, "a small template became a large one");
    }
    if let Ok(template) = Template::parse(text) {
        let _ = template.values(&Default::default());
    }
});
