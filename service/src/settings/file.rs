//! Values that lie in files of their own, as Docker and Kubernetes hand out secrets: in no environment, no command line,
//! and no list of processes.

use std::fs;
use std::io;
use std::str::FromStr;

/// Why a file holds no value of a setting. The value itself is never repeated.
#[derive(Debug, thiserror::Error)]
pub enum InvalidFile<E> {
    /// What the system says.
    #[error("it cannot be read: {0}")]
    Unreadable(io::Error),
    /// What the setting says to what is in it.
    #[error("what is in it {0}")]
    Invalid(E),
}

/// The value in the file at this path, which must be what the variable itself could be. The end of the last line belongs
/// to the file: editors and `echo` put it there.
///
/// # Errors
/// When it cannot be read, or holds something else.
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
        assert_eq!(number, "what is in it invalid digit found in string");
    }
}
