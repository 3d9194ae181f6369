//! NVIDIA's fuse configuration file ("Secure Boot", section "Fuse Configuration File").

use crate::plan::{Plan, Value};
use zeroize::Zeroizing;

/// The file, with the rows that are to burn in their order. It holds secrets: mode 0600, and gone afterwards.
pub fn xml(plan: &Plan) -> Zeroizing<String> {
    // Room for all from the start: a string that grows leaves its old copies behind.
    let room = 128 + plan.rows.iter().map(|row| 96 + row.fuse.size * 2).sum::<usize>();
    let mut text = Zeroizing::new(String::with_capacity(room));
    text.push_str("<genericfuse MagicId=\"0x45535546\" version=\"1.0.0\">\n");
    for row in plan.to_burn() {
        text.push_str("    <fuse name=\"");
        text.push_str(row.fuse.name);
        text.push_str("\" size=\"");
        text.push_str(&row.fuse.size.to_string());
        text.push_str("\" value=\"0x");
        let bytes = match &row.after {
            Value::Open(bytes) => bytes.as_slice(),
            Value::Secret(secret) => secret.bytes(),
        };
        for digit in bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]) {
            text.extend(char::from_digit(digit.into(), 16));
        }
        text.push_str("\"/>\n");
    }
    text.push_str("</genericfuse>\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Wanted, plan, tests::orin};

    #[test]
    fn the_file_is_as_the_guide_shows_it() {
        let wanted = Wanted { close_debug: false, level: 0, ..orin() };
        let plan =
            plan(&wanted, Some(&crate::reading::parse(wanted.chip, crate::reading::tests::NEW_ORIN.as_bytes()).unwrap()));
        let text = xml(&plan.unwrap());
        assert_eq!(text.as_str(), include_str!("../fixtures/orin.xml"));
    }
}
