//! What the log tells a program's metrics: once for each group and each job on segments, with no lock held, and never for an
//! entry. Without the feature `metrics` nothing of it is there.

#[cfg(feature = "metrics")]
mod recorded;

#[cfg(feature = "metrics")]
pub(crate) use self::recorded::{GroupReport, Metrics};
#[cfg(not(feature = "metrics"))]
pub(crate) use self::unused::{GroupReport, Metrics};

/// The same calls, and nothing behind them.
#[cfg(not(feature = "metrics"))]
mod unused {
    use std::{io, path::Path};

    use crate::{core::State, stream::Group};

    #[derive(Debug)]
    pub(crate) struct Metrics;

    #[derive(Clone, Copy, Debug)]
    pub(crate) struct Report;

    #[derive(Debug, Default)]
    pub(crate) struct GroupReport;

    impl GroupReport {
        pub(crate) fn of(_: &Group) -> Self {
            Self
        }

        pub(crate) fn time(&self, sync: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
            sync()
        }
    }

    impl Metrics {
        pub(crate) fn none() -> Self {
            Self
        }

        pub(crate) fn new(_: &Path, _: &State) -> Self {
            Self
        }

        pub(crate) fn report(&self, _: &State) -> Report {
            Report
        }

        pub(crate) fn tell(&self, _: Report) {}

        pub(crate) fn tell_group(&self, _: &GroupReport) {}
    }
}
