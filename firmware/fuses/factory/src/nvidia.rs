//! The real bench: NVIDIA's scripts in a `Linux_for_Tegra` directory, run as they are.

use crate::bench::{Bench, BenchError, Fused, Run};
use crate::chip::{Chip, Jetson};
use crate::mask::masked;
use crate::secret::Secret;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where everything is.
#[derive(Debug)]
pub struct Nvidia {
    /// Generation.
    pub chip: Jetson,
    /// `Linux_for_Tegra`.
    pub tools: PathBuf,
    /// The name of a `.conf` there, such as `jetson-agx-orin-devkit`.
    pub target: String,
    /// The first firmware signing key, PEM: with what a burned board is spoken to.
    pub signing_key: PathBuf,
    /// The SBK's file, as NVIDIA's tools take it.
    pub secure_boot_key: Option<PathBuf>,
    /// Where the configuration lies while it is needed: a directory that nobody else can look into.
    pub scratch: tempfile::TempDir,
    /// The log.
    pub log: PathBuf,
    /// What must never be shown.
    pub secrets: Vec<Secret>,
}

/// The command line that reads a board.
pub fn read_command(chip: Jetson, target: &str, fused: Fused, key: &Path, sbk: Option<&Path>) -> Vec<OsString> {
    let mut words: Vec<OsString> = vec!["./odmfuseread.sh".into(), "-i".into(), chip.number().into()];
    authentication(&mut words, fused, key, sbk);
    words.push(target.into());
    words
}

/// The command line that burns a configuration, or tries to.
pub fn burn_command(
    chip: Jetson,
    target: &str,
    run: Run,
    configuration: &Path,
    fused: Fused,
    key: &Path,
    sbk: Option<&Path>,
) -> Vec<OsString> {
    let mut words: Vec<OsString> = vec!["./odmfuse.sh".into()];
    if run == Run::Test {
        words.push("--test".into());
    }
    words.extend(["-X".into(), configuration.into(), "-i".into(), chip.number().into()]);
    authentication(&mut words, fused, key, sbk);
    words.push(target.into());
    words
}

fn authentication(words: &mut Vec<OsString>, fused: Fused, key: &Path, sbk: Option<&Path>) {
    if fused.signed {
        words.extend(["-k".into(), key.into()]);
    }
    if let Some(sbk) = sbk.filter(|_| fused.encrypted) {
        words.extend(["-S".into(), sbk.into()]);
    }
}

