//! Where random numbers come from: the operating system, or whoever wants to repeat a run.

use std::{fmt, io, sync::Arc};

use parking_lot::Mutex;

use crate::StartError;

/// A source of random numbers.
pub(crate) enum Entropy {
    System,
    /// What it gives is as random as the caller has made it.
    Given(Mutex<Box<dyn FnMut() -> u64 + Send>>),
}

impl Entropy {
    pub(crate) fn given(draw: impl FnMut() -> u64 + Send + 'static) -> Self {
        Self::Given(Mutex::new(Box::new(draw)))
    }

    /// A random number that is not 0.
    pub(crate) fn draw(&self) -> Result<u64, StartError> {
        loop {
            let number = match self {
                Self::System => getrandom::u64()
                    .map_err(|error| StartError::Io(Arc::new(io::Error::other(error))))?,
                Self::Given(draw) => (*draw.lock())(),
            };
            if number != 0 {
                return Ok(number);
            }
        }
    }
}

impl fmt::Debug for Entropy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::System => "Entropy::System",
            Self::Given(_) => "Entropy::Given",
        })
    }
}
