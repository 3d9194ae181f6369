//! Tells boards apart by the root node of the firmware's device tree.

const MAGIC: u32 = 0xd00d_feed;
const BEGIN_NODE: u32 = 1;
const PROPERTY: u32 = 3;
const NOP: u32 = 4;

/// Whether `name` is among the strings of the root node's `compatible` in a flattened device tree (version 17). False
/// for anything that is not one.
pub fn root_is_compatible(tree: &[u8], name: &str) -> bool {
    find(tree, name).is_some()
}

fn find(tree: &[u8], name: &str) -> Option<()> {
    (word(tree, 0)? == MAGIC).then_some(())?;
    let mut at = word(tree, 8)? as usize;
    let strings = word(tree, 12)? as usize;
    (word(tree, at)? == BEGIN_NODE).then_some(())?;
    // The root's name is empty: one NUL, padded to a word.
    at = at.checked_add(8)?;
    loop {
        match word(tree, at)? {
            NOP => at += 4,
            PROPERTY => {
                let length = word(tree, at + 4)? as usize;
                let key = strings.checked_add(word(tree, at + 8)? as usize)?;
                let start = at + 12;
                let value = tree.get(start..start.checked_add(length)?)?;
                if tree.get(key..)?.starts_with(b"compatible\0") {
                    return value.split(|&byte| byte == 0).any(|entry| entry == name.as_bytes()).then_some(());
                }
                at = start + length.next_multiple_of(4);
            }
            // Properties come before child nodes: it has none of that name.
            _ => return None,
        }
    }
}

fn word(tree: &[u8], at: usize) -> Option<u32> {
    let bytes = tree.get(at..at.checked_add(4)?)?;
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::root_is_compatible;
    use alloc::vec::Vec;

    fn tree() -> Vec<u8> {
        let mut words: Vec<u32> = [0xd00d_feed, 0, 40, 104, 0, 17, 16, 0, 0, 0].to_vec();
        words.extend([1, 0, 4, 3, 4, 11, 0x0000_0002, 3, 18, 0]);
        let mut bytes: Vec<u8> = words.into_iter().flat_map(u32::to_be_bytes).collect();
        bytes.extend(b"linux,dummy-virt\0x\0\0");
        bytes.extend([0, 0, 0, 2]);
        bytes.extend(b"compatible\0#size-cells\0");
        bytes
    }

    #[test]
    fn the_virtual_board_is_recognised_and_nothing_else() {
        assert!(root_is_compatible(&tree(), "linux,dummy-virt"));
        assert!(!root_is_compatible(&tree(), "linux,dummy"));
        assert!(!root_is_compatible(b"", "linux,dummy-virt"));
        let whole = tree();
        for length in 0..whole.len() - 30 {
            assert!(!root_is_compatible(&whole[..length], "linux,dummy-virt"));
        }
    }
}
