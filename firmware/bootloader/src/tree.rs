//! The firmware's device tree.

use uefi::{Guid, guid, system};

/// EFI_DTB_TABLE_GUID (Embedded Base Boot Requirements, 2.3).
const TABLE: Guid = guid!("b1b621d5-f19c-41a5-830b-d9152c69aae0");
/// Most that is looked at, bytes.
const LIMIT: usize = 2 << 20;

/// What `look` says of the tree; false when there is none.
pub fn with(look: impl Fn(&[u8]) -> bool) -> bool {
    system::with_config_table(|tables| {
        tables.iter().find(|table| table.guid == TABLE).is_some_and(|table| {
            // SAFETY: the firmware's device tree; its header says how long it is, and the firmware is trusted.
            let tree = unsafe {
                let start = table.address.cast::<u8>();
                let size = u32::from_be(start.add(4).cast::<u32>().read_unaligned()) as usize;
                core::slice::from_raw_parts(start, size.min(LIMIT))
            };
            look(tree)
        })
    })
}
