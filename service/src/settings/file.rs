//! Settings that are read from files, as Docker and Kubernetes mount secrets. The value then appears in no environment,
//! no command line and no process list.

use std::fs;
use std::io;
use std::str::FromStr;

/// Why a file holds no valid value. Error messages never repeat the value.
#[derive(Debug, thiserror::Error)]
pub enum InvalidFile<E> {
    /// The error of the operating system.
    #[error("it cannot be read: {0}")]
    Unreadable(io::Error),
    /// The parse error of the content.
    #[error("its content {0}")]
    Invalid(E),
}

/// Reads a value from a file. The content must be what the variable itself would accept. One line ending at the end is
/// removed, because editors and `echo` add it.
///
/// # Errors
/// Fails when the file cannot be read, or its content is not valid.
pub fn in_file<T: FromStr>(path: &str) -> Result<T, InvalidFile<T::Err>> {
    let text = fs::read_to_string(path).map_err(InvalidFile::Unreadable)?;
    let value = text.strip_suffix('\n').map_or(&*text, |line| line.strip_suffix('\r').unwrap_or(line));
    value.parse().map_err(InvalidFile::Invalid)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8]) -> Result<String, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        fs::write(&path, text).unwrap();
        in_file::<String>(path.to_str().unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn file_value_loses_only_one_line_ending() {
        for (text, value) in
            [("a", "a"), ("a\n", "a"), ("a\r\n", "a"), (" a \n\n", " a \n"), ("", ""), ("a\r", "a\r")]
        {
            assert_eq!(read(text.as_bytes()).as_deref(), Ok(value), "{text:?}");
        }
    }

    #[test]
    fn file_errors_do_not_repeat_the_value() {
        let nowhere = in_file::<String>("/nowhere").unwrap_err().to_string();
        assert_eq!(nowhere, "it cannot be read: No such file or directory (os error 2)");
        let binary = read(b"secret\xff").unwrap_err();
        assert!(binary.starts_with("it cannot be read: ") && !binary.contains("secret"), "{binary}");
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("number"), "hunter2").unwrap();
        let number = in_file::<u16>(folder.path().join("number").to_str().unwrap()).unwrap_err().to_string();
        assert_eq!(number, "its content invalid digit found in string");
    }
}
