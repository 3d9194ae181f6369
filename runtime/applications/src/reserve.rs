//! The last blocks of the disk are for the appliance itself: ext4 gives them to nobody but the holders of
//! CAP_SYS_RESOURCE and a group of the services (`data` is mounted so). This process has the capability, to be able to
//! write what is desired onto a full disk. What it writes *for applications* must do without.

use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

/// Does something without the right to the reserve. An overlay that is mounted so goes on without it: the kernel writes
/// upper layers with the rights of whoever mounted them.
pub fn without<T>(work: impl FnOnce() -> T) -> T {
    let _end = drop_for_a_while();
    work()
}

/// Gives the right back when dropped.
struct End(Option<rustix::thread::CapabilitySets>);

impl Drop for End {
    fn drop(&mut self) {
        if let Some(before) = self.0
            && let Err(error) = set_capabilities(None, before)
        {
            log::error!("take the right to the disk's reserve back: {error}");
        }
    }
}

fn drop_for_a_while() -> End {
    // Capabilities are a thread's own.
    let Ok(before) = capabilities(None) else { return End(None) };
    if !before.effective.contains(CapabilitySet::SYS_RESOURCE) {
        return End(None);
    }
    let mut less = before;
    less.effective.remove(CapabilitySet::SYS_RESOURCE);
    match set_capabilities(None, less) {
        Ok(()) => End(Some(before)),
        Err(error) => {
            log::error!("do without the right to the disk's reserve: {error}");
            End(None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_right_is_gone_meanwhile_and_back_afterwards() {
        let right = || capabilities(None).unwrap().effective.contains(CapabilitySet::SYS_RESOURCE);
        let before = right();
        assert!(!without(right));
        assert_eq!(right(), before);
    }
}
