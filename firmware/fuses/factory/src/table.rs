//! A plan for people: what is in each fuse, what will be, what that stops, and that it stays for ever. No secret is in it.

use crate::chip::{Chip, Jetson};
use crate::plan::{Plan, Row, Value};
use crate::reading::{Found, hex};

/// What burning a fuse does, in a few words.
fn meaning(chip: Jetson, name: &str) -> &'static str {
    match name {
        "OdmId" => "the owner's number of this board",
        "ArmJtagDisable" | "JtagDisable" => "closes the debug port; NVIDIA cannot look into a returned board either",
        "ReservedOdm4" | "ReservedOdm5" => "rollback level: bits can be added later, never taken away",
        "OptInEnable" => "the boot ROM takes back a signing key when signed firmware asks for it",
        "PublicKeyHash" if chip == Jetson::Xavier => {
            "the board starts firmware of this key alone; lose the key and it takes no update"
        }
        "PublicKeyHash" => "the board starts firmware of these three keys alone; lose all three and it takes no update",
        "PkcPubkeyHash1" => "the second key, for the day when the first has to be taken back",
        "PkcPubkeyHash2" => "the third key; it cannot be taken back",
        "SecureBootKey" => "the firmware must be encrypted with it",
        "OemK1" | "Kek2" => "wraps OP-TEE's keys: firmware without an EKB made with it does not start",
        "BootSecurityInfo" => "switches the checks on: unsigned firmware does not start any more, NVIDIA's own included",
        "SecurityMode" => "closes the fuses: nothing but ReservedOdm can be burned after this",
        _ => "",
    }
}

fn short(bytes: &[u8]) -> String {
    let digits = hex(bytes);
    match (bytes.iter().all(|byte| *byte == 0), digits.get(..12), digits.get(digits.len().saturating_sub(8)..)) {
        (true, ..) => "0".into(),
        (false, Some(head), Some(tail)) if digits.len() > 16 => format!("{head}…{tail}"),
        _ => format!("0x{digits}"),
    }
}

fn now(row: &Row) -> String {
    match &row.now {
        None => "not read".into(),
        Some(Found::Open(bytes)) => short(bytes),
        Some(Found::Secret { set: false }) => "none".into(),
        Some(Found::Secret { set: true }) => "a secret".into(),
    }
}

fn after(row: &Row) -> String {
    match &row.after {
        _ if !row.burns() => "stays".into(),
        Value::Open(bytes) => short(bytes),
        Value::Secret(_) => "our secret".into(),
    }
}

/// The text.
pub fn text(plan: &Plan) -> String {
    let number = plan.chip_number.as_deref().unwrap_or("not read");
    let level = |level: Option<u32>| level.map_or("not read".to_owned(), |level| level.to_string());
    let mut text = format!(
        "{}, chip number {number}, rollback level {} -> {}\n\n{:16} {:24} {:24} for ever\n",
        plan.chip.name(),
        level(plan.level_now),
        plan.level_after,
        "fuse",
        "now",
        "after"
    );
    for row in &plan.rows {
        let meaning = if row.burns() { meaning(plan.chip, row.fuse.name) } else { "" };
        let line = format!("{:16} {:24} {:24} {meaning}", row.fuse.name, now(row), after(row));
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text.push_str("\nNone of this can be undone, by us or by NVIDIA. ");
    if plan.to_burn().next().is_none() {
        text.push_str("There is nothing to burn.\n");
    } else if plan.closes() {
        text.push_str(
            "What is wrong in it stays wrong: try signed firmware on a board that was burned without SecurityMode first.\n",
        );
    } else {
        text.push_str(
            "SecurityMode is not burned now: who has this board in his hands can burn what is left, but take nothing back.\n",
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{plan, tests::orin};
    use crate::reading::{parse, tests::NEW_ORIN};

    #[test]
    fn the_table_says_what_becomes_of_each_fuse_and_no_secret() {
        let wanted = orin();
        let plan = plan(&wanted, Some(&parse(wanted.chip, NEW_ORIN.as_bytes()).unwrap())).unwrap();
        let text = text(&plan);
        for row in plan.to_burn() {
            let line = text.lines().find(|line| line.starts_with(&format!("{} ", row.fuse.name))).unwrap();
            assert!(!meaning(wanted.chip, row.fuse.name).is_empty() && line.len() > 66, "{line}");
        }
        assert!(text.contains("BootSecurityInfo 0x000001e0               0x000003e9"), "{text}");
        assert!(text.contains("80012344705df1172c0000000d020080") && text.contains("level 0 -> 3"));
        for secret in plan.secrets() {
            assert!(!text.contains(&hex(secret.bytes())[..8]), "{text}");
        }
    }
}
