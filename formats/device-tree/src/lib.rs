//! Reads flattened device trees (Devicetree Specification 0.4, chapter 5), as far as firmware needs it, and changes in them
//! the three things that the firmware knows better than the release: see [`Firmware`]. Bytes alone, no I/O, no allocation.
#![cfg_attr(not(test), no_std)]

use core::ops::Range;

const MAGIC: u32 = 0xd00d_feed;
const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROPERTY: u32 = 3;
const NOP: u32 = 4;
/// Nodes in nodes that are looked into.
const DEPTH: usize = 32;

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

/// The size of a whole tree by its first eight bytes, bytes. Nothing when this is no device tree.
pub fn size(header: &[u8]) -> Option<u32> {
    (word(header, 0)? == MAGIC).then(|| word(header, 4)).flatten()
}

/// Reads a tree from its first token on. Nothing when this is no device tree.
pub fn tokens(tree: &[u8]) -> Option<Tokens<'_>> {
    (word(tree, 0)? == MAGIC).then_some(())?;
    Some(Tokens { tree, strings: word(tree, 12)? as usize, at: word(tree, 8)? as usize })
}

impl<'tree> Iterator for Tokens<'tree> {
    type Item = Token<'tree>;

    fn next(&mut self) -> Option<Token<'tree>> {
        self.step().map(|(_, token)| token)
    }
}

