//! The root image: the root tree as EROFS, and its verity tree behind it.

use crate::cache::{Cache, Stage};
use crate::compression_hints;
use crate::error::{Error, Result};
use crate::manifest::Manifest;
use crate::program::{FIXED_TIME, program, run};
use crate::progress::Progress;
use crate::root_tree::{self, Ingredients};
use crate::root_tree_check;
use crate::verity::{self, Verity};
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::fs;
use std::path::Path;

/// Names the file system; the same in every release, so that its blocks are.
const UUID: &str = "b3c8cd4a-6d0f-4f6e-9a53-0b6c5a7d1e01";

/// What must be known of a root image to open it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Facts {
    /// Blocks of the file system.
    pub data_blocks: u64,
    /// 64 hexadecimal digits.
    pub root_hash: String,
    /// 64 hexadecimal digits.
    pub salt: String,
}

impl From<Verity> for Facts {
    fn from(verity: Verity) -> Self {
        Self { data_blocks: verity.data_blocks, root_hash: hex::encode(verity.root_hash), salt: hex::encode(verity.salt) }
    }
}

/// Makes a file system image of a directory. Same tree, same bytes: times, owner and UUID are fixed.
///
/// # Errors
/// When `mkfs.erofs` fails.
pub fn make_file_system(tree: &Path, image: &Path) -> Result<()> {
    let mut command = program("mkfs.erofs");
    // lz4 rather than more compact codes: reading costs next to nothing, and every kernel can.
    command.args(["--quiet", "--all-root", "-zlz4hc,12", "-C16384", "-x-1"]);
    command.arg(format!("-T{FIXED_TIME}")).arg(format!("-U{UUID}"));
    let hints = image.with_extension("hints");
    if let Some(lines) = compression_hints::hints(tree)? {
        fs::write(&hints, lines).map_err(Error::file("write", &hints))?;
        let mut option = OsString::from("--compress-hints=");
        option.push(&hints);
        command.arg(option);
    }
    let made = run(command.arg(image).arg(tree), "making the root file system");
    match fs::remove_file(&hints) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(Error::file("remove", &hints)(error)),
        _ => {}
    }
    made.map(drop)
}

/// The root image: the stage holds `root.erofs` (with the verity tree), `facts.json` and `manifest.json`.
///
/// # Errors
/// When a part of the tree cannot be had or the file system cannot be made.
pub fn build(
    cache: &Cache,
    ingredients: &Ingredients<'_>,
    manifest: Manifest,
    progress: &mut Progress,
) -> Result<(Stage, Facts)> {
    let begun = progress.begin("root image", "Debian packages, our programs, EROFS, dm-verity");
    let mut inputs =
        ingredients.inputs()?.with("uuid", UUID).with("salt", verity::SALT).with("file system", "lz4hc,12 16384 1, hints");
    inputs = inputs.with(
        "kernel",
        serde_json::to_string(&manifest.kernel).map_err(|error| Error::invalid("manifest", error.to_string()))?,
    );
    let stage = cache.stage("root-image", &inputs, |directory| {
        let (tree, scratch) = (directory.join("tree"), directory.join("scratch"));
        let manifest = root_tree::gather(cache, &tree, &scratch, ingredients, manifest)?;
        root_tree_check::check(&tree)?;
        let image = directory.join("root.erofs");
        make_file_system(&tree, &image)?;
        let uuid: [u8; 16] =
            uuid::Uuid::parse_str(UUID).map_err(|error| Error::invalid(UUID, error.to_string()))?.into_bytes();
        let facts = Facts::from(verity::append(&image, verity::SALT, uuid)?);
        for (name, text) in [
            ("facts.json", serde_json::to_string_pretty(&facts)),
            ("manifest.json", serde_json::to_string_pretty(&manifest)),
        ] {
            let text = text.map_err(|error| Error::invalid(name, error.to_string()))? + "\n";
            let path = directory.join(name);
            fs::write(&path, text).map_err(Error::file("write", &path))?;
        }
        for used in [scratch, tree] {
            fs::remove_dir_all(&used).map_err(Error::file("remove", &used))?;
        }
        Ok(())
    })?;
    let path = stage.file("facts.json");
    let text = fs::read_to_string(&path).map_err(Error::file("read", &path))?;
    let facts: Facts =
        serde_json::from_str(&text).map_err(|error| Error::invalid(path.display().to_string(), error.to_string()))?;
    let megabytes = (facts.data_blocks * verity::BLOCK as u64) as f64 / 1e6;
    progress.done("root image", begun, &format!("{megabytes:.1} MB {}", if stage.warm { "from the cache" } else { "made" }));
    Ok((stage, facts))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Read;
    use std::os::unix::fs::symlink;

    /// The same tree, with its entries made in another order and at another time.
    fn tree(directory: &Path, names: &[&str]) {
        for name in names {
            let path = directory.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, name.repeat(5000)).unwrap();
        }
        symlink("usr/lib", directory.join("lib")).unwrap();
    }

    #[test]
    fn the_same_tree_gives_the_same_image_and_another_one_does_not() {
        let directory = tempfile::tempdir().unwrap();
        let names = ["usr/lib/b", "usr/lib/a", "etc/passwd", "var/z/y"];
        let image = |number: usize, names: &[&str]| {
            let root = directory.path().join(number.to_string());
            tree(&root, names);
            let image = directory.path().join(format!("{number}.erofs"));
            make_file_system(&root, &image).unwrap();
            verity::append(&image, verity::SALT, [7; 16]).unwrap();
            fs::read(image).unwrap()
        };
        let first = image(1, &names);
        let reversed: Vec<&str> = names.iter().rev().copied().collect();
        assert!(first == image(2, &reversed), "differs with the order in which files were made");
        assert!(first != image(3, &names[1..]));
    }

    /// `mkfs.erofs` tried to compress each block of such a file: 10 minutes for a gigabyte.
    #[test]
    fn a_file_that_does_not_compress_costs_no_time_and_gives_the_same_image() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("root");
        tree(&root, &["usr/lib/a", "etc/passwd"]);
        let mut noise = vec![0; 2 << 20];
        File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut noise)).unwrap();
        fs::write(root.join("usr/lib/model"), noise).unwrap();
        let made = |name: &str| directory.path().join(name);
        let processor_time = || {
            let text = fs::read_to_string("/proc/self/stat").unwrap();
            // Of the children that ended, in user mode, in ticks.
            text.rsplit_once(')').unwrap().1.split_whitespace().nth(13).unwrap().parse::<u64>().unwrap()
        };
        let plain = made("plain.erofs");
        let begun = processor_time();
        run(
            program("mkfs.erofs")
                .args(["--quiet", "--all-root", "-zlz4hc,12", "-C16384", "-x-1"])
                .arg(format!("-T{FIXED_TIME}"))
                .arg(format!("-U{UUID}"))
                .arg(&plain)
                .arg(&root),
            "making it without hints",
        )
        .unwrap();
        let without = processor_time() - begun;
        let hinted = made("hinted.erofs");
        let begun = processor_time();
        make_file_system(&root, &hinted).unwrap();
        let with = processor_time() - begun;
        assert!(fs::read(plain).unwrap() == fs::read(&hinted).unwrap());
        assert!(with * 4 < without, "{with} ticks, without hints {without}");
        assert!(!made("hinted.hints").exists());
    }
}
