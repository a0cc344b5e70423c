//! Words for places in a log, the same in every line that is printed.

use std::fmt::{Display, Write};

/// Appends ` name value` if there is a value.
pub(crate) fn push(line: &mut String, name: &str, value: Option<impl Display>) {
    if let Some(value) = value {
        write!(line, " {name} {value}").expect("a String takes everything");
    }
}

/// The indexes from `first` to `last`, both included.
pub(crate) fn range(first: u64, last: u64) -> String {
    if first == last { format!("{first}") } else { format!("{first}..={last}") }
}
