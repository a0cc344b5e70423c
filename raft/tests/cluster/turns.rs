//! How many tests may have nodes at once. They wait for timers most of the time, so a few go well side by
//! side; the nodes of many would miss each other's deadlines.

use std::{
    cell::Cell,
    marker::PhantomData,
    sync::{Condvar, Mutex, PoisonError},
};

const PLACES: usize = 3;

static FREE: Mutex<usize> = Mutex::new(PLACES);
static LEFT: Condvar = Condvar::new();

thread_local! {
    /// How many turns this test has: the second one takes no place.
    static TURNS: Cell<usize> = const { Cell::new(0) };
}

/// Held while a test has nodes, by the thread of that test.
pub(crate) struct Turn(PhantomData<*const ()>);

/// Waits for a place. One test may have several turns.
pub(crate) fn turn() -> Turn {
    if TURNS.replace(TURNS.get() + 1) == 0 {
        let free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = LEFT.wait_while(free, |free| *free == 0);
        *waited.unwrap_or_else(PoisonError::into_inner) -= 1;
    }
    Turn(PhantomData)
}

impl Drop for Turn {
    fn drop(&mut self) {
        TURNS.set(TURNS.get() - 1);
        if TURNS.get() == 0 {
            *FREE.lock().unwrap_or_else(PoisonError::into_inner) += 1;
            LEFT.notify_one();
        }
    }
}
