//! What must not be in a root tree: nothing that lets somebody who got in go on comfortably. The image is not made if it is.
//!
//! A production image holds programs that do one thing each. Shells and interpreters come with applications' containers, and
//! run there.

use crate::cache::sorted_entries;
use crate::error::{Error, Result};
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Names of shells, interpreters and toolboxes, with any version behind them.
const INTERPRETERS: [&str; 24] = [
    "ash", "awk", "bash", "busybox", "csh", "dash", "fish", "gawk", "gdb", "gdbserver", "ksh", "lua", "mawk", "mksh",
    "node", "perl", "php", "python", "rbash", "ruby", "sh", "socat", "toybox", "zsh",
];

fn is_interpreter(name: &str) -> bool {
    let stem = name.trim_end_matches(|letter: char| letter.is_ascii_digit() || letter == '.' || letter == '-');
    INTERPRETERS.contains(&stem)
}

/// Looks through a tree.
///
/// # Errors
/// At the first thing that must not be there.
pub fn check(tree: &Path) -> Result<()> {
    for entry in sorted_entries(tree)? {
        let metadata = fs::symlink_metadata(&entry).map_err(Error::file("look at", &entry))?;
        let name = entry.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let refuse = |why: &str| Err(Error::invalid(entry.display().to_string(), why));
        if metadata.is_dir() {
            check(&entry)?;
            continue;
        }
        let mode = metadata.permissions().mode();
        let runs = metadata.is_symlink() || mode & 0o111 != 0;
        if !metadata.is_symlink() && mode & 0o6000 != 0 {
            return refuse("is set-user-ID or set-group-ID: whoever starts it would get rights that he does not have");
        }
        if runs && is_interpreter(&name) {
            return refuse("is a shell or an interpreter, and has no place in a root image");
        }
        if metadata.is_file() && mode & 0o111 != 0 {
            let mut start = Vec::new();
            File::open(&entry).and_then(|file| file.take(2).read_to_end(&mut start)).map_err(Error::file("read", &entry))?;
            if start == b"#!" {
                return refuse("is a script, and nothing in a root image runs scripts");
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;

    #[test]
    fn shells_scripts_and_set_user_id_programs_are_refused_wherever_they_are() {
        for (name, content, mode, good) in [
            ("usr/bin/crun", "\x7fELF", 0o755, true),
            ("usr/lib/python/x.py", "import os", 0o644, true),
            ("usr/share/doc/bash", "about", 0o644, true),
            ("usr/bin/bash", "\x7fELF", 0o755, false),
            ("usr/lib/hidden/python3.11", "\x7fELF", 0o755, false),
            ("usr/bin/busybox", "\x7fELF", 0o755, false),
            ("usr/bin/tool", "#!/x", 0o755, false),
            ("usr/bin/mount", "\x7fELF", 0o4755, false),
            ("usr/bin/write", "\x7fELF", 0o2755, false),
        ] {
            let tree = tempfile::tempdir().unwrap();
            let path = tree.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            assert_eq!(check(tree.path()).is_ok(), good, "{name}");
        }
        let tree = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("crun", tree.path().join("sh")).unwrap();
        assert!(check(tree.path()).is_err());
    }
}
