//! Standard output and standard error.

/// Prints a line, as `println!` does. A reader that is gone (`up --detach | head`) does not end the command: it started
/// processes that must be recorded, or has a verdict to return.
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

/// Prints a line on standard error, as [`say`] prints one on standard output.
macro_rules! complain {
    ($($argument:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($argument)*);
    }};
}