/// A command line as somebody would type it.
pub fn typed(words: &[OsString]) -> String {
    words.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

impl Nvidia {
    fn configuration(&self) -> PathBuf {
        self.scratch.path().join("fuses.xml")
    }

    fn failed(&self, what: &str, path: &Path) -> impl FnOnce(std::io::Error) -> BenchError {
        let text = format!("cannot {what} {}", path.display());
        move |error| BenchError(format!("{text}: {error}"))
    }

    fn call(&self, words: &[OsString], directory: &Path) -> Result<Vec<u8>, BenchError> {
        let (program, arguments) = words.split_first().ok_or(BenchError("no program".into()))?;
        // Whatever the scripts leave behind can be read by its owner alone: `main` set the umask.
        let output = Command::new(directory.join(program))
            .args(arguments)
            .current_dir(directory)
            .stdin(Stdio::null())
            .output()
            .map_err(self.failed("run", &directory.join(program)))?;
        let mut said = output.stdout;
        said.extend_from_slice(&output.stderr);
        if output.status.success() {
            return Ok(said);
        }
        let secrets: Vec<&Secret> = self.secrets.iter().collect();
        let said = masked(&String::from_utf8_lossy(&said), &secrets);
        let lines: Vec<_> = said.lines().collect();
        let last = lines.get(lines.len().saturating_sub(12)..).unwrap_or_default().join("\n");
        Err(BenchError(format!("{} ended with {}:\n{last}", typed(words), output.status)))
    }
}

impl Bench for Nvidia {
    fn read(&mut self, fused: Fused) -> Result<Vec<u8>, BenchError> {
        let words = read_command(self.chip, &self.target, fused, &self.signing_key, self.secure_boot_key.as_deref());
        self.call(&words, &self.tools)
    }

    fn key_hash(&mut self, modulus: &[u8]) -> Result<String, BenchError> {
        // What `openssl rsa -modulus` prints; tegrasign_v3.py takes that for a public key of the kind `rsa`.
        let path = self.scratch.path().join("modulus");
        let digits: String = modulus.iter().map(|byte| format!("{byte:02X}")).collect();
        fs::write(&path, format!("Modulus={digits}\n")).map_err(self.failed("write", &path))?;
        let program = self.tools.join("bootloader/tegrasign_v3.py");
        let hash = self.scratch.path().join("hash");
        let words = [program.into(), "--pubkeyhash".into(), path.into(), hash.into(), "rsa".into()];
        let output = self.call(&words, self.scratch.path())?;
        Ok(String::from_utf8_lossy(&output).into_owned())
    }

    fn write_configuration(&mut self, xml: &str) -> Result<(), BenchError> {
        let path = self.configuration();
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| file.write_all(xml.as_bytes()))
            .map_err(self.failed("write", &path))
    }

    fn remove_configuration(&mut self) -> Result<(), BenchError> {
        let path = self.configuration();
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(self.failed("remove", &path)(error)),
            _ => Ok(()),
        }
    }

    fn run(&mut self, run: Run, fused: Fused) -> Result<String, BenchError> {
        let (configuration, sbk) = (self.configuration(), self.secure_boot_key.as_deref());
        let words = burn_command(self.chip, &self.target, run, &configuration, fused, &self.signing_key, sbk);
        self.show(&format!("{}\n", typed(&words)));
        Ok(String::from_utf8_lossy(&self.call(&words, &self.tools)?).into_owned())
    }

    fn log(&mut self, text: &str) -> Result<(), BenchError> {
        let seconds = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let path = self.log.clone();
        let write = |mut file: File| file.write_all(format!("[{seconds}] {text}").as_bytes()).and_then(|()| file.sync_all());
        OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&path)
            .and_then(write)
            .map_err(self.failed("write the log", &path))
    }

    fn show(&mut self, text: &str) {
        print!("{text}");
        let _ = std::io::stdout().flush();
    }

    fn ask(&mut self, question: &str) -> Result<String, BenchError> {
        self.show(question);
        let mut line = String::new();
        match std::io::stdin().lock().read_line(&mut line) {
            Ok(0) => Err(BenchError("nobody answered".into())),
            Ok(_) => Ok(line),
            Err(error) => Err(BenchError(format!("nobody could be asked: {error}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_are_those_of_the_guide() {
        let (key, sbk) = (Path::new("/keys/pkc.pem"), Some(Path::new("/keys/sbk.key")));
        let [new, ours] = [false, true].map(|fused| Fused { signed: fused, encrypted: fused });
        let target = "jetson-agx-orin-devkit";
        let burn = |run, fused| typed(&burn_command(Jetson::Orin, target, run, Path::new("/x.xml"), fused, key, sbk));
        assert_eq!(burn(Run::Burn, new), "./odmfuse.sh -X /x.xml -i 0x23 jetson-agx-orin-devkit");
        assert_eq!(burn(Run::Test, new), "./odmfuse.sh --test -X /x.xml -i 0x23 jetson-agx-orin-devkit");
        let whole = "./odmfuse.sh -X /x.xml -i 0x23 -k /keys/pkc.pem -S /keys/sbk.key jetson-agx-orin-devkit";
        assert_eq!(burn(Run::Burn, ours), whole);
        let read = |chip, fused| typed(&read_command(chip, "xavier", fused, key, None));
        assert_eq!(read(Jetson::Xavier, new), "./odmfuseread.sh -i 0x19 xavier");
        assert_eq!(read(Jetson::Xavier, ours), "./odmfuseread.sh -i 0x19 -k /keys/pkc.pem xavier");
    }
}
