//! What the fuzz targets do with their input. Built twice: as the library behind `fuzz_targets/`, and as a module of
//! `tests/corpus.rs`, which runs the inputs in `corpus/` without a fuzzer.
//!
//! `frame` and `codecs` decode bytes. `recovery` and `look` take a directory of segments in a short form (`directory`),
//! whose checksums are mended first, so that what lies behind them is reached: `recovery` opens it for writing and goes
//! on, `look` reads it without changing it, `repair` cuts and salvages it. `image` receives an image of a state machine.

mod codecs;
pub mod directory;
mod image;
pub mod mend;
mod recovery;
mod repair;

use std::{alloc::System, panic, sync::Once};

use cap::Cap;

pub use self::{
    codecs::{codecs, frame},
    image::image,
    recovery::{look, recovery},
    repair::repair,
};

/// Every allocation of the process, so that one that the input does not justify ends it.
#[global_allocator]
static HEAP: Cap<System> = Cap::new(System, usize::MAX);

/// Runs `work`, which may hold `bytes` of heap at a time. More of it aborts: "memory allocation failed".
fn within<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
    static HOOKED: Once = Once::new();
    HOOKED.call_once(|| {
        // What tells of a panic takes what it needs.
        let tell = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            HEAP.set_limit(usize::MAX).expect("no limit");
            tell(panic);
        }));
    });
    HEAP.set_limit(HEAP.allocated() + bytes).expect("the limit is above what is held");
    let result = work();
    HEAP.set_limit(usize::MAX).expect("no limit");
    result
}
