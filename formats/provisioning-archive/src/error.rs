//! What can be wrong with an archive.

/// What to do about an archive with other files in it than it was made with. Whoever has the four files has not always the
/// archive.
const AS_SAVED: &str = "use the file from provision-device as it was saved; if a browser unpacked it, pack its four files again and nothing beside them";

/// Why an archive was refused. [`ArchiveError::reason`] is stable; the text is one line for the operator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // the text of each variant says what it is
pub enum ArchiveError {
    #[error(
        "no provisioning archive in the stick's root folder: copy the file certificates-omni_<name>.zip from provision-device there, and plug the stick in again"
    )]
    NoArchive,
    #[error(
        "two provisioning archives on the stick ({first} and {second}): leave only the newest, and plug the stick in again"
    )]
    SeveralArchives { first: String, second: String },
    #[error(
        "the provisioning archive is larger than {limit} bytes: it is not one that provision-device made; copy it again from where it was saved"
    )]
    TooLarge { limit: u64 },
    #[error(
        "the provisioning archive is damaged ({what}): it was not copied completely; copy it again, eject the stick properly, and plug it in again"
    )]
    Damaged { what: String },
    #[error(
        "the provisioning archive uses {what}, which provision-device never does: use its file as it was saved, not packed anew"
    )]
    Unsupported { what: String },
    #[error("the provisioning archive is encrypted: use the file from provision-device as it was saved")]
    Encrypted,
    #[error("the provisioning archive holds more than {limit} files: {AS_SAVED}")]
    TooManyEntries { limit: usize },
    #[error("the provisioning archive holds two files named {name}: {AS_SAVED}")]
    DuplicateEntry { name: String },
    #[error("the provisioning archive holds a file with the unsafe name {name}: {AS_SAVED}")]
    UnsafeName { name: String },
    #[error("the provisioning archive holds {name}, which is another folder or a link: {AS_SAVED}")]
    NotAFile { name: String },
    #[error(
        "the provisioning archive holds the unknown file {name}: {AS_SAVED}; if it is as it was saved, update the appliance's software"
    )]
    UnknownEntry { name: String },
    #[error(
        "the file on the stick holds the provisioning archive ({name}) instead of being it: copy {name} itself to the stick"
    )]
    Nested { name: String },
    #[error("the provisioning archive lacks {name}: {AS_SAVED}")]
    MissingEntry { name: &'static str },
    #[error(
        "{name} in the provisioning archive unpacks to more than allowed ({limit} bytes): it is not one that provision-device made; make a new one"
    )]
    EntryTooLarge { name: String, limit: u64 },
    #[error(
        "{name} in the provisioning archive is packed more than {limit} times smaller than it is: it is not one that provision-device made; make a new one"
    )]
    Ratio { name: String, limit: u64 },
    #[error(
        "the provisioning archive has format version {found}, this appliance reads version {known}: update the appliance's software, or make the archive with a matching service"
    )]
    UnknownFormatVersion { found: u64, known: u32 },
    #[error(
        "configuration.json in the provisioning archive is not valid ({what}): make a new archive with the service, and use its file as it was saved; if that says the same, update the appliance's software"
    )]
    Configuration { what: String },
    #[error(
        "configuration.json in the provisioning archive holds {name}, which this appliance does not know: update the appliance's software; the service would make the same archive again"
    )]
    UnknownMember { name: String },
    #[error(
        "{name} in the provisioning archive is saved as {found}, not as UTF-8: use the file from provision-device as it was saved, without opening it in an editor"
    )]
    Encoding { name: &'static str, found: &'static str },
    #[error(
        "{name} in the provisioning archive is not what its name says ({what}): delete the device in the service, provision it again and use the new archive"
    )]
    Credential { name: &'static str, what: String },
}

impl ArchiveError {
    /// A stable word for light, log and API.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoArchive => "no_archive",
            Self::SeveralArchives { .. } => "several_archives",
            Self::TooLarge { .. } => "archive_too_large",
            Self::Damaged { .. } => "archive_damaged",
            Self::Unsupported { .. } => "archive_unsupported",
            Self::Encrypted => "archive_encrypted",
            Self::TooManyEntries { .. } => "archive_too_many_entries",
            Self::DuplicateEntry { .. } => "archive_duplicate_entry",
            Self::UnsafeName { .. } => "archive_unsafe_name",
            Self::NotAFile { .. } => "archive_not_a_file",
            Self::UnknownEntry { .. } => "archive_unknown_entry",
            Self::Nested { .. } => "archive_nested",
            Self::MissingEntry { .. } => "archive_missing_entry",
            Self::EntryTooLarge { .. } => "archive_entry_too_large",
            Self::Ratio { .. } => "archive_ratio",
            Self::UnknownFormatVersion { .. } => "archive_format_version",
            Self::Configuration { .. } => "archive_configuration",
            Self::UnknownMember { .. } => "archive_unknown_member",
            Self::Encoding { .. } => "archive_encoding",
            Self::Credential { .. } => "archive_credential",
        }
    }

    /// A name from the archive as it may be shown: printable ASCII, short, one line.
    pub(crate) fn shown(name: &[u8]) -> String {
        let mut text: String =
            name.iter().take(60).map(|&b| if (0x20..0x7f).contains(&b) { b as char } else { '?' }).collect();
        if name.len() > 60 {
            text.push('…');
        }
        format!("\"{text}\"")
    }

    /// A parser's complaint as it may be shown.
    pub(crate) fn shortened(text: impl core::fmt::Display) -> String {
        let text = text.to_string();
        text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(120).collect()
    }
}
