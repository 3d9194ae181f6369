//! Reads flattened device trees (Devicetree Specification 0.4, chapter 5), as far as firmware needs it.

const MAGIC: u32 = 0xd00d_feed;
const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROPERTY: u32 = 3;
const NOP: u32 = 4;

/// One thing in a tree, in the order in which it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Token<'tree> {
    /// A node begins; its name with the address, empty for the root.
    Node(&'tree str),
    /// The node that began last ends.
    End,
    /// A property of the node that began last.
    Property(&'tree str, &'tree [u8]),
}

/// The tokens of a tree; ends early where the tree is damaged.
#[derive(Debug, Clone)]
pub struct Tokens<'tree> {
    tree: &'tree [u8],
    strings: usize,
    at: usize,
}

/// Reads a tree from its first token on. Nothing when this is no device tree.
pub fn tokens(tree: &[u8]) -> Option<Tokens<'_>> {
    (word(tree, 0)? == MAGIC).then_some(())?;
    Some(Tokens { tree, strings: word(tree, 12)? as usize, at: word(tree, 8)? as usize })
}

impl<'tree> Iterator for Tokens<'tree> {
    type Item = Token<'tree>;

    fn next(&mut self) -> Option<Token<'tree>> {
        loop {
            let token = word(self.tree, self.at)?;
            let start = self.at.checked_add(4)?;
            match token {
                NOP => self.at = start,
                BEGIN_NODE => {
                    let name = text(self.tree.get(start..)?)?;
                    self.at = start.checked_add((name.len() + 1).next_multiple_of(4))?;
                    return Some(Token::Node(name));
                }
                END_NODE => {
                    self.at = start;
                    return Some(Token::End);
                }
                PROPERTY => {
                    let length = word(self.tree, start)? as usize;
                    let name = self.strings.checked_add(word(self.tree, start.checked_add(4)?)? as usize)?;
                    let value = start.checked_add(8)?;
                    let content = self.tree.get(value..value.checked_add(length)?)?;
                    self.at = value.checked_add(length.next_multiple_of(4))?;
                    return Some(Token::Property(text(self.tree.get(name..)?)?, content));
                }
                _ => return None,
            }
        }
    }
}

/// The memory that the children of `/reserved-memory` with an address of their own name: start and size in bytes. Both are
/// read as two cells, as on every 64-bit board.
pub fn reserved_memory(tree: &[u8]) -> impl Iterator<Item = (u64, u64)> {
    let (mut depth, mut inside) = (0usize, false);
    tokens(tree).into_iter().flatten().filter_map(move |token| match token {
        Token::Node(name) => {
            depth += 1;
            if depth == 2 {
                inside = name == "reserved-memory";
            }
            None
        }
        Token::End => {
            depth = depth.saturating_sub(1);
            None
        }
        Token::Property("reg", value) if inside && depth == 3 => {
            let (start, size) = value.split_at_checked(8)?;
            Some((u64::from_be_bytes(start.try_into().ok()?), u64::from_be_bytes(size.get(..8)?.try_into().ok()?)))
        }
        Token::Property(..) => None,
    })
}

fn text(bytes: &[u8]) -> Option<&str> {
    let end = bytes.iter().take(256).position(|&byte| byte == 0)?;
    core::str::from_utf8(&bytes[..end]).ok()
}

fn word(tree: &[u8], at: usize) -> Option<u32> {
    let bytes = tree.get(at..at.checked_add(4)?)?;
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::process::{Command, Stdio};
    use std::vec::Vec;

    /// What the real compiler makes of a source.
    fn compiled(source: &str) -> Vec<u8> {
        let mut child = Command::new("dtc")
            .args(["-q", "-I", "dts", "-O", "dtb"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(source.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        output.stdout
    }

    const SOURCE: &str = r#"/dts-v1/; / { #address-cells = <2>; #size-cells = <2>; compatible = "x";
        memory@40000000 { reg = <0 0x40000000 0 0x1000>; };
        reserved-memory { #address-cells = <2>; #size-cells = <2>; ranges;
            ramoops@60000000 { compatible = "ramoops"; reg = <0 0x60000000 0 0x100000>; record-size = <0x20000>; };
            pool { size = <0 0x1000>; };
            other@1 { reg = <1 0 0 0x2000>; inner { reg = <0 7 0 7>; }; };
        };
        device { reg = <0 9 0 9>; };
    };"#;

    #[test]
    fn the_children_of_reserved_memory_with_an_address_are_found() {
        let tree = compiled(SOURCE);
        let found: Vec<(u64, u64)> = reserved_memory(&tree).collect();
        assert_eq!(found, [(0x6000_0000, 0x10_0000), (1 << 32, 0x2000)]);
        assert_eq!(reserved_memory(&compiled("/dts-v1/; / { x { reg = <0 9 0 9>; }; };")).count(), 0);
        assert_eq!(reserved_memory(b"").count(), 0);
    }

    #[test]
    fn a_damaged_tree_ends_early_and_does_no_harm() {
        let tree = compiled(SOURCE);
        for length in 0..tree.len() {
            assert!(reserved_memory(&tree[..length]).count() <= 2);
        }
        for place in 0..tree.len() {
            for bit in [0x01, 0x80] {
                let mut damaged = tree.clone();
                damaged[place] ^= bit;
                let _ = reserved_memory(&damaged).count();
            }
        }
    }
}
