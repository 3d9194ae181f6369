//! What NVIDIA's programs say of a Jetson board's fuses, the plan that is made of it, and what is shown of their output.
#![no_main]

use belvedere_factory_fuses::chip::Jetson;
use belvedere_factory_fuses::configuration::xml;
use belvedere_factory_fuses::mask::masked;
use belvedere_factory_fuses::plan::{Value, Wanted, plan};
use belvedere_factory_fuses::reading::{Found, parse};
use belvedere_factory_fuses::secret::Secret;
use belvedere_factory_fuses::table;
use libfuzzer_sys::fuzz_target;

fn wanted(chip: Jetson) -> Wanted {
    let size = if chip == Jetson::Orin { 64 } else { 32 };
    let secret = |first: u8| {
        let bytes: Vec<u8> = (first..).take(chip.secret_size()).collect();
        Some(Secret::new(bytes.into()))
    };
    Wanted {
        chip,
        key_hashes: (1..=chip.signing_keys().len()).map(|key| vec![key as u8; size]).collect(),
        secure_boot_key: secret(0xa0),
        oem_key: secret(0xc0),
        level: 3,
        odm_id: Some(1),
        close_debug: true,
        close: true,
    }
}

fuzz_target!(|data: &[u8]| {
    for chip in [Jetson::Orin, Jetson::Xavier] {
        let wanted = wanted(chip);
        let shown = masked(&String::from_utf8_lossy(data), &[]);
        assert!(shown.split(|letter: char| !letter.is_ascii_hexdigit()).all(|run| run.len() < 8), "a long number is shown");
        let Ok(reading) = parse(chip, data) else { continue };
        let Ok(plan) = plan(&wanted, Some(&reading)) else { continue };
        for row in plan.to_burn() {
            // No bit that is burned is ever wanted back.
            if let (Some(Found::Open(now)), Value::Open(after)) = (&row.now, &row.after) {
                assert!(now.len() == after.len() && now.iter().zip(after).all(|(now, after)| now & after == *now));
            }
        }
        assert!(plan.level_now.is_some_and(|now| now <= plan.level_after));
        assert_eq!(xml(&plan).lines().count(), plan.to_burn().count() + 2);
        // The chip's own number may have any digits.
        let text = table::text(&plan).replace(plan.chip_number.as_deref().unwrap_or("-"), "");
        assert!(!text.contains("a0a1a2a3") && !text.contains("c0c1c2c3"), "a secret is shown");
    }
});
