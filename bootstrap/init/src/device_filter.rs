//! Which devices the processes of a control group may open or make, however they came by a node: the kernel asks a small
//! program that `init` attaches to the group.
//!
//! A private `/dev` keeps a service from what it does not see; a service with CAP_SYS_ADMIN could mount the kernel's own
//! `/dev` again. This filter also holds then, and for a mount of a disk: a group opens what its [`Rule`]s name, and nothing
//! else. It holds for as long as a process stays in the group, which `applications` alone can leave (README.md).

use crate::{Result, named};
use rustix::fs::{Mode, OFlags};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Devices that a group may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// Block devices, and not character devices.
    pub block: bool,
    /// Their major number.
    pub major: u32,
    /// Their minor number, or all with this major number.
    pub minor: Option<u32>,
}

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
/// `BPF_DEVCG_DEV_BLOCK` and `BPF_DEVCG_DEV_CHAR`, in the lower half of `struct bpf_cgroup_dev_ctx`'s first word.
const BLOCK: u32 = 1;
const CHARACTER: u32 = 2;

/// `struct bpf_insn`: code; destination and source register; offset; immediate.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

const fn instruction(code: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, registers: destination | source << 4, offset, immediate }
}

/// The program: 1 lets pass, 0 refuses. The context has the words access and kind, major, minor.
fn program(rules: &[Rule]) -> Vec<Instruction> {
    const LOAD_WORD: u8 = 0x61; // destination = *(u32 *)(source + offset)
    const AND: u8 = 0x54; // 32 bit, with the immediate
    const MOVE: u8 = 0xb7; // 64 bit, the immediate
    const JUMP_IF_NOT: u8 = 0x55; // to offset, if destination != immediate
    const EXIT: u8 = 0x95;
    // Kind, major and minor number, in this order.
    let mut program = vec![
        instruction(LOAD_WORD, 2, 1, 0, 0),
        instruction(AND, 2, 0, 0, 0xffff),
        instruction(LOAD_WORD, 3, 1, 4, 0),
        instruction(LOAD_WORD, 4, 1, 8, 0),
    ];
    let end = |program: &mut Vec<Instruction>, answer: i32| {
        program.push(instruction(MOVE, 0, 0, 0, answer));
        program.push(instruction(EXIT, 0, 0, 0, 0));
    };
    for rule in rules {
        let kind = if rule.block { BLOCK } else { CHARACTER };
        let wanted = [(2, Some(kind)), (3, Some(rule.major)), (4, rule.minor)];
        let wanted: Vec<(u8, u32)> = wanted.into_iter().filter_map(|(register, value)| Some((register, value?))).collect();
        for (number, (register, value)) in wanted.iter().enumerate() {
            // Over the other comparisons and the end, to the next rule. Device numbers have at most 20 bits.
            let over = i16::try_from(wanted.len() - number - 1 + 2).unwrap_or(0);
            program.push(instruction(JUMP_IF_NOT, *register, 0, over, i32::try_from(*value).unwrap_or(-1)));
        }
        end(&mut program, 1);
    }
    end(&mut program, 0);
    program
}

/// The beginning of `union bpf_attr` for BPF_PROG_LOAD; what is not given is zero to the kernel.
#[repr(C)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buffer: u64,
}

/// The same for BPF_PROG_ATTACH.
#[repr(C)]
struct Attach {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

fn bpf<T>(command: libc::c_int, attributes: &mut T) -> std::io::Result<libc::c_int> {
    // SAFETY: `attributes` is a `#[repr(C)]` beginning of `union bpf_attr` of the size given; what it points to is alive
    // during the call, and the kernel only reads it.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>()) };
    if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(result as libc::c_int) }
}

/// Attaches the filter to a control group, for all its processes of now and later.
pub fn attach(group: &str, rules: &[Rule]) -> Result<()> {
    let program = program(rules);
    let license = c"Apache-2.0";
    let mut load = Load {
        kind: BPF_PROG_TYPE_CGROUP_DEVICE,
        count: u32::try_from(program.len()).unwrap_or(0),
        instructions: program.as_ptr() as u64,
        license: license.as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buffer: 0,
    };
    let loaded = bpf(BPF_PROG_LOAD, &mut load).map_err(named("load the device filter of", group))?;
    // SAFETY: the kernel has just made this descriptor for us.
    let loaded = unsafe { OwnedFd::from_raw_fd(loaded) };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(group, flags, Mode::empty()).map_err(named("open", group))?;
    let number = |descriptor: &OwnedFd| descriptor.as_raw_fd().unsigned_abs();
    let mut attach = Attach { target: number(&directory), program: number(&loaded), kind: BPF_CGROUP_DEVICE, flags: 0 };
    bpf(BPF_PROG_ATTACH, &mut attach).map(drop).map_err(named("attach the device filter to", group))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a program as the kernel would: the instructions that there are, over a context.
    fn run(program: &[Instruction], context: [u32; 3]) -> u64 {
        let mut registers = [0u64; 11];
        let mut next = 0usize;
        loop {
            let Instruction { code, registers: both, offset, immediate } = program[next];
            let (to, from) = (usize::from(both & 15), usize::from(both >> 4));
            next += 1;
            let jump = |next: usize| next.checked_add_signed(isize::from(offset)).unwrap();
            match code {
                0x61 => {
                    assert_eq!(from, 1, "only the context is read");
                    registers[to] = u64::from(context[usize::try_from(offset).unwrap() / 4]);
                }
                0x54 => registers[to] &= u64::from(immediate.unsigned_abs()),
                0xb7 => registers[to] = u64::from(immediate.unsigned_abs()),
                0x55 if registers[to] != u64::from(immediate.unsigned_abs()) => next = jump(next),
                0x55 => {}
                0x95 => return registers[0],
                _ => panic!("unknown instruction {code:#x}"),
            }
        }
    }

    /// The filter let every character device pass: device mapper's, which knows the volumes' keys, among them.
    #[test]
    fn what_no_rule_names_is_refused_be_it_a_block_or_a_character_device() {
        // Access (make 1, read 2, write 4) in the upper half, kind (block 1, character 2) in the lower.
        let word = |access: u32, block: bool| access << 16 | if block { 1 } else { 2 };
        let rules = [
            Rule { block: true, major: 8, minor: None },
            Rule { block: false, major: 1, minor: Some(3) },
            Rule { block: false, major: 81, minor: None },
            Rule { block: false, major: 511, minor: Some(65_536) },
        ];
        let numbers =
            [(8, 0), (8, 17), (8, 3), (254, 0), (259, 3), (1, 1), (1, 3), (10, 236), (81, 0), (81, 7), (511, 65_536)];
        for access in 1..8 {
            for (major, minor) in numbers.into_iter().chain([(511, 0), (511, 3), (0, 0)]) {
                for block in [true, false] {
                    let context = [word(access, block), major, minor];
                    assert_eq!(run(&program(&[]), context), 0);
                    for allowed in 0..=rules.len() {
                        let rules = &rules[..allowed];
                        let named = rules.iter().any(|rule| {
                            rule.block == block && rule.major == major && rule.minor.is_none_or(|wanted| wanted == minor)
                        });
                        assert_eq!(run(&program(rules), context), u64::from(named), "{block} {major}:{minor} {rules:?}");
                    }
                }
            }
        }
    }
}
