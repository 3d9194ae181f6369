//! What comes from the Python Package Index: ONNX Runtime for the appliance, and the tool that edits firmware variables.

use crate::cache::{Cache, Inputs, Stage};
use crate::error::{Error, Result};
use crate::program::{program, run};
use crate::progress::Progress;
use std::fs;
use std::path::{Path, PathBuf};

/// Wheels of the root tree, with digests.
pub const WHEELS: &str = include_str!("../python-wheels");
/// With digests too: these programs run in a process that the private keys of Secure Boot are near.
const BUILD_TOOLS: &str = include_str!("../build-tools.txt");

/// A virtual environment with the tools that building an image needs. Its files name their own place, so it is made
/// where it stays, and marked when complete.
///
/// # Errors
/// When `venv` or `pip` fails.
pub fn tools(cache: &Cache, progress: &mut Progress) -> Result<PathBuf> {
    let begun = progress.begin("build tools", "virt-firmware from PyPI");
    let version = run(program("python3").arg("--version"), "asking for Python's version")?;
    let inputs = Inputs::new("build tools 2").with("python", version).with("requirements", BUILD_TOOLS);
    let parent = cache.work_directory("build-tools")?;
    let directory = parent.join(&inputs.hash()[..16]);
    let complete = directory.join("complete");
    let warm = complete.exists();
    if !warm {
        if directory.exists() {
            fs::remove_dir_all(&directory).map_err(Error::file("remove", &directory))?;
        }
        run(program("python3").args(["-m", "venv"]).arg(&directory), "making a virtual environment")?;
        let requirements = directory.join("requirements.txt");
        fs::write(&requirements, BUILD_TOOLS).map_err(Error::file("write", &requirements))?;
        let pip = directory.join("bin/pip").to_string_lossy().into_owned();
        run(
            program(&pip)
                .args(["install", "-q", "--disable-pip-version-check", "--no-deps", "--require-hashes"])
                // A source package would run its own set-up program.
                .args(["--only-binary=:all:", "-r"])
                .arg(&requirements),
            "installing virt-firmware from PyPI",
        )?;
        fs::write(&complete, "").map_err(Error::file("write", &complete))?;
    }
    progress.done("build tools", begun, if warm { "from the cache" } else { "installed" });
    Ok(directory)
}

/// ONNX Runtime for the appliance: the stage holds `libonnxruntime.so`, `LICENSE` and `ThirdPartyNotices.txt`.
///
/// # Errors
/// When the wheel cannot be downloaded, has another digest, or does not hold the library.
pub fn onnx_runtime(cache: &Cache, tools: &Path, progress: &mut Progress) -> Result<Stage> {
    let begun = progress.begin("onnxruntime", "from PyPI");
    let inputs = Inputs::new("onnxruntime 1").with("wheels", WHEELS);
    let stage = cache.stage("onnxruntime", &inputs, |directory| {
        let requirements = directory.join("requirements");
        fs::write(&requirements, WHEELS).map_err(Error::file("write", &requirements))?;
        let wheels = directory.join("wheels");
        // The pip of our own environment: a machine may have Python without one.
        let pip = tools.join("bin/pip").to_string_lossy().into_owned();
        run(
            program(&pip)
                .args(["download", "-q", "--disable-pip-version-check", "--no-deps", "--require-hashes"])
                .args(["--only-binary=:all:", "--platform", "manylinux_2_28_aarch64", "--python-version", "311", "-d"])
                .arg(&wheels)
                .arg("-r")
                .arg(&requirements),
            "downloading ONNX Runtime from PyPI",
        )?;
        let wheel =
            crate::cache::sorted_entries(&wheels)?.pop().ok_or_else(|| Error::invalid("pip download", "gave no file"))?;
        let unpacked = directory.join("unpacked");
        run(program("python3").args(["-m", "zipfile", "-e"]).arg(&wheel).arg(&unpacked), "unpacking ONNX Runtime")?;
        let library = crate::cache::sorted_entries(&unpacked.join("onnxruntime/capi"))?
            .into_iter()
            .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("libonnxruntime.so")))
            .ok_or_else(|| Error::invalid(wheel.display().to_string(), "holds no libonnxruntime.so"))?;
        for (from, to) in [
            (library, "libonnxruntime.so"),
            (unpacked.join("onnxruntime/LICENSE"), "LICENSE"),
            (unpacked.join("onnxruntime/ThirdPartyNotices.txt"), "ThirdPartyNotices.txt"),
        ] {
            fs::copy(&from, directory.join(to)).map_err(Error::file("copy", &from))?;
        }
        fs::remove_dir_all(&unpacked).map_err(Error::file("remove", &unpacked))?;
        fs::remove_dir_all(&wheels).map_err(Error::file("remove", &wheels))?;
        fs::remove_file(&requirements).map_err(Error::file("remove", &requirements))
    })?;
    progress.done("onnxruntime", begun, if stage.warm { "from the cache" } else { "downloaded" });
    Ok(stage)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// boot D21.
    #[test]
    fn everything_from_the_index_has_a_digest() {
        for list in [WHEELS, BUILD_TOOLS] {
            let list = list.replace("\\\n", " ");
            let wanted: Vec<&str> = list.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()).collect();
            assert!(!wanted.is_empty());
            for line in wanted {
                let (name, digests) = line.split_once(' ').unwrap_or((line, ""));
                assert!(name.contains("=="), "{line}");
                let digests: Vec<&str> = digests.split_whitespace().collect();
                assert!(!digests.is_empty(), "{name} has no digest");
                for digest in digests {
                    let digits = digest.strip_prefix("--hash=sha256:").expect(digest);
                    assert!(digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()), "{digest}");
                }
            }
        }
    }
}