impl<'tree> Tokens<'tree> {
    /// The next token, and where in the tree it begins, bytes.
    fn step(&mut self) -> Option<(usize, Token<'tree>)> {
        loop {
            let begin = self.at;
            let token = word(self.tree, begin)?;
            let start = begin.checked_add(4)?;
            match token {
                NOP => self.at = start,
                BEGIN_NODE => {
                    let name = text(self.tree.get(start..)?)?;
                    self.at = start.checked_add((name.len() + 1).next_multiple_of(4))?;
                    return Some((begin, Token::Node(name)));
                }
                END_NODE => {
                    self.at = start;
                    return Some((begin, Token::End));
                }
                PROPERTY => {
                    let length = word(self.tree, start)? as usize;
                    let name = self.strings.checked_add(word(self.tree, start.checked_add(4)?)? as usize)?;
                    let value = start.checked_add(8)?;
                    let content = self.tree.get(value..value.checked_add(length)?)?;
                    self.at = value.checked_add(length.next_multiple_of(4))?;
                    return Some((begin, Token::Property(text(self.tree.get(name..)?)?, content)));
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

/// Whether `name` is among the strings of the root node's `compatible`. False for anything that is no device tree.
pub fn root_is_compatible(tree: &[u8], name: &str) -> bool {
    property(tree, &[], "compatible").is_some_and(|(_, value)| has_string(value, name.as_bytes()))
}

/// Whether a property that is a list of strings has this one.
fn has_string(value: &[u8], string: &[u8]) -> bool {
    value.split(|&byte| byte == 0).any(|found| found == string)
}

/// What the firmware's device tree says of the board, which a release cannot know: the same one starts with and without a
/// secure world (EL3 and secure EL1), with and without a TPM.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Firmware {
    /// PSCI, with which processors are started and the power goes off, is called with SMC (trusted firmware) and not with
    /// HVC (a hypervisor): `/psci`, property `method`.
    pub psci_by_smc: bool,
    /// There is an OP-TEE: `/firmware/optee` of the kind `linaro,optee-tz`, called with SMC.
    pub op_tee: bool,
    /// There is no TPM in the memory map ([`TPM`]), where a kernel that looks for one would stop. Only of a tree that is whole:
    /// one that cannot be read must not take a TPM away.
    pub no_tpm: bool,
}

/// `compatible` of a TPM in the memory map.
pub const TPM: &str = "tcg,tpm-tis-mmio";

impl Firmware {
    /// As the firmware's tree has it; the default for a tree that is damaged.
    pub fn of(tree: &[u8]) -> Self {
        let has = |path: &[&str], name: &str, value: &[u8]| {
            property(tree, path, name).is_some_and(|(_, found)| has_string(found, value))
        };
        let op_tee = ["firmware", "optee"];
        Self {
            psci_by_smc: has(&["psci"], "method", b"smc"),
            op_tee: has(&op_tee, "compatible", b"linaro,optee-tz")
                && has(&op_tee, "method", b"smc")
                && property(tree, &op_tee, "status").is_none_or(|(_, value)| matches!(value, b"okay\0" | b"ok\0")),
            no_tpm: is_whole(tree) && node(tree, TPM).is_none(),
        }
    }

    /// Makes a release's tree say the same, in place: `method` of `/psci` is written over; `status` of `/firmware/optee`, which is
    /// `disabled` in the release's, is taken out; so is the node of a TPM that is not there. What a tree does not have stays as
    /// it is.
    pub fn write_to(self, tree: &mut [u8]) {
        let method = property(tree, &["psci"], "method").filter(|(_, value)| *value == b"hvc\0").map(|(at, _)| at);
        if let Some(at) = method.filter(|_| self.psci_by_smc)
            && let Some(value) = tree.get_mut(at + PROPERTY_HEADER..at + PROPERTY_HEADER + 4)
        {
            value.copy_from_slice(b"smc\0");
        }
        let status = property(tree, &["firmware", "optee"], "status").map(|(at, value)| (at, value.len()));
        if let Some((at, length)) = status.filter(|_| self.op_tee)
            && let Some(whole) = tree.get_mut(at..at + PROPERTY_HEADER + length.next_multiple_of(4))
        {
            take_out(whole);
        }
        if let Some(whole) = node(tree, TPM).filter(|_| self.no_tpm).and_then(|place| tree.get_mut(place)) {
            take_out(whole);
        }
    }
}

/// Writes tokens over that say nothing.
fn take_out(tokens: &mut [u8]) {
    tokens.chunks_exact_mut(4).for_each(|word| word.copy_from_slice(&NOP.to_be_bytes()));
}

/// Whether every node that begins ends, the root as well.
fn is_whole(tree: &[u8]) -> bool {
    let mut depth = 0usize;
    for token in tokens(tree).into_iter().flatten() {
        match token {
            // Deeper than `node` looks.
            Token::Node(_) if depth == DEPTH => return false,
            Token::Node(_) => depth += 1,
            Token::End if depth == 1 => return true,
            Token::End => depth = depth.saturating_sub(1),
            Token::Property(..) => {}
        }
    }
    false
}

/// Where the first node with this string in its `compatible` lies, from its begin to behind its end.
fn node(tree: &[u8], compatible: &str) -> Option<Range<usize>> {
    let mut tokens = tokens(tree)?;
    let mut starts = [0usize; DEPTH];
    let (mut depth, mut found) = (0usize, None);
    while let Some((at, token)) = tokens.step() {
        match token {
            Token::Node(_) => {
                *starts.get_mut(depth)? = at;
                depth += 1;
            }
            Token::Property("compatible", value) if found.is_none() && has_string(value, compatible.as_bytes()) => {
                found = Some(depth);
            }
            Token::Property(..) => {}
            Token::End => {
                if found == Some(depth) {
                    return Some(*starts.get(depth.checked_sub(1)?)?..at.checked_add(4)?);
                }
                depth = depth.checked_sub(1)?;
            }
        }
    }
    None
}

/// Token, length and name of a property, bytes; its value follows.
const PROPERTY_HEADER: usize = 12;

/// The first property of this name in the node at `path` (names below the root): where its token begins, and its value.
fn property<'tree>(tree: &'tree [u8], path: &[&str], wanted: &str) -> Option<(usize, &'tree [u8])> {
    let mut tokens = tokens(tree)?;
    // How many nodes we are in, with the root, and how many of them are the path's.
    let (mut depth, mut matched) = (0usize, 0usize);
    while let Some((at, token)) = tokens.step() {
        match token {
            Token::Node(name) => {
                if depth == 0 || (matched == depth && path.get(depth - 1) == Some(&name)) {
                    matched += 1;
                }
                depth += 1;
            }
            Token::End => {
                depth = depth.checked_sub(1)?;
                matched = matched.min(depth);
            }
            Token::Property(name, value) => {
                if name == wanted && depth == matched && depth == path.len() + 1 {
                    return Some((at, value));
                }
            }
        }
    }
    None
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
    fn a_board_is_known_by_the_compatible_of_its_root_and_by_nothing_else() {
        let tree = compiled(
            r#"/dts-v1/; / { #size-cells = <2>; compatible = "linux,dummy-virt", "x,y"; child { compatible = "z"; }; };"#,
        );
        for (name, is) in [("linux,dummy-virt", true), ("x,y", true), ("linux,dummy", false), ("z", false), ("", false)] {
            // The list ends with a NUL, so an empty string would seem to be in it.
            assert_eq!(root_is_compatible(&tree, name) && !name.is_empty(), is, "{name}");
        }
        assert!(!root_is_compatible(b"", "linux,dummy-virt"));
        assert!(!root_is_compatible(&compiled(r#"/dts-v1/; / { child { compatible = "z"; }; };"#), "z"));
        for length in 0..tree.len() {
            let _ = root_is_compatible(&tree[..length], "linux,dummy-virt");
        }
    }

    /// As the release's tree, before anything is known of the firmware.
    const RELEASE: &str = r#"/dts-v1/; / { psci { compatible = "arm,psci-1.0"; method = "hvc"; migrate = <5>; };
        other { method = "hvc"; psci { method = "hvc"; }; optee { status = "disabled"; }; };
        firmware { method = "hvc";
            optee { compatible = "linaro,optee-tz"; method = "smc"; status = "disabled"; inner { status = "disabled"; }; }; };
        bus { tpm_tis@0 { reg = <0 1>; compatible = "tcg,tpm-tis-mmio"; inner { y; }; }; other { z; }; };
        last { x; };
    };"#;

    /// What becomes of the release's tree on a board that has a TPM.
    fn with_world(firmware: &str) -> (Firmware, Vec<u8>) {
        let firmware = firmware.replacen("/ {", r#"/ { b { t { compatible = "x", "tcg,tpm-tis-mmio"; }; };"#, 1);
        let world = Firmware::of(&compiled(&firmware));
        let mut tree = compiled(RELEASE);
        world.write_to(&mut tree);
        (world, tree)
    }

    /// What the compiler makes of it again, without what is between tokens.
    fn same(tree: &[u8], source: &str) -> bool {
        let source = compiled(source);
        tokens(tree).unwrap().eq(tokens(&source).unwrap())
    }

    #[test]
    fn a_secure_world_is_taken_over_from_the_firmware_s_tree() {
        let (world, tree) = with_world(
            r#"/dts-v1/; / { firmware { optee { method = "smc"; compatible = "linaro,optee-tz"; }; };
            psci { method = "smc"; }; };"#,
        );
        assert_eq!(world, Firmware { psci_by_smc: true, op_tee: true, no_tpm: false });
        let expected = RELEASE.replacen(r#"method = "hvc""#, r#"method = "smc""#, 1).replacen(
            r#"method = "smc"; status = "disabled";"#,
            r#"method = "smc";"#,
            1,
        );
        assert!(same(&tree, &expected));
        assert_eq!(Firmware::of(&tree), world);
    }

    #[test]
    fn without_one_the_release_s_tree_stays_as_it_was_signed() {
        for firmware in [
            r#"/dts-v1/; / { psci { method = "hvc"; }; };"#,
            r#"/dts-v1/; / { x { psci { method = "smc"; }; }; firmware { x { optee { compatible = "linaro,optee-tz"; method = "smc"; }; }; }; };"#,
            r#"/dts-v1/; / { firmware { optee { compatible = "linaro,optee-tz"; method = "hvc"; }; }; };"#,
            r#"/dts-v1/; / { firmware { optee { compatible = "linaro,optee-tz"; method = "smc"; status = "disabled"; }; }; };"#,
            r#"/dts-v1/; / { firmware { optee { compatible = "other"; method = "smc"; }; }; };"#,
        ] {
            let (world, tree) = with_world(firmware);
            assert_eq!(world, Firmware::default(), "{firmware}");
            assert_eq!(tree, compiled(RELEASE), "{firmware}");
        }
        let (world, tree) = with_world(r#"/dts-v1/; / { psci { method = "smc"; }; };"#);
        assert_eq!(world, Firmware { psci_by_smc: true, op_tee: false, no_tpm: false });
        assert!(same(&tree, &RELEASE.replacen(r#"method = "hvc""#, r#"method = "smc""#, 1)));
    }

    /// A kernel that looks for a TPM that is not there stops: a synchronous external abort.
    #[test]
    fn a_tpm_that_is_not_there_is_taken_out_with_all_that_is_in_it_and_nothing_else() {
        let firmware = compiled(r#"/dts-v1/; / { bus { compatible = "tcg"; }; psci { method = "hvc"; }; };"#);
        let found = Firmware::of(&firmware);
        assert_eq!(found, Firmware { no_tpm: true, ..Firmware::default() });
        let mut tree = compiled(RELEASE);
        found.write_to(&mut tree);
        let without = r#"tpm_tis@0 { reg = <0 1>; compatible = "tcg,tpm-tis-mmio"; inner { y; }; };"#;
        assert!(RELEASE.contains(without) && same(&tree, &RELEASE.replace(without, "")));
        assert!(Firmware::of(&tree).no_tpm);
        // One that is deeper than is looked takes none away, either.
        let deep = format!("/dts-v1/; / {{ {} {} }};", "a { ".repeat(DEPTH), "}; ".repeat(DEPTH));
        assert!(!Firmware::of(&compiled(&deep)).no_tpm);
        // A tree of which the end is missing takes none away.
        let strings = word(&firmware, 12).unwrap() as usize;
        for length in 0..firmware.len() {
            let mut cut = firmware[..length].to_vec();
            // The strings lie behind; with them at hand, it is the tokens that are cut off.
            if length < strings {
                cut.resize(strings, 0);
                cut.extend(&firmware[strings..]);
            }
            let whole = is_whole(&cut);
            assert!(whole || !Firmware::of(&cut).no_tpm, "{length}");
            assert!(!whole || length >= strings - 8, "{length}");
        }
    }

    #[test]
    fn a_tree_that_has_neither_is_not_changed() {
        let mut tree = compiled(SOURCE);
        Firmware { psci_by_smc: true, op_tee: true, no_tpm: true }.write_to(&mut tree);
        assert_eq!(tree, compiled(SOURCE));
    }

    #[test]
    fn a_damaged_tree_ends_early_and_does_no_harm() {
        let tree = compiled(RELEASE);
        for length in 0..tree.len() {
            let _ = Firmware::of(&tree[..length]);
            Firmware { psci_by_smc: true, op_tee: true, no_tpm: true }.write_to(&mut tree[..length].to_vec());
        }
        for place in 0..tree.len() {
            for bit in [0x01, 0x80] {
                let mut damaged = tree.clone();
                damaged[place] ^= bit;
                let _ = Firmware::of(&damaged);
                Firmware { psci_by_smc: true, op_tee: true, no_tpm: true }.write_to(&mut damaged);
            }
        }
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
