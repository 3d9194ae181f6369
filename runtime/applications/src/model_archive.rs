//! Takes the one ONNX file out of a model archive: `.tar.gz` (as `panorama-cli add-raw-model` uploads it), `.zip`, or
//! the ONNX file itself. The archive is hostile; what is inside the ONNX file is the inference process's concern.

use std::fs::File;
use std::io::{self, Read, Seek, Write};

/// Bytes of an ONNX file.
pub const MODEL: u64 = 1 << 30;
/// Entries of an archive.
pub const ENTRIES: usize = 1_000;

/// Why there is no model.
#[derive(Debug, thiserror::Error)]
pub enum ModelArchiveError {
    /// Damaged, or another format.
    #[error("read the model archive: {0}")]
    Read(#[from] io::Error),
    /// Damaged, or features we do not take.
    #[error("read the model archive: {0}")]
    Zip(#[from] zip::result::ZipError),
    /// None or several.
    #[error(
        "the model archive holds {0} .onnx files; it must hold exactly one (models run as ONNX; convert others before packaging)"
    )]
    NotOne(usize),
    /// Too large.
    #[error("the model archive holds more than {limit} {what}")]
    Limit {
        /// Such as `bytes`.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
}

/// Writes the archive's ONNX file to `output`; gives its size.
pub fn extract(archive: &mut File, output: &mut File) -> Result<u64, ModelArchiveError> {
    let mut magic = [0; 2];
    archive.rewind()?;
    archive.read_exact(&mut magic)?;
    archive.rewind()?;
    match magic {
        [0x1f, 0x8b] => from_tar(archive, output),
        [b'P', b'K'] => from_zip(archive, output),
        // An ONNX file begins with field 1, `ir_version`, a small number.
        [0x08, version] if version < 0x80 => copy(archive, output),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "it is none of tar.gz, zip and ONNX").into()),
    }
}

fn is_onnx(name: &str) -> bool {
    let file = name.rsplit('/').next().unwrap_or(name);
    // "._model.onnx" is what macOS puts beside a file.
    file.to_ascii_lowercase().ends_with(".onnx") && !file.starts_with('.')
}

fn copy(input: impl Read, output: &mut File) -> Result<u64, ModelArchiveError> {
    output.set_len(0)?;
    output.rewind()?;
    let written = io::copy(&mut input.take(MODEL + 1), output)?;
    output.flush()?;
    if written > MODEL { Err(ModelArchiveError::Limit { what: "bytes", limit: MODEL }) } else { Ok(written) }
}

fn from_tar(archive: &mut File, output: &mut File) -> Result<u64, ModelArchiveError> {
    // Twice the largest model: what else is in the archive is skipped, not kept, but must end.
    let stream = flate2::read::MultiGzDecoder::new(io::BufReader::new(archive)).take(2 * MODEL);
    let mut tar = tar::Archive::new(stream);
    let (mut found, mut size) = (0, 0);
    for (i, entry) in tar.entries()?.enumerate() {
        if i >= ENTRIES {
            return Err(ModelArchiveError::Limit { what: "entries", limit: ENTRIES as u64 });
        }
        let entry = entry?;
        if entry.header().entry_type().is_file() && is_onnx(&entry.path()?.to_string_lossy()) {
            found += 1;
            if found == 1 {
                size = copy(entry, output)?;
            }
        }
    }
    if found == 1 { Ok(size) } else { Err(ModelArchiveError::NotOne(found)) }
}

fn from_zip(archive: &mut File, output: &mut File) -> Result<u64, ModelArchiveError> {
    let mut zip = zip::ZipArchive::new(archive)?;
    if zip.len() > ENTRIES {
        return Err(ModelArchiveError::Limit { what: "entries", limit: ENTRIES as u64 });
    }
    let names: Vec<String> =
        zip.file_names().filter_map(Result::ok).filter(|name| is_onnx(name)).map(|name| name.into_owned()).collect();
    let [name] = &names[..] else { return Err(ModelArchiveError::NotOne(names.len())) };
    copy(zip.by_name(name)?, output)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
        for (name, content) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            builder.append_data(&mut header, name, *content).unwrap();
        }
        builder.into_inner().unwrap().finish().unwrap()
    }

    fn zip(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut writer = zip::ZipWriter::new(io::Cursor::new(Vec::new()));
        for (name, content) in files {
            writer.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
            writer.write_all(content).unwrap();
        }
        writer.finish().unwrap().into_inner()
    }

    fn extracted(archive: &[u8]) -> Result<Vec<u8>, ModelArchiveError> {
        let mut input = tempfile::tempfile().unwrap();
        input.write_all(archive).unwrap();
        let mut output = tempfile::tempfile().unwrap();
        extract(&mut input, &mut output)?;
        let mut bytes = Vec::new();
        output.rewind().unwrap();
        output.read_to_end(&mut bytes).unwrap();
        Ok(bytes)
    }

    #[test]
    fn the_one_onnx_file_is_found_in_each_form() {
        let onnx: &[u8] = b"\x08\x07model";
        let files: &[(&str, &[u8])] = &[("readme.txt", b"hello"), ("a/._model.onnx", b"mac"), ("a/model.onnx", onnx)];
        assert_eq!(extracted(&tar(files)).unwrap(), onnx);
        assert_eq!(extracted(&zip(files)).unwrap(), onnx);
        assert_eq!(extracted(onnx).unwrap(), onnx);
    }

    #[test]
    fn none_and_two_are_refused_with_help() {
        for make in [tar, zip] {
            for files in [&[("model.pth", &b"x"[..])][..], &[("a.onnx", b"x"), ("b.onnx", b"y")]] {
                let error = extracted(&make(files)).unwrap_err();
                assert!(error.to_string().contains("exactly one"), "{error}");
            }
        }
        assert!(extracted(b"neither").is_err());
        assert!(extracted(b"").is_err());
        let whole = tar(&[("m.onnx", &[8; 9_000])]);
        assert!(extracted(&whole[..whole.len() / 2]).is_err());
    }
}
