//! Standard output of commands that start processes.

/// Prints a line, as `println!` does. A reader that is gone (`up --detach | head`) does not end the command: the
/// processes that it started must be recorded first.
macro_rules! say {
    ($($argument:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), $($argument)*);
    }};
}

/// Prints text without ending the line, as [`say`] prints a line.
macro_rules! say_part {
    ($($argument:tt)*) => {{
        use std::io::Write as _;
        let _ = write!(std::io::stdout(), $($argument)*);
    }};
}
