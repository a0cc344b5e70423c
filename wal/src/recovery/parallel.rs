//! The same work on many segments, in a few threads.

use std::{
    num::NonZeroUsize,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

/// What `work` makes of each of `items`, in their order however many threads there are. The caller's is one of them.
pub(super) fn in_parallel<T: Sync, R: Send>(
    threads: NonZeroUsize,
    items: &[T],
    work: impl Fn(&T) -> R + Sync,
) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let run = || {
        let mut done = Vec::new();
        loop {
            // Relaxed: the number alone says whose an item is.
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(number) else { return done };
            done.push((number, work(item)));
        }
    };
    let mut done = thread::scope(|scope| {
        let spawn = || thread::Builder::new().name("wal-check".to_owned()).spawn_scoped(scope, run);
        // With fewer threads than were asked for the work takes longer, and is done all the same.
        let others: Vec<_> =
            (1..threads.get().min(items.len())).map_while(|_| spawn().ok()).collect();
        let mut done = run();
        for other in others {
            done.extend(other.join().expect("the work does not panic"));
        }
        done
    });
    done.sort_unstable_by_key(|(number, _)| *number);
    done.into_iter().map(|(_, made)| made).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn results_come_in_the_order_of_the_items_with_any_number_of_threads() {
        let items: Vec<usize> = (0..100).collect();
        let doubled: Vec<usize> = (0..100).map(|item| item * 2).collect();
        for threads in [1, 2, 7, 1000] {
            let threads = NonZeroUsize::new(threads).unwrap();
            assert_eq!(in_parallel(threads, &items, |item| item * 2), doubled, "{threads} threads");
        }
        assert_eq!(in_parallel(NonZeroUsize::MIN, &[] as &[u8], |_| 0), []);
        // Each of the two threads does one item of each pair, so what the two have done is mixed.
        let meeting = Barrier::new(2);
        let made = in_parallel(NonZeroUsize::new(2).unwrap(), &items, |item| {
            if [10, 11, 50, 51].contains(item) {
                meeting.wait();
            }
            item * 2
        });
        assert_eq!(made, doubled);
    }
}
