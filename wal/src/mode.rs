//! What a log still does.

use crate::WalError;

/// What a log still does.
#[derive(Clone, Debug)]
pub(crate) enum Mode {
    Open,
    /// Appends are refused; what was appended is being synced.
    Closing,
    Closed,
    /// Closed while a job was out, without the mark of a close.
    GivenUp,
    /// Nothing is written any more.
    Poisoned(WalError),
    ReadOnly,
}

impl Mode {
    /// Why an append is refused, if it is.
    pub(crate) fn refusal(&self) -> Option<WalError> {
        match self {
            Self::Open => None,
            Self::Closing | Self::Closed | Self::GivenUp => Some(WalError::Closed),
            Self::Poisoned(error) => Some(error.clone()),
            Self::ReadOnly => Some(WalError::ReadOnly),
        }
    }

    /// Why nothing more becomes durable, if so.
    pub(crate) fn end(&self) -> Option<WalError> {
        match self {
            Self::Open | Self::Closing => None,
            _ => self.refusal(),
        }
    }
}
