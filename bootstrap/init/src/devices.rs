//! Which device node belongs to which service: the kernel makes all nodes root's.

use crate::table::{SERVICES, user_of};
use rustix::fs::{Gid, Mode, Uid};
use std::path::{Path, PathBuf};

/// Gives the nodes that exist to their services' users. Called again now and then: devices come later, too.
/// Returns what could not be given.
pub fn give() -> Vec<String> {
    let mut errors = Vec::new();
    for service in SERVICES {
        for pattern in service.devices {
            for path in matching(Path::new("/"), pattern) {
                let id = user_of(service);
                if rustix::fs::stat(&path).is_ok_and(|found| found.st_uid == id) {
                    continue;
                }
                let given = rustix::fs::chown(&path, Some(Uid::from_raw(id)), Some(Gid::from_raw(id)))
                    .and_then(|()| rustix::fs::chmod(&path, Mode::from_raw_mode(0o600)));
                if let Err(error) = given {
                    errors.push(format!("give {} to {}: {error}", path.display(), service.name));
                }
            }
        }
    }
    errors
}

/// The lights' files, given to the service that drives them.
pub fn give_lights() -> Vec<String> {
    use belvedere_front_panel_lights::{Led, SysfsLeds};
    let Some(id) = belvedere_interfaces::users::id_of("front-panel") else { return Vec::new() };
    let class = SysfsLeds::new(SysfsLeds::ROOT);
    let mut errors = Vec::new();
    for led in Led::ALL {
        for file in ["delay_on", "delay_off"] {
            let path = class.path(led, file);
            if path.exists()
                && let Err(error) = rustix::fs::chown(&path, Some(Uid::from_raw(id)), Some(Gid::from_raw(id)))
            {
                errors.push(format!("give {} to front-panel: {error}", path.display()));
            }
        }
    }
    errors
}

/// The nodes below `root` whose path is `pattern`, in which a `*` in the last part stands for one or more digits.
fn matching(root: &Path, pattern: &str) -> Vec<PathBuf> {
    let pattern = pattern.trim_start_matches('/');
    let Some((before, behind)) = pattern.split_once('*') else {
        let path = root.join(pattern);
        return if path.exists() { vec![path] } else { Vec::new() };
    };
    let (directory, start) = before.rsplit_once('/').unwrap_or(("", before));
    let Ok(entries) = std::fs::read_dir(root.join(directory)) else { return Vec::new() };
    let fits = |name: &str| {
        let digits = name.strip_prefix(start).and_then(|rest| rest.strip_suffix(behind));
        digits.is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
    };
    entries.flatten().filter(|entry| fits(&entry.file_name().to_string_lossy())).map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_are_digits_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("dri")).unwrap();
        for name in ["dri/card0", "dri/card12", "dri/card", "dri/cardx", "dri/renderD128", "tpmrm0"] {
            std::fs::File::create(root.path().join(name)).unwrap();
        }
        let names = |pattern| {
            let mut names: Vec<_> =
                matching(root.path(), pattern).iter().map(|path| path.file_name().unwrap().to_owned()).collect();
            names.sort();
            names
        };
        assert_eq!(names("/dri/card*"), ["card0", "card12"]);
        assert_eq!(names("/tpmrm*"), ["tpmrm0"]);
        assert_eq!(names("/tpmrm0"), ["tpmrm0"]);
        assert!(names("/video*").is_empty() && names("/absent/x*").is_empty());
    }
}
