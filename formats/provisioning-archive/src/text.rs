//! Text as editors save it.

use crate::ArchiveError;

/// UTF-8, without the mark that editors on Windows put in front of it (RFC 8259, 8.1, lets a reader ignore it). The ends
/// of lines are what they are: JSON and PEM have both kinds. Files that were put together have the mark in front of a later
/// line, too.
pub(crate) fn text(name: &'static str, mut content: Vec<u8>) -> Result<String, ArchiveError> {
    let saved_as = |found| ArchiveError::Encoding { name, found };
    if content.starts_with(b"\xff\xfe") || content.starts_with(b"\xfe\xff") || content.iter().take(2).any(|byte| *byte == 0)
    {
        return Err(saved_as("UTF-16"));
    }
    if content.starts_with(b"\xef\xbb\xbf") {
        content.drain(..3);
        if content.starts_with(b"\xef\xbb\xbf") {
            return Err(saved_as("UTF-8 with two byte order marks"));
        }
    }
    let mut text = String::from_utf8(content).map_err(|_| saved_as("something other than UTF-8"))?;
    let mut line_begins = false;
    text.retain(|character| {
        let is_mark = line_begins && character == '\u{feff}';
        line_begins = is_mark || matches!(character, '\n' | '\r');
        !is_mark
    });
    Ok(text)
}
